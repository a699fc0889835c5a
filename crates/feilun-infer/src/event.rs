//! What the engine tells about its requests.

use std::time::Duration;

use feilun_model::ForwardError;

use crate::constraint::ConstraintError;
use crate::request::RequestId;
use crate::sampling::{ChooseError, TokenLogprobs};

/// Something happened to a request.
#[derive(Debug)]
pub struct Event {
    /// Which request.
    pub request: RequestId,
    /// What happened.
    pub kind: EventKind,
}

/// What may happen to a request: any number of the first three, then the last once.
#[derive(Debug)]
pub enum EventKind {
    /// Log-probabilities of consecutive tokens of the prompt. The first token of a prompt has
    /// none, since nothing precedes it.
    PromptLogprobs {
        /// Index in the prompt of the first of these tokens.
        start: usize,
        /// One for each token.
        logprobs: Vec<TokenLogprobs>,
    },
    /// A token was generated.
    Token(GeneratedToken),
    /// The embedding of the prompt, where the request asks for it: a vector of length 1.
    Embedding(Vec<f32>),
    /// The request has ended.
    Finished(Finish),
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Its id. Tokens that end the answer, and those that spell a stop string, are reported too:
    /// they were sampled.
    pub token: u32,
    /// The text that may be shown now: whole characters, no part of a stop string. It may be
    /// empty, and it may hold text of tokens before.
    pub text: String,
    /// Present where [`crate::sampling::SamplingParams::logprobs`] asks for it.
    pub logprobs: Option<TokenLogprobs>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Text that was held back until now.
    pub text: String,
    /// Counts of tokens.
    pub usage: Usage,
    /// By the engine's clock.
    pub timings: Timings,
}

/// Why a request ended.
#[derive(Debug)]
pub enum FinishReason {
    /// The answer is whole.
    Stop(StopCause),
    /// The bound on generated tokens was reached.
    Length,
    /// The caller took it back.
    Cancelled,
    /// It failed. Other requests are not concerned.
    Failed(GenerationError),
}

/// What made an answer whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// An end token, or a stop token of the request.
    Token(u32),
    /// The stop string of this index.
    String(usize),
    /// The constraint leaves nothing to add.
    Constraint,
}

/// Why a running request failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The model could not compute it.
    #[error("the model cannot compute this request")]
    Forward(#[from] ForwardError),
    /// No token could be chosen.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// The constraint broke off.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A fault of this program.
    #[error("an internal fault: {message}")]
    Panicked {
        /// What it says of itself.
        message: String,
    },
    /// The model is not computed any longer, for a fault of this program.
    #[error("the engine has stopped: {message}")]
    EngineLost {
        /// What is known about it.
        message: String,
    },
}

/// Counts of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were found in the prefix cache.
    pub cached_prompt: usize,
    /// Tokens generated, the one that ended the answer included.
    pub generated: usize,
}

/// Durations since the request was submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Until it left the queue.
    pub admitted: Option<Duration>,
    /// Until its first token.
    pub first_token: Option<Duration>,
    /// Until its end.
    pub finished: Duration,
}
