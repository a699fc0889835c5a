//! `POST /v1/completions`: a prompt is continued as it is. Evaluation harnesses use it with
//! `echo` and `logprobs`, and with many prompts at once.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chat::StreamOptions;
use super::number::{Real, Whole};
use super::sampling::{CHOICES_MAX, LogitBias, Sampling, Seed, Stop};
use super::strict::WireRequest;
use super::usage::Usage;

/// A request to continue one or several prompts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateCompletionRequest")]
pub(crate) struct CompletionRequest {
    pub(crate) model: String,
    pub(crate) prompt: Prompt,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub(crate) n: Option<Whole<1, { CHOICES_MAX as i64 }>>,
    /// Only as many as are returned can be made.
    #[serde(default)]
    pub(crate) best_of: Option<Whole<1, { CHOICES_MAX as i64 }>>,
    /// Without it 16, as OpenAI has it; 0 computes the prompt alone.
    #[serde(default)]
    pub(crate) max_tokens: Option<Whole<0, 10_000_000>>,
    /// Return the prompt before the answer.
    #[serde(default)]
    pub(crate) echo: Option<bool>,
    /// Report each token's log-probability, and so many of the likeliest in its place.
    #[serde(default)]
    pub(crate) logprobs: Option<Whole<0, 20>>,
    #[serde(default)]
    pub(crate) temperature: Option<Real<0, 2>>,
    #[serde(default)]
    pub(crate) top_p: Option<Real<0, 1>>,
    /// An extension, as in a chat.
    #[serde(default)]
    pub(crate) top_k: Option<Whole<0, 1_000_000>>,
    /// An extension, as in a chat.
    #[serde(default)]
    pub(crate) min_p: Option<Real<0, 1>>,
    /// An extension, as in a chat.
    #[serde(default)]
    pub(crate) repetition_penalty: Option<Real<0, 10>>,
    #[serde(default)]
    pub(crate) presence_penalty: Option<Real<-2, 2>>,
    #[serde(default)]
    pub(crate) frequency_penalty: Option<Real<-2, 2>>,
    #[serde(default)]
    pub(crate) logit_bias: Option<LogitBias>,
    #[serde(default)]
    pub(crate) seed: Option<Seed>,
    #[serde(default)]
    pub(crate) stop: Option<Stop>,
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Recorded with the turn.
    #[serde(default)]
    #[expect(dead_code, reason = "recorded with the rest of the request, as it came")]
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// Text after the answer: no model here was made for it.
    #[serde(default)]
    pub(crate) suffix: Option<String>,
}

impl WireRequest for CompletionRequest {}

impl CompletionRequest {
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
            logprobs: self.logprobs.map(Whole::size),
        }
    }
}

/// A token id.
pub(crate) type TokenId = Whole<0, { u32::MAX as i64 }>;

/// One prompt or several, as texts or as token ids. Ids are taken as they are; before a text
/// comes the token with which the model wants texts to begin.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids, or a list of such lists"
)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<TokenId>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<TokenId>>),
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OnePrompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl Prompt {
    /// The prompts, in order.
    pub(crate) fn into_list(self) -> Vec<OnePrompt> {
        let ids = |ids: Vec<TokenId>| {
            OnePrompt::Tokens(ids.into_iter().map(|id| id.get() as u32).collect())
        };
        match self {
            Prompt::Text(text) => vec![OnePrompt::Text(text)],
            // An empty list is no prompt of no tokens.
            Prompt::Tokens(list) if list.is_empty() => Vec::new(),
            Prompt::Tokens(list) => vec![ids(list)],
            Prompt::Texts(texts) => texts.into_iter().map(OnePrompt::Text).collect(),
            Prompt::TokenLists(lists) => lists.into_iter().map(ids).collect(),
        }
    }
}

/// An answer, whole or a piece of it: the two have one shape.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CreateCompletionResponse")]
pub(crate) struct CompletionAnswer<'a> {
    /// The turn's id.
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
    pub(crate) system_fingerprint: &'a str,
}

/// One continuation.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// Tokens of the text with their log-probabilities, in lists side by side. A null is the first
/// token of a prompt: nothing precedes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct CompletionLogprobs {
    pub(crate) tokens: Vec<String>,
    pub(crate) token_logprobs: Vec<Option<f32>>,
    pub(crate) top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// In characters, from the beginning of the text.
    pub(crate) text_offset: Vec<usize>,
}
