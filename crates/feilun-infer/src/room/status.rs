//! What a room tells of itself.

use std::time::Duration;

use super::config::ModelDigest;
use super::resident::ResidentModel;
use crate::engine::Totals;

/// A look at a room, as it was after its last step.
#[derive(Clone, Debug, Default)]
pub struct RoomStatus {
    /// Why the engine thread has ended, if it has.
    pub stopped: Option<String>,
    /// Memory in use, by the budget's count.
    pub memory_bytes: usize,
    /// The budget.
    pub memory_bytes_max: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// The bound on them.
    pub waiting_max: usize,
    /// Models with an engine, those that are being unloaded included.
    pub models: Vec<ModelStatus>,
}

/// What becomes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It takes requests.
    Serving,
    /// It was unloaded: it finishes what it has, and takes no more.
    Unloaded,
    /// It stopped by a fault of this program.
    Failed {
        /// What is known about it.
        reason: String,
    },
}

/// A look at one model.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// Which.
    pub digest: ModelDigest,
    /// Whether it takes requests.
    pub state: ModelState,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are computed.
    pub running: usize,
    /// Of these, requests that have got their first token.
    pub answering: usize,
    /// Blocks of the KV cache.
    pub blocks: KvBlocks,
    /// Weights, KV cache and scratch.
    pub bytes: usize,
    /// What the engine has done.
    pub totals: Totals,
    /// What became of requests.
    pub requests: RequestTotals,
    /// Running estimate: a step of the present answers, without prompts.
    pub answers_time: Option<Duration>,
    /// Running estimate: one prompt token more in a step.
    pub prompt_row_time: Option<Duration>,
}

impl ModelStatus {
    /// A model of which nothing but its name and state is known.
    pub(super) fn without_engine(model: &ResidentModel) -> ModelStatus {
        ModelStatus {
            digest: model.digest(),
            state: model.state(),
            waiting: 0,
            running: 0,
            answering: 0,
            blocks: KvBlocks::default(),
            bytes: model.bytes(),
            totals: Totals::default(),
            requests: RequestTotals::default(),
            answers_time: None,
            prompt_row_time: None,
        }
    }
}

/// How the blocks of a KV cache are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvBlocks {
    /// Blocks in all.
    pub all: usize,
    /// Held by requests.
    pub used: usize,
    /// Kept for requests to come that begin alike.
    pub idle: usize,
}

/// Sums over the requests that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// Requests whose answer is whole, or as long as was asked for.
    pub finished: u64,
    /// Requests that were taken back.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of these, tokens found in the prefix cache.
    pub cached_prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
}
