//! What is asked: a text to continue, or messages to answer.

use feilun_text::chat::{ChatError, Conversation};
use feilun_text::{Message, Role, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ItemProblem;
use super::item::not_empty;

/// What comes before an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A text, which goes to the model as it is.
    Text(String),
    /// Messages, which go through the model's chat template.
    Chat {
        /// In OpenAI's shape.
        messages: Vec<ChatMessage>,
        /// Tools that the model may call, in OpenAI's shape.
        tools: Option<Value>,
    },
}

/// A message in OpenAI's shape.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: ChatRole,
    /// What is said.
    #[serde(default)]
    pub content: String,
    /// A name for the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tools that an assistant asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<CallLine>,
    /// The call that a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatRole {
    /// Who sets the rules.
    #[serde(alias = "developer")]
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// What a tool answered.
    Tool,
}

/// A tool call in OpenAI's shape.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallLine {
    /// Ties the answer to the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is called.
    pub function: FunctionLine,
}

/// The function of a tool call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionLine {
    /// The tool.
    pub name: String,
    /// An object, or one written into a string, as OpenAI has it.
    pub arguments: Value,
}

impl ChatMessage {
    /// A message of nothing but text.
    pub fn new(role: ChatRole, content: impl Into<String>) -> ChatMessage {
        let content = content.into();
        ChatMessage { role, content, name: None, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn to_message(&self) -> Result<Message, ItemProblem> {
        let call = |call: &CallLine| {
            let arguments = match &call.function.arguments {
                Value::String(text) => serde_json::from_str(text)
                    .map_err(|source| ItemProblem::Arguments { reason: source.to_string() })?,
                arguments => arguments.clone(),
            };
            Ok(ToolCall { id: call.id.clone(), name: call.function.name.clone(), arguments })
        };
        Ok(Message {
            role: match self.role {
                ChatRole::System => Role::System,
                ChatRole::User => Role::User,
                ChatRole::Assistant => Role::Assistant,
                ChatRole::Tool => Role::Tool,
            },
            content: self.content.clone(),
            tool_calls: self.tool_calls.iter().map(call).collect::<Result<_, ItemProblem>>()?,
            name: self.name.clone(),
            tool_call_id: self.tool_call_id.clone(),
        })
    }
}

/// Messages as the chat format wants them.
///
/// # Errors
/// When they are not in an order that a conversation can have, or too many.
pub fn conversation(
    messages: &[ChatMessage],
    tools: Option<&Value>,
) -> Result<Conversation, ItemProblem> {
    let messages = messages.iter().map(ChatMessage::to_message).collect::<Result<_, _>>()?;
    let checked: Result<Conversation, ChatError> =
        Conversation::with_tools(messages, tools.cloned());
    checked.map_err(|source| ItemProblem::Messages { reason: source.to_string() })
}

impl Prompt {
    /// An empty text is a prompt where a continuation is only compared with others: it is then
    /// conditioned on the token that begins texts.
    pub(super) fn check_may_be_empty(&self) -> Result<(), ItemProblem> {
        match self {
            Prompt::Text(_) => Ok(()),
            Prompt::Chat { messages, tools } => conversation(messages, tools.as_ref()).map(drop),
        }
    }

    pub(super) fn check(&self) -> Result<(), ItemProblem> {
        if let Prompt::Text(text) = self {
            not_empty("prompt", text)?;
        }
        self.check_may_be_empty()
    }
}
