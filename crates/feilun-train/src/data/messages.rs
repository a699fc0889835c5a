//! Messages in OpenAI's shape, from JSON.

use serde_json::{Map, Value};

use feilun_text::{Message, Role, ToolCall};

use super::error::LineProblem;
use super::json::{get, wrong_type};

/// The keys of a message.
const KEYS: &[&str] = &[
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "weight",
    "refusal",
    "function_call",
];
const KNOWN_KEYS: &str = "role, content, name, tool_calls, tool_call_id or weight";

/// A message and whether it is to be learned.
pub(crate) struct Weighted {
    pub message: Message,
    /// OpenAI's `weight`: 0 takes an assistant's message out of the loss.
    pub learn: bool,
}

/// A list of messages.
pub(crate) fn parse(field: &str, value: &Value) -> Result<Vec<Weighted>, LineProblem> {
    let list = value.as_array().ok_or_else(|| wrong_type(field, value, "a list of messages"))?;
    list.iter().enumerate().map(|(i, value)| message(&format!("{field}[{i}]"), value)).collect()
}

/// A list of messages, or a string, which is one message.
pub(crate) fn parse_or_text(
    field: &str,
    value: &Value,
    role: Role,
) -> Result<Vec<Message>, LineProblem> {
    match value {
        Value::String(text) => Ok(vec![Message::new(role, text)]),
        Value::Array(_) => Ok(parse(field, value)?.into_iter().map(|m| m.message).collect()),
        _ => Err(wrong_type(field, value, "a list of messages, or a string")),
    }
}

fn message(field: &str, value: &Value) -> Result<Weighted, LineProblem> {
    let object = value.as_object().ok_or_else(|| wrong_type(field, value, "an object"))?;
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str()))
        && get(object, key).is_some()
    {
        return Err(LineProblem::UnknownKey {
            field: format!("{field}.{key}"),
            expected: KNOWN_KEYS,
        });
    }
    for key in ["refusal", "function_call"] {
        if get(object, key).is_some() {
            let expected = "content or tool_calls in its place";
            return Err(LineProblem::UnknownKey { field: format!("{field}.{key}"), expected });
        }
    }
    let role = role(&format!("{field}.role"), object.get("role").unwrap_or(&Value::Null))?;
    let tool_calls = tool_calls(&format!("{field}.tool_calls"), object)?;
    let content = match get(object, "content") {
        None if !tool_calls.is_empty() => String::new(),
        content => text(&format!("{field}.content"), content.unwrap_or(&Value::Null))?,
    };
    let learn = match get(object, "weight").map(|weight| (weight, weight.as_f64())) {
        None => true,
        Some((_, Some(1.0))) => true,
        Some((_, Some(0.0))) => false,
        Some((found, _)) => {
            let (field, found) = (format!("{field}.weight"), found.to_string());
            return Err(LineProblem::Value { field, found, expected: "0 or 1" });
        }
    };
    let message = Message {
        role,
        content,
        tool_calls,
        name: string(field, object, "name")?,
        tool_call_id: string(field, object, "tool_call_id")?,
    };
    Ok(Weighted { message, learn })
}

fn role(field: &str, value: &Value) -> Result<Role, LineProblem> {
    let expected = "`system`, `user`, `assistant` or `tool`";
    match value.as_str().ok_or_else(|| wrong_type(field, value, expected))? {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        found => Err(LineProblem::Value { field: field.into(), found: shortened(found), expected }),
    }
}

/// A string, or OpenAI's list of parts if all are text.
fn text(field: &str, value: &Value) -> Result<String, LineProblem> {
    let expected = "a string, or a list of text parts";
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut text = String::new();
            for (index, part) in parts.iter().enumerate() {
                let is_text = part.get("type").and_then(Value::as_str) == Some("text");
                let content = part.get("text").and_then(Value::as_str).filter(|_| is_text);
                let field = || format!("{field}[{index}]");
                text += content.ok_or_else(|| wrong_type(field(), part, "a text part"))?;
            }
            Ok(text)
        }
        _ => Err(wrong_type(field, value, expected)),
    }
}

fn string(
    field: &str,
    object: &Map<String, Value>,
    key: &str,
) -> Result<Option<String>, LineProblem> {
    let Some(value) = get(object, key) else { return Ok(None) };
    let text = value.as_str();
    let text = text.ok_or_else(|| wrong_type(format!("{field}.{key}"), value, "a string"))?;
    Ok(Some(text.to_string()))
}

fn tool_calls(field: &str, message: &Map<String, Value>) -> Result<Vec<ToolCall>, LineProblem> {
    let Some(value) = get(message, "tool_calls") else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| wrong_type(field, value, "a list"))?;
    list.iter().enumerate().map(|(i, call)| tool_call(&format!("{field}[{i}]"), call)).collect()
}

fn tool_call(field: &str, value: &Value) -> Result<ToolCall, LineProblem> {
    let object = value.as_object().ok_or_else(|| wrong_type(field, value, "an object"))?;
    let function_field = format!("{field}.function");
    let function = object.get("function").unwrap_or(&Value::Null);
    let function =
        function.as_object().ok_or_else(|| wrong_type(&function_field, function, "an object"))?;
    let name = string(&function_field, function, "name")?;
    let name_field = || format!("{function_field}.name");
    let name = name.ok_or_else(|| wrong_type(name_field(), &Value::Null, "a string"))?;
    let field_arguments = format!("{function_field}.arguments");
    // OpenAI writes the arguments as a string of JSON.
    let arguments = match function.get("arguments").unwrap_or(&Value::Null) {
        Value::String(text) => super::json::parse(text.as_bytes(), "the arguments, an object")?,
        value => value.clone(),
    };
    if !arguments.is_object() {
        return Err(wrong_type(field_arguments, &arguments, "an object, or one in a string"));
    }
    Ok(ToolCall { id: string(field, object, "id")?, name, arguments })
}

/// The beginning of a text, for messages.
pub(crate) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
