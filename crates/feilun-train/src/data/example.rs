//! One example of a JSONL file: a prompt, and one or two answers to it.

use serde_json::{Map, Value};

use feilun_text::{Message, Role};

use super::error::LineProblem;
use super::json::{get, wrong_type};
use super::messages::{self, shortened};
use super::row::Part;

/// What each line of a file holds.
///
/// ```json
/// {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
/// {"prompt": [..messages..], "chosen": [..messages..], "rejected": [..messages..]}
/// {"prompt": [..messages..], "completion": [..messages..], "label": true}
/// ```
///
/// - A conversation may have `tools`, and an assistant's message may have `weight` 0, which takes
///   it out of the loss, as in OpenAI's API.
/// - Prompt and answers may be strings too: a user's message, an assistant's message.
/// - Pairs may also be in OpenAI's shape: `{"input": {"messages": [..], "tools": [..]},
///   "preferred_output": [..], "non_preferred_output": [..]}`.
/// - Other keys of a line are ignored; other keys of a message are refused, because what they
///   hold would not be learned. A key whose value is null counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Conversations, of which the assistant's turns are learned.
    Chat,
    /// A prompt with a chosen and a rejected answer: DPO.
    Pairs,
    /// A prompt with an answer that was liked or not: KTO.
    Answers,
}

impl Shape {
    /// The shape in a few words, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Shape::Chat => r#"{"messages":[..]}"#,
            Shape::Pairs => r#"{"prompt":[..],"chosen":[..],"rejected":[..]}"#,
            Shape::Answers => r#"{"prompt":[..],"completion":[..],"label":true or false}"#,
        }
    }
}

impl Shape {
    /// What a line seems to be meant for; a conversation where nothing tells.
    pub(crate) fn of_line(line: &[u8]) -> Shape {
        /// Looks at keys alone: what they hold is checked later.
        #[derive(serde::Deserialize)]
        struct Keys {
            chosen: Option<serde::de::IgnoredAny>,
            preferred_output: Option<serde::de::IgnoredAny>,
            completion: Option<serde::de::IgnoredAny>,
        }
        match serde_json::from_slice::<Keys>(line) {
            Ok(Keys { chosen: Some(_), .. } | Keys { preferred_output: Some(_), .. }) => {
                Shape::Pairs
            }
            Ok(Keys { completion: Some(_), .. }) => Shape::Answers,
            _ => Shape::Chat,
        }
    }
}

/// A prompt and answers to it.
#[derive(Debug)]
pub(crate) struct Example {
    pub tools: Option<Value>,
    pub prompt: Vec<Message>,
    pub answers: Vec<Answer>,
}

/// What follows a prompt, from an assistant's message on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub part: Part,
    pub messages: Vec<Message>,
    /// One for each message of an assistant: whether it is learned.
    pub learn: Vec<bool>,
}

impl Example {
    /// Reads one line.
    pub(crate) fn parse(line: &[u8], shape: Shape) -> Result<Example, LineProblem> {
        let value = super::json::parse(line, shape.describe())?;
        let object =
            value.as_object().ok_or_else(|| wrong_type("the line", &value, shape.describe()))?;
        match shape {
            Shape::Chat => chat(object),
            Shape::Pairs if get(object, "preferred_output").is_some() => openai_pair(object),
            Shape::Pairs => {
                let [prompt, chosen, rejected] =
                    fields(object, ["prompt", "chosen", "rejected"], shape)?;
                let chosen = answer("chosen", chosen, Part::Chosen)?;
                let answers = vec![chosen, answer("rejected", rejected, Part::Rejected)?];
                with_prompt("prompt", prompt, tools(object), answers)
            }
            Shape::Answers => {
                let [prompt, completion, label] =
                    fields(object, ["prompt", "completion", "label"], shape)?;
                let part = match label {
                    Value::Bool(true) => Part::Desirable,
                    Value::Bool(false) => Part::Undesirable,
                    found => return Err(wrong_type("label", found, "true or false")),
                };
                let answers = vec![answer("completion", completion, part)?];
                with_prompt("prompt", prompt, tools(object), answers)
            }
        }
    }

    /// Names the prompt: examples with equal prompts stay on one side of a split.
    pub(crate) fn prompt_hash(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for message in &self.prompt {
            add(message.role.name());
            add(&message.content);
            for call in &message.tool_calls {
                add(&call.name);
                add(&call.arguments.to_string());
            }
        }
        if let Some(tools) = &self.tools {
            add(&tools.to_string());
        }
        first_u64(&hasher.finalize())
    }
}

/// The first eight bytes of a digest.
pub(crate) fn first_u64(hash: &blake3::Hash) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// The values of some keys, all of which must be there.
fn fields<'v, const N: usize>(
    object: &'v Map<String, Value>,
    keys: [&str; N],
    shape: Shape,
) -> Result<[&'v Value; N], LineProblem> {
    let mut values = [&Value::Null; N];
    for (value, key) in values.iter_mut().zip(keys) {
        *value = get(object, key).ok_or_else(|| missing(object, shape))?;
    }
    Ok(values)
}

fn missing(object: &Map<String, Value>, shape: Shape) -> LineProblem {
    const KEYS_MAX: usize = 8;
    let present = object.keys().filter(|key| get(object, key).is_some());
    let mut found: Vec<_> = present.take(KEYS_MAX).map(|key| shortened(key)).collect();
    if found.is_empty() {
        found.push("(none)".into());
    }
    LineProblem::Keys { found: found.join(", "), expected: shape.describe() }
}

fn tools(object: &Map<String, Value>) -> Option<Value> {
    get(object, "tools").cloned()
}

fn chat(object: &Map<String, Value>) -> Result<Example, LineProblem> {
    let [list] = fields(object, ["messages"], Shape::Chat)?;
    let all = messages::parse("messages", list)?;
    let is_assistant = |m: &messages::Weighted| m.message.role == Role::Assistant;
    let learn: Vec<bool> = all.iter().filter(|m| is_assistant(m)).map(|m| m.learn).collect();
    if learn.is_empty() {
        return Err(LineProblem::NothingLearned { reason: "no message of an assistant" });
    }
    if !learn.contains(&true) {
        let reason = "every message of an assistant has the weight 0";
        return Err(LineProblem::NothingLearned { reason });
    }
    let first = all.iter().position(is_assistant).unwrap_or(all.len());
    let mut prompt: Vec<Message> = all.into_iter().map(|m| m.message).collect();
    let messages = prompt.split_off(first);
    let answers = vec![Answer { part: Part::Whole, messages, learn }];
    Ok(Example { tools: tools(object), prompt, answers })
}

fn openai_pair(object: &Map<String, Value>) -> Result<Example, LineProblem> {
    let keys = ["input", "preferred_output", "non_preferred_output"];
    let [input, chosen, rejected] = fields(object, keys, Shape::Pairs)?;
    let input = input.as_object().ok_or_else(|| wrong_type("input", input, "an object"))?;
    let messages = get(input, "messages").unwrap_or(&Value::Null);
    let chosen = answer("preferred_output", chosen, Part::Chosen)?;
    let answers = vec![chosen, answer("non_preferred_output", rejected, Part::Rejected)?];
    with_prompt("input.messages", messages, tools(input), answers)
}

fn with_prompt(
    field: &str,
    prompt: &Value,
    tools: Option<Value>,
    answers: Vec<Answer>,
) -> Result<Example, LineProblem> {
    let prompt = messages::parse_or_text(field, prompt, Role::User)?;
    if prompt.is_empty() {
        let found = "empty".into();
        return Err(LineProblem::Value { field: field.into(), found, expected: "a message" });
    }
    Ok(Example { tools, prompt, answers })
}

fn answer(field: &str, value: &Value, part: Part) -> Result<Answer, LineProblem> {
    let messages = messages::parse_or_text(field, value, Role::Assistant)?;
    let expected = "a message of the assistant first (the prompt has a key of its own)";
    match messages.first().map(|message| message.role) {
        Some(Role::Assistant) => {}
        found => {
            let found = found.map_or("empty", Role::name).into();
            return Err(LineProblem::Value { field: field.into(), found, expected });
        }
    }
    let assistants = messages.iter().filter(|message| message.role == Role::Assistant);
    let learn = vec![true; assistants.count()];
    Ok(Answer { part, messages, learn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(line: &str, shape: Shape, expected: &str) {
        let error = Example::parse(line.as_bytes(), shape).unwrap_err();
        assert_eq!(error.to_string(), expected, "{line}");
    }

    fn read(line: &str, shape: Shape) -> Example {
        Example::parse(line.as_bytes(), shape).unwrap()
    }

    #[test]
    fn conversations_are_cut_before_the_first_answer() {
        let line = r#"{"messages":[{"role":"developer","content":"Rules"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":"c","weight":0},{"role":"user","content":"d"},
            {"role":"assistant","content":"e","name":null}],"id":7}"#;
        let example = read(&line.replace('\n', ""), Shape::Chat);
        assert_eq!(example.prompt[0].role, Role::System);
        assert_eq!(example.prompt[1].content, "ab");
        assert_eq!(example.answers[0].messages.len(), 3);
        assert_eq!(example.answers[0].learn, [false, true]);
    }

    #[test]
    fn strings_stand_for_messages() {
        let line = r#"{"prompt":"p","chosen":"c","rejected":[{"role":"assistant","content":"r"}]}"#;
        let example = read(line, Shape::Pairs);
        assert_eq!(example.prompt, [Message::new(Role::User, "p")]);
        assert_eq!(example.answers[0].messages, [Message::new(Role::Assistant, "c")]);
        assert_eq!(example.answers[1].part, Part::Rejected);
    }

    #[test]
    fn pairs_in_the_shape_of_openai() {
        let line = r#"{"input":{"messages":[{"role":"user","content":"p"}],"tools":[],"parallel_tool_calls":true},
            "preferred_output":[{"role":"assistant","content":"c"}],
            "non_preferred_output":[{"role":"assistant","content":"r"}]}"#;
        let example = read(&line.replace('\n', ""), Shape::Pairs);
        assert_eq!(example.answers[0].messages[0].content, "c");
        assert_eq!(example.answers[1].messages[0].content, "r");
    }

    #[test]
    fn tool_calls_have_their_arguments_in_a_string() {
        let line = r#"{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":null,
            "tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]},
            {"role":"tool","tool_call_id":"1","content":"2"},{"role":"assistant","content":"3"}]}"#;
        let example = read(&line.replace('\n', ""), Shape::Chat);
        let call = &example.answers[0].messages[0].tool_calls[0];
        assert_eq!(call.arguments, serde_json::json!({"x": 1}));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        use Shape::{Answers, Chat, Pairs};
        let chat = r#"{"messages":[..]}"#;
        refused("[1]", Chat, &format!("the line is a list, expected {chat}"));
        refused("{}", Chat, &format!("found the keys (none), expected {chat}"));
        refused(
            r#"{"text":"x","messages":null}"#,
            Chat,
            &format!("found the keys text, expected {chat}"),
        );
        refused(r#"{"messages":"x"}"#, Chat, "messages is a string, expected a list of messages");
        refused(r#"{"messages":[3]}"#, Chat, "messages[0] is a number, expected an object");
        refused(
            r#"{"messages":[{"role":"bot","content":"x"}]}"#,
            Chat,
            "messages[0].role is `bot`, expected `system`, `user`, `assistant` or `tool`",
        );
        refused(
            r#"{"messages":[{"role":"user","content":3}]}"#,
            Chat,
            "messages[0].content is a number, expected a string, or a list of text parts",
        );
        refused(
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            Chat,
            "messages[0].content[0] is an object, expected a text part",
        );
        refused(
            r#"{"messages":[{"from":"human","value":"x"}]}"#,
            Chat,
            "messages[0].from is not known, expected role, content, name, tool_calls, \
             tool_call_id or weight; remove it, or write it into the content",
        );
        refused(
            r#"{"messages":[{"role":"assistant","content":"x","weight":0.5}]}"#,
            Chat,
            "messages[0].weight is `0.5`, expected 0 or 1",
        );
        refused(
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            Chat,
            "nothing to learn: no message of an assistant",
        );
        refused(
            r#"{"prompt":"p","chosen":"c"}"#,
            Pairs,
            r#"found the keys prompt, chosen, expected {"prompt":[..],"chosen":[..],"rejected":[..]}"#,
        );
        refused(
            r#"{"prompt":"p","chosen":[{"role":"user","content":"x"}],"rejected":"r"}"#,
            Pairs,
            "chosen is `user`, expected a message of the assistant first (the prompt has a key of \
             its own)",
        );
        refused(
            r#"{"prompt":[],"completion":"c","label":true}"#,
            Answers,
            "prompt is `empty`, expected a message",
        );
        refused(
            r#"{"prompt":"p","completion":"c","label":"yes"}"#,
            Answers,
            "label is a string, expected true or false",
        );
    }

    #[test]
    fn prompts_have_names() {
        let hash = |line: &str| read(line, Shape::Answers).prompt_hash();
        let a = hash(r#"{"prompt":"p","completion":"c","label":true}"#);
        let b = hash(r#"{"prompt":"p","completion":"d","label":false}"#);
        let c = hash(r#"{"prompt":"q","completion":"c","label":true}"#);
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
