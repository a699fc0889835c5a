//! `POST /v1/chat/completions`: the request.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::message::WireMessage;
use super::number::{Real, Whole};
use super::sampling::{CHOICES_MAX, LogitBias, Sampling, Seed, Stop};
use super::strict::WireRequest;
use super::tool::{Tool, ToolChoice};

/// A request for the next message of a chat.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateChatCompletionRequest")]
pub(crate) struct ChatRequest {
    /// A model or an alias; see `/v1/models`.
    pub(crate) model: String,
    #[schemars(length(min = 1))]
    pub(crate) messages: Vec<WireMessage>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub(crate) n: Option<Whole<1, { CHOICES_MAX as i64 }>>,
    #[serde(default)]
    pub(crate) max_tokens: Option<Whole<1, 10_000_000>>,
    #[serde(default)]
    pub(crate) max_completion_tokens: Option<Whole<1, 10_000_000>>,
    #[serde(default)]
    pub(crate) temperature: Option<Real<0, 2>>,
    #[serde(default)]
    pub(crate) top_p: Option<Real<0, 1>>,
    /// An extension: keep only the k likeliest tokens; 0 keeps all.
    #[serde(default)]
    pub(crate) top_k: Option<Whole<0, 1_000_000>>,
    /// An extension: keep tokens at least this many times as likely as the likeliest.
    #[serde(default)]
    pub(crate) min_p: Option<Real<0, 1>>,
    /// An extension: make tokens that were seen less likely; 1 does nothing.
    #[serde(default)]
    pub(crate) repetition_penalty: Option<Real<0, 10>>,
    #[serde(default)]
    pub(crate) presence_penalty: Option<Real<-2, 2>>,
    #[serde(default)]
    pub(crate) frequency_penalty: Option<Real<-2, 2>>,
    #[serde(default)]
    pub(crate) logit_bias: Option<LogitBias>,
    #[serde(default)]
    pub(crate) logprobs: Option<bool>,
    #[serde(default)]
    pub(crate) top_logprobs: Option<Whole<0, 20>>,
    #[serde(default)]
    pub(crate) seed: Option<Seed>,
    #[serde(default)]
    pub(crate) stop: Option<Stop>,
    #[serde(default)]
    pub(crate) response_format: Option<ResponseFormat>,
    #[serde(default)]
    pub(crate) tools: Option<Vec<Tool>>,
    #[serde(default)]
    pub(crate) tool_choice: Option<ToolChoice>,
    #[serde(default)]
    pub(crate) parallel_tool_calls: Option<bool>,
    /// Your user on whose behalf you ask; recorded, and what `feilun forget` looks for.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Recorded with the turn.
    #[serde(default)]
    #[expect(dead_code, reason = "recorded with the rest of the request, as it came")]
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// Only text can be asked for.
    #[serde(default)]
    #[expect(dead_code, reason = "that it could be read is all that matters")]
    pub(crate) modalities: Option<Vec<Modality>>,
}

impl WireRequest for ChatRequest {
    const IGNORED: &'static [&'static str] = &[
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
    ];
}

impl ChatRequest {
    /// How many alternatives to report for each token, if any report is wanted.
    pub(crate) fn num_logprobs(&self) -> Option<usize> {
        let wanted = self.logprobs.unwrap_or(false);
        wanted.then(|| self.top_logprobs.map_or(0, Whole::size))
    }

    /// The numbers of sampling.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.map(Whole::get),
            logprobs: self.num_logprobs(),
        }
    }
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Modality {
    Text,
}

/// How a stream is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// End the stream with counts of tokens.
    #[serde(default)]
    pub(crate) include_usage: Option<bool>,
    /// Streams here are never obfuscated; `true` is accepted because clients send it.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted, without effect")]
    pub(crate) include_obfuscation: Option<bool>,
}

/// What an answer must be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ResponseFormat {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema { json_schema: NamedSchema },
}

/// A schema with a name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSchema {
    #[expect(dead_code, reason = "OpenAI asks for it; it means nothing to the constraint")]
    pub(crate) name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) schema: Option<Value>,
    /// The schema is enforced either way.
    #[serde(default)]
    #[expect(dead_code, reason = "the schema is enforced either way")]
    pub(crate) strict: Option<bool>,
}
