//! `POST /v1/chat/completions`: the answer, whole and in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use super::tool::{CalledFunction, WireToolCall};
use super::usage::Usage;

/// A whole answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CreateChatCompletionResponse")]
pub(crate) struct ChatAnswer {
    /// The turn's id: what feedback names.
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
    pub(crate) system_fingerprint: String,
}

/// One of the answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: AnswerMessage,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: &'static str,
}

/// What the model said.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AnswerMessage {
    pub(crate) role: &'static str,
    pub(crate) content: Option<String>,
    pub(crate) refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<WireToolCall>,
}

/// Log-probabilities of the answer's tokens.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenEntry>,
    pub(crate) refusal: Option<Vec<TokenEntry>>,
}

/// A token, and the likeliest in its place.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct TokenEntry {
    #[serde(flatten)]
    pub(crate) token: TokenLogprob,
    pub(crate) top_logprobs: Vec<TokenLogprob>,
}

/// A token and its log-probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct TokenLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
}

/// A piece of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CreateChatCompletionStreamResponse")]
pub(crate) struct ChatChunk<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'a str,
    pub(crate) choices: Vec<ChunkChoice>,
    /// Null but in the last chunk; left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
}

/// A piece of one of the answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: ChunkDelta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What is added to the message.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ChunkToolCall>,
}

/// A call; it is sent when it is whole.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChunkToolCall {
    pub(crate) index: usize,
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) function: CalledFunction,
}
