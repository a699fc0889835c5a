//! Tools: how they are put to a model, what its answer must then be, and how its calls are found
//! in the answer ([`calls`]).
//!
//! One format for all models, the one that Qwen's and Hermes' templates teach:
//!
//! ```text
//! <tool_call>
//! {"name": "weather", "arguments": {"city": "Basel"}}
//! </tool_call>
//! ```
//!
//! A template that has this format gets the tools as its own variable. Any other template does
//! not see them: they are described in the system message, and calls and answers of the
//! conversation are written out as text, so that every model can be asked.
//!
//! What is enforced, by masking tokens: with `required` or a named function the answer is one or
//! more calls of (that of) the functions on offer and nothing else; with `auto` the model may say
//! anything, but once it has written `<tool_call>` a whole call follows. In every call the
//! arguments follow the function's schema, `strict` or not. With `parallel_tool_calls: false`
//! there is at most one call. With `none` the model does not see the tools.

pub(crate) mod calls;

use feilun_infer::{ConstraintCompiler, ConstraintSource};
use feilun_text::{Message, Role};
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorKind};
use crate::wire::tool::{Function, NamedTool, Tool, ToolChoice, ToolMode};

/// What opens a call.
pub(crate) const OPEN: &str = "<tool_call>";
/// What closes a call.
pub(crate) const CLOSE: &str = "</tool_call>";

/// Most tools of one request (OpenAI's bound).
const TOOLS_MAX: usize = 128;
/// Longest name of a function (OpenAI's bound).
const NAME_BYTES_MAX: usize = 64;

/// Tools that the model may, or must, call.
#[derive(Debug)]
pub(crate) struct ToolPlan {
    functions: Vec<Function>,
    /// A call must be made.
    required: bool,
    /// More than one may be made.
    parallel: bool,
}

impl ToolPlan {
    /// Checks what the caller offers; `None` where there is nothing to call.
    pub(crate) fn new(
        tools: Option<Vec<Tool>>,
        choice: Option<&ToolChoice>,
        parallel: Option<bool>,
    ) -> Result<Option<ToolPlan>, ApiError> {
        let invalid = |message: String, param: &str| {
            Err(ApiError::new(ErrorKind::InvalidValue, message).param(param))
        };
        let tools = tools.unwrap_or_default();
        if tools.is_empty() {
            return match choice {
                None | Some(ToolChoice::Mode(ToolMode::None | ToolMode::Auto)) => Ok(None),
                Some(_) => invalid("tool_choice needs tools".to_owned(), "tool_choice"),
            };
        }
        if tools.len() > TOOLS_MAX {
            let message = format!("tools: found {}, at most {TOOLS_MAX} are allowed", tools.len());
            return invalid(message, "tools");
        }
        let mut functions: Vec<Function> = Vec::with_capacity(tools.len());
        for (index, Tool::Function { function }) in tools.into_iter().enumerate() {
            let param = format!("tools[{index}].function.name");
            if !is_name(&function.name) {
                let message = format!(
                    "{param}: expected 1 to {NAME_BYTES_MAX} letters, digits, dashes and underscores"
                );
                return invalid(message, &param);
            }
            if functions.iter().any(|other| other.name == function.name) {
                return invalid(format!("{param}: `{}` is there twice", function.name), &param);
            }
            functions.push(function);
        }
        let mut required = false;
        match choice {
            None | Some(ToolChoice::Mode(ToolMode::Auto)) => {}
            Some(ToolChoice::Mode(ToolMode::None)) => return Ok(None),
            Some(ToolChoice::Mode(ToolMode::Required)) => required = true,
            Some(ToolChoice::Named(NamedTool::Function { function: wanted })) => {
                required = true;
                if !functions.iter().any(|function| function.name == wanted.name) {
                    let message = "tool_choice names a function that is not among the tools";
                    return invalid(message.to_owned(), "tool_choice");
                }
                functions.retain(|function| function.name == wanted.name);
            }
        }
        Ok(Some(ToolPlan { functions, required, parallel: parallel.unwrap_or(true) }))
    }

    /// What the answer must be. Every schema is checked on its own first: an error names the
    /// function and the keyword.
    pub(crate) fn constraint(
        &self,
        compiler: &ConstraintCompiler,
    ) -> Result<ConstraintSource, ApiError> {
        let mut grammar = String::new();
        let more = if self.parallel { r#" ("\n" call)*"# } else { "" };
        if self.required {
            grammar += &format!("start: call{more}\n");
        } else {
            grammar += &format!("start: TEXT | opening rest{more}\n");
            grammar += &format!("opening[lazy]: /(?s:.*){OPEN}\\n/\n");
            grammar += &format!("TEXT: /(?s:.*)/ & ~/(?s:.*){OPEN}(?s:.*)/\n");
        }
        if self.required || self.parallel {
            grammar += &format!("call: \"{OPEN}\\n\" rest\n");
        }
        grammar += &format!("rest: function \"\\n{}\"\n", CLOSE);
        let names: Vec<String> = (0..self.functions.len()).map(|i| format!("f{i}")).collect();
        grammar += &format!("function: {}\n", names.join(" | "));
        for (index, function) in self.functions.iter().enumerate() {
            let schema = arguments_schema(index, function, compiler)?;
            let head = json!(format!("{{\"name\": \"{}\", \"arguments\": ", function.name));
            grammar += &format!("f{index}: {head} a{index} \"}}\"\na{index}: %json {schema}\n");
        }
        Ok(ConstraintSource::Lark(grammar))
    }

    /// The tools as templates expect them.
    pub(crate) fn for_template(&self) -> Value {
        let one = |function: &Function| json!({"type": "function", "function": function});
        self.functions.iter().map(one).collect()
    }

    /// The tools in words, for a template that does not know them.
    fn described(&self) -> String {
        let mut text = String::from(
            "You can call functions. Each line describes one, with a JSON schema of its arguments:\n",
        );
        for function in &self.functions {
            text += &json!(function).to_string();
            text.push('\n');
        }
        text += "To call a function, write nothing but lines of this form:\n";
        text += &format!("{OPEN}\n{{\"name\": \"<function>\", \"arguments\": {{...}}}}\n{CLOSE}");
        text
    }
}

/// Whether a template teaches the format above and shows tools itself.
pub(crate) fn template_knows_tools(template: &str) -> bool {
    template.contains(OPEN) && template.contains("tools")
}

/// Rewrites a conversation for a template that does not know tools: the offer goes into the
/// system message, calls into the text of who called, answers into messages of the user.
pub(crate) fn in_words(messages: Vec<Message>, plan: Option<&ToolPlan>) -> Vec<Message> {
    let mut written: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    for mut message in messages {
        if message.role == Role::Tool {
            let text = format!("<tool_response>\n{}\n</tool_response>", message.content);
            match written.last_mut() {
                // Several answers are one message: many templates insist that turns alternate.
                Some(last)
                    if last.role == Role::User && last.content.ends_with("</tool_response>") =>
                {
                    last.content += "\n";
                    last.content += &text;
                }
                _ => written.push(Message::new(Role::User, text)),
            }
            continue;
        }
        for call in std::mem::take(&mut message.tool_calls) {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            let body =
                format!("{{\"name\": {}, \"arguments\": {}}}", json!(call.name), call.arguments);
            message.content += &format!("{OPEN}\n{body}\n{CLOSE}");
        }
        written.push(message);
    }
    if let Some(plan) = plan {
        match written.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content = format!("{}\n\n{}", first.content, plan.described());
            }
            _ => written.insert(0, Message::new(Role::System, plan.described())),
        }
    }
    written
}

/// The schema of a function's arguments, after the compiler has accepted it.
fn arguments_schema(
    index: usize,
    function: &Function,
    compiler: &ConstraintCompiler,
) -> Result<Value, ApiError> {
    let param = || format!("tools[{index}].function.parameters");
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let mut schema = match &function.parameters {
        None => nothing,
        // What OpenAI's documents call "an empty parameter list".
        Some(Value::Object(map)) if map.is_empty() => nothing,
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => {
            let message = format!("{}: expected a JSON schema, an object", param());
            return Err(ApiError::new(ErrorKind::InvalidSchema, message).param(param()));
        }
    };
    compiler.compile(&ConstraintSource::JsonSchema(schema.clone())).map_err(|error| {
        let message = format!("{}: {error}", param());
        ApiError::new(ErrorKind::InvalidSchema, message).param(param())
    })?;
    if let Value::Object(map) = &mut schema {
        // As Python's `json.dumps` spaces it, which is what models have seen most.
        let spacing = json!({
            "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false,
        });
        map.insert("x-guidance".to_owned(), spacing);
    }
    Ok(schema)
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}
