//! Messages of a chat.

use feilun_text::{Message, Role, ToolCall};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::tool::WireToolCall;
use crate::error::{ApiError, ErrorKind};

/// What is said: a text, or parts that are texts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text, or a list of parts {\"type\": \"text\", \"text\": ...}"
)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message. Images, audio and files are refused: no model here reads them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Part {
    Text { text: String },
    Refusal { refusal: String },
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Content::Text(text) => text,
            Content::Parts(parts) => parts
                .into_iter()
                .map(|part| match part {
                    Part::Text { text } | Part::Refusal { refusal: text } => text,
                })
                .collect(),
        }
    }
}

/// One message, by its role.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[expect(clippy::large_enum_variant, reason = "short-lived, and most are of the large kind")]
#[serde(tag = "role", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum WireMessage {
    /// Who sets the rules.
    System {
        content: Content,
        #[serde(default)]
        name: Option<String>,
    },
    /// OpenAI's newer word for the same.
    Developer {
        content: Content,
        #[serde(default)]
        name: Option<String>,
    },
    /// Who asks.
    User {
        content: Content,
        #[serde(default)]
        name: Option<String>,
    },
    /// What the model said before. The fields that can only be null are there because clients
    /// send an answer back as they got it.
    Assistant {
        #[serde(default)]
        content: Option<Content>,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        tool_calls: Option<Vec<WireToolCall>>,
        #[serde(default)]
        refusal: Option<String>,
        #[serde(default)]
        #[expect(dead_code, reason = "no model reads them")]
        annotations: Option<Vec<Value>>,
        #[serde(default)]
        audio: Option<Value>,
        #[serde(default)]
        function_call: Option<Value>,
    },
    /// What a tool answered.
    Tool { content: Content, tool_call_id: String },
}

/// The messages as the chat format has them.
pub(crate) fn messages(wire: Vec<WireMessage>) -> Result<Vec<Message>, ApiError> {
    wire.into_iter().enumerate().map(|(index, message)| one(index, message)).collect()
}

fn one(index: usize, wire: WireMessage) -> Result<Message, ApiError> {
    let said =
        |role, content: Content, name| Message { name, ..Message::new(role, content.into_text()) };
    Ok(match wire {
        WireMessage::System { content, name } | WireMessage::Developer { content, name } => {
            said(Role::System, content, name)
        }
        WireMessage::User { content, name } => said(Role::User, content, name),
        WireMessage::Tool { content, tool_call_id } => {
            Message { tool_call_id: Some(tool_call_id), ..said(Role::Tool, content, None) }
        }
        WireMessage::Assistant {
            content,
            name,
            tool_calls,
            refusal,
            annotations: _,
            audio,
            function_call,
        } => {
            for (field, value) in [("audio", audio), ("function_call", function_call)] {
                if value.is_some() {
                    let param = format!("messages[{index}].{field}");
                    let message = format!("{param} is not supported");
                    return Err(ApiError::new(ErrorKind::Unsupported, message).param(param));
                }
            }
            let content = content.map(Content::into_text).or(refusal).unwrap_or_default();
            let calls = tool_calls.unwrap_or_default();
            if content.is_empty() && calls.is_empty() {
                tracing::debug!(index, "an assistant's message that says nothing");
            }
            let tool_calls = calls
                .into_iter()
                .enumerate()
                .map(|(call, wire)| tool_call(index, call, wire))
                .collect::<Result<_, _>>()?;
            Message { name, tool_calls, ..Message::new(Role::Assistant, content) }
        }
    })
}

fn tool_call(message: usize, call: usize, wire: WireToolCall) -> Result<ToolCall, ApiError> {
    let WireToolCall::Function { id, function } = wire;
    let arguments = match function.arguments.trim() {
        // Some clients send an empty text for "no arguments".
        "" => Value::Object(serde_json::Map::new()),
        text => super::strict::read_json(text.as_bytes())
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| {
                let param = format!("messages[{message}].tool_calls[{call}].function.arguments");
                let reason = format!("{param}: expected a JSON object, written as a text");
                ApiError::new(ErrorKind::InvalidValue, reason).param(param)
            })?,
    };
    Ok(ToolCall { id: Some(id), name: function.name, arguments })
}
