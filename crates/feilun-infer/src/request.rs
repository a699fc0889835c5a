//! What a caller asks of the engine.

use std::sync::Arc;

use feilun_model::{Adapter, BatchMode};

use crate::constraint::Constraint;
use crate::kv::prefix::{AdapterDigest, Namespace, PrefixKey};
use crate::sampling::{SamplingError, SamplingParams, params};
use crate::stop::{self, StopError};

/// Most extra stop tokens of one request.
pub const STOP_TOKENS_MAX: usize = 64;

/// Names a request of one engine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A LoRA adapter that is in memory.
#[derive(Clone, Debug)]
pub struct LoadedAdapter {
    /// Its content digest: what keeps the prefixes of different adapters apart.
    pub digest: AdapterDigest,
    /// Its weights.
    pub weights: Arc<Adapter>,
}

/// One prompt to be continued, or scored.
///
/// Several samples of one prompt are several requests with [`SamplingParams::fork`]: they share
/// the prompt's blocks, and the prompt is computed once.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids, control tokens and an automatic BOS included; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate. With the prompt they must fit the context: nothing is cut off.
    /// 0 computes the prompt alone.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Text that ends the answer and is not part of it.
    pub stop_strings: Vec<String>,
    /// Tokens that end the answer, besides the vocabulary's end tokens.
    pub stop_tokens: Vec<u32>,
    /// Goes on after the vocabulary's end tokens, as benchmarks want it.
    pub ignore_end_tokens: bool,
    /// What the answer must be.
    pub constraint: Option<Constraint>,
    /// Applied to the model.
    pub adapter: Option<LoadedAdapter>,
    /// `Exact`: bit-identical however the request is batched, chunked, or found in the cache.
    pub mode: BatchMode,
    /// The tenant: prefixes are shared within a namespace only, and the queue is fair between
    /// namespaces.
    pub namespace: Namespace,
    /// How much the tenant gets compared with others; at least 1.
    pub weight: u32,
    /// Report the log-probabilities of the prompt's tokens, with so many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// The index of the first token of the prompt whose log-probability is wanted; what comes
    /// before it may be found in the prefix cache. 0 and 1 mean all that there are.
    pub prompt_logprobs_from: usize,
    /// Report the prompt's embedding: the mean of the final hidden states of its tokens, scaled
    /// to length 1. With `max_tokens` 0 that is all.
    pub embedding: bool,
}

/// What a request must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestBounds {
    /// Ids must be below this.
    pub(crate) vocab_size: usize,
    /// The model's context, in tokens.
    pub(crate) context_length: usize,
    /// The KV cache, in tokens.
    pub(crate) cache_positions: usize,
}

impl Request {
    /// A request for up to `max_tokens` tokens from the model's own distribution.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Request {
        Request {
            prompt,
            max_tokens,
            sampling: SamplingParams::default(),
            stop_strings: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_end_tokens: false,
            constraint: None,
            adapter: None,
            mode: BatchMode::Fast,
            namespace: Namespace::default(),
            weight: 1,
            prompt_logprobs: None,
            prompt_logprobs_from: 0,
            embedding: false,
        }
    }

    /// Checks everything that can be known of a request beforehand.
    pub(crate) fn check(&self, bounds: RequestBounds) -> Result<(), SubmitError> {
        let RequestBounds { vocab_size, context_length, cache_positions } = bounds;
        if self.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        for (what, tokens) in [("prompt", &self.prompt), ("stop tokens", &self.stop_tokens)] {
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(SubmitError::TokenOutOfRange { what, token, vocab_size });
            }
        }
        params::at_most("stop tokens", self.stop_tokens.len(), STOP_TOKENS_MAX)?;
        let num_top = self.prompt_logprobs.unwrap_or(0);
        params::at_most("prompt_logprobs", num_top, params::LOGPROBS_MAX)?;
        self.sampling.validate(vocab_size)?;
        stop::validate(&self.stop_strings)?;

        let (prompt_tokens, max_tokens) = (self.prompt.len(), self.max_tokens);
        let positions = prompt_tokens.saturating_add(max_tokens);
        if positions > context_length {
            let limit = context_length;
            return Err(SubmitError::ContextTooLong { prompt_tokens, max_tokens, limit });
        }
        if positions > cache_positions {
            let limit = cache_positions;
            return Err(SubmitError::CacheTooSmall { prompt_tokens, max_tokens, limit });
        }
        Ok(())
    }

    pub(crate) fn prefix_key(&self) -> PrefixKey {
        PrefixKey {
            namespace: self.namespace,
            adapter: self.adapter.as_ref().map(|adapter| adapter.digest),
            mode: self.mode,
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Too many are waiting.
    #[error("the queue is full: {max} requests are waiting")]
    QueueFull {
        /// The bound.
        max: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("{what}: token id {token} is not in the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// Where.
        what: &'static str,
        /// The id found.
        token: u32,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// Prompt and answer exceed the model's context.
    #[error(
        "{prompt_tokens} prompt tokens and up to {max_tokens} more exceed the context of {limit}"
    )]
    ContextTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Most tokens to generate.
        max_tokens: usize,
        /// The model's context, in tokens.
        limit: usize,
    },
    /// Prompt and answer exceed the KV cache.
    #[error(
        "{prompt_tokens} prompt tokens and up to {max_tokens} more exceed the KV cache of {limit}"
    )]
    CacheTooSmall {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Most tokens to generate.
        max_tokens: usize,
        /// The cache, in tokens.
        limit: usize,
    },
    /// A sampling parameter.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A stop string.
    #[error(transparent)]
    Stop(#[from] StopError),
}
