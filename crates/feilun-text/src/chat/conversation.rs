//! Messages, checked once when a conversation is made; what follows can rely on them.

use serde_json::{Value, json};

use crate::template::TemplateError;
use crate::tokenizer::{TEXT_BYTES_MAX, TokenizerError};

/// The most messages in a conversation.
pub const NUM_MESSAGES_MAX: usize = 4096;
/// The most bytes in all messages and tools together.
pub const CONTENT_BYTES_MAX: usize = TEXT_BYTES_MAX / 2;
/// The deepest nesting of the arguments of a tool call or of a tool's description.
const JSON_DEPTH_MAX: usize = 64;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who sets the rules, first and only first.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// What a tool answered.
    Tool,
}

impl Role {
    /// The name of the role in templates and in OpenAI's API.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// The model asks for a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Ties the answer to the call.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// An object, as templates print it.
    pub arguments: Value,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The tools that an assistant asks for.
    pub tool_calls: Vec<ToolCall>,
    /// A name for the speaker, or the tool that answers.
    pub name: Option<String>,
    /// The call that a tool answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message with nothing but content.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            name: None,
            tool_call_id: None,
        }
    }

    /// As templates expect it; absent fields are left out.
    fn to_json(&self) -> Value {
        let mut message = json!({"role": self.role.name(), "content": self.content});
        if !self.tool_calls.is_empty() {
            message["tool_calls"] = self.tool_calls.iter().map(ToolCall::to_json).collect();
        }
        if let Some(name) = &self.name {
            message["name"] = name.as_str().into();
        }
        if let Some(id) = &self.tool_call_id {
            message["tool_call_id"] = id.as_str().into();
        }
        message
    }
}

impl ToolCall {
    fn to_json(&self) -> Value {
        let mut call = json!({
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        });
        if let Some(id) = &self.id {
            call["id"] = id.as_str().into();
        }
        call
    }
}

/// Why a conversation was refused, or could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// There is no message.
    #[error("a conversation needs at least one message")]
    Empty,
    /// More of something than is accepted.
    #[error("{what}: found {found}, the limit is {limit}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much is accepted.
        limit: usize,
    },
    /// A message at a place where its role cannot be.
    #[error("message {index} has the role {found}, expected {expected}")]
    Order {
        /// Its index.
        index: usize,
        /// Its role.
        found: &'static str,
        /// What may be there.
        expected: &'static str,
    },
    /// A field that the message's role does not have, or a wrong value of one.
    #[error("message {index}: {reason}")]
    Field {
        /// The message's index.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The description of the tools is not a list of objects.
    #[error("tools: {reason}")]
    Tools {
        /// What is wrong.
        reason: &'static str,
    },
    /// The template failed, or refused the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The template treats control tokens in a way that this crate cannot follow.
    #[error("the chat template is not supported: {reason}")]
    UnsupportedTemplate {
        /// What it does.
        reason: String,
    },
    /// It cannot be told which part of the rendered text an assistant wrote.
    #[error("cannot tell where the assistant's message {index} begins in the rendered text")]
    TurnNotFound {
        /// The message's index.
        index: usize,
    },
    /// The template does not end an assistant's turn with a token that ends turns, so a model
    /// could not learn to stop.
    #[error("no token ends the assistant's message {index} in the rendered text")]
    NoStopToken {
        /// The message's index.
        index: usize,
    },
    /// The messages use every private character.
    #[error("the messages use all private characters, so none is left to mark control tokens")]
    NoPrivateCharacter,
}

/// Messages in a valid order and of bounded size.
///
/// The order: at most one system message, first; a tool's message after an assistant's that
/// calls tools, or after another tool's; everything else as it comes, because templates that want
/// strict turns say so themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    messages: Vec<Message>,
    tools: Option<Value>,
}

impl Conversation {
    /// Checks messages.
    pub fn new(messages: Vec<Message>) -> Result<Conversation, ChatError> {
        Conversation::with_tools(messages, None)
    }

    /// Checks messages and the description of the tools that the model may call: a list of
    /// objects in OpenAI's form.
    pub fn with_tools(
        messages: Vec<Message>,
        tools: Option<Value>,
    ) -> Result<Conversation, ChatError> {
        if messages.is_empty() {
            return Err(ChatError::Empty);
        }
        check("number of messages", messages.len(), NUM_MESSAGES_MAX)?;
        let mut num_bytes = 0;
        if let Some(tools) = &tools {
            let list = tools.as_array().ok_or(ChatError::Tools { reason: "expected a list" })?;
            if list.iter().any(|tool| !tool.is_object()) {
                return Err(ChatError::Tools { reason: "expected a list of objects" });
            }
            num_bytes += json_bytes(tools)?;
        }
        for (index, message) in messages.iter().enumerate() {
            check_message(index, message, index.checked_sub(1).map(|before| &messages[before]))?;
            num_bytes += message.content.len();
            num_bytes += message.name.as_ref().map_or(0, String::len);
            num_bytes += message.tool_call_id.as_ref().map_or(0, String::len);
            for call in &message.tool_calls {
                num_bytes += call.name.len() + call.id.as_ref().map_or(0, String::len);
                num_bytes += json_bytes(&call.arguments)?;
            }
            check("length of all messages and tools", num_bytes, CONTENT_BYTES_MAX)?;
        }
        Ok(Conversation { messages, tools })
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The tools that the model may call.
    pub fn tools(&self) -> Option<&Value> {
        self.tools.as_ref()
    }

    /// The messages as templates expect them.
    pub fn to_json(&self) -> Value {
        self.messages.iter().map(Message::to_json).collect()
    }
}

fn check(what: &'static str, found: usize, limit: usize) -> Result<(), ChatError> {
    if found > limit { Err(ChatError::TooMuch { what, found, limit }) } else { Ok(()) }
}

fn check_message(
    index: usize,
    message: &Message,
    before: Option<&Message>,
) -> Result<(), ChatError> {
    let found = message.role.name();
    if message.role == Role::System && index > 0 {
        let expected = "user, assistant or tool (a system message comes first)";
        return Err(ChatError::Order { index, found, expected });
    }
    let answers_tools =
        before.is_some_and(|before| before.role == Role::Tool || !before.tool_calls.is_empty());
    if message.role == Role::Tool && !answers_tools {
        let expected = "something else (a tool answers an assistant that calls it)";
        return Err(ChatError::Order { index, found, expected });
    }
    let field = |reason| Err(ChatError::Field { index, reason });
    if message.role != Role::Assistant && !message.tool_calls.is_empty() {
        return field("only an assistant calls tools");
    }
    if message.role != Role::Tool && message.tool_call_id.is_some() {
        return field("only a tool answers a call");
    }
    for call in &message.tool_calls {
        if call.name.is_empty() {
            return field("a tool call without a name");
        }
        if !call.arguments.is_object() {
            return field("the arguments of a tool call are an object");
        }
    }
    Ok(())
}

/// Bytes of a JSON value; refuses deep ones without recursion.
fn json_bytes(json: &Value) -> Result<usize, ChatError> {
    let mut num_bytes = 0;
    let mut open = vec![(json, 0)];
    while let Some((value, depth)) = open.pop() {
        check("depth of a JSON value", depth, JSON_DEPTH_MAX)?;
        num_bytes += 8;
        match value {
            Value::String(text) => num_bytes += text.len(),
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                num_bytes += map.keys().map(String::len).sum::<usize>();
                open.extend(map.values().map(|item| (item, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(num_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(roles: &[Role]) -> Result<Conversation, ChatError> {
        Conversation::new(roles.iter().map(|&role| Message::new(role, "x")).collect())
    }

    #[test]
    fn orders() {
        use Role::*;
        for good in [&[User][..], &[System, User, Assistant, User], &[System], &[User, User]] {
            conversation(good).unwrap();
        }
        for bad in [&[][..], &[User, System], &[System, System], &[Tool], &[User, Assistant, Tool]]
        {
            conversation(bad).unwrap_err();
        }
    }

    #[test]
    fn a_tool_answers_a_call() {
        let call = ToolCall { id: None, name: "clock".into(), arguments: json!({}) };
        let mut assistant = Message::new(Role::Assistant, "");
        assistant.tool_calls.push(call);
        let messages =
            vec![Message::new(Role::User, "?"), assistant, Message::new(Role::Tool, "noon")];
        Conversation::new(messages.clone()).unwrap();
        let mut wrong = messages;
        wrong[0].tool_calls = wrong[1].tool_calls.clone();
        let error = Conversation::new(wrong).unwrap_err();
        assert!(matches!(error, ChatError::Field { index: 0, .. }), "{error}");
    }

    #[test]
    fn sizes_are_bounded() {
        let huge = Message::new(Role::User, "x".repeat(CONTENT_BYTES_MAX + 1));
        assert!(matches!(Conversation::new(vec![huge]), Err(ChatError::TooMuch { .. })));
        let many = vec![Role::User; NUM_MESSAGES_MAX + 1];
        assert!(matches!(conversation(&many), Err(ChatError::TooMuch { .. })));
        let mut deep = json!({});
        for _ in 0..JSON_DEPTH_MAX + 1 {
            deep = json!({ "a": deep });
        }
        let tools = Some(json!([deep]));
        let error = Conversation::with_tools(vec![Message::new(Role::User, "x")], tools);
        assert!(matches!(error, Err(ChatError::TooMuch { .. })));
    }
}
