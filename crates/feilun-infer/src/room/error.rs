//! What a room refuses, and why.

use std::time::Duration;

use feilun_model::{AdapterError, LoadError, ModelFileError, SessionError};

use super::config::ModelDigest;
use crate::constraint::ConstraintError;
use crate::kv::prefix::AdapterDigest;
use crate::model_text::ModelTextError;
use crate::request;

/// Why a model or an adapter cannot be loaded, or found.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The model's files.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// Its tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] ModelTextError),
    /// Its weights.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The memory to run it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Its vocabulary cannot be used for constraints.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// An adapter's files.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The budget does not allow it.
    #[error(
        "{needed} bytes of memory are needed, {used} of {max} are in use{}",
        if *evicts { " by models at work" } else { "" }
    )]
    Memory {
        /// Bytes that it would take.
        needed: usize,
        /// Bytes in use.
        used: usize,
        /// The budget.
        max: usize,
        /// Whether what was idle has been unloaded.
        evicts: bool,
    },
    /// The KV cache that was allowed holds not even a block.
    #[error("a KV cache of {found} bytes is too small: a block takes {block_bytes}")]
    KvCacheTooSmall {
        /// Bytes allowed.
        found: usize,
        /// Bytes of one block.
        block_bytes: usize,
    },
    /// No such model.
    #[error("model {0} is not loaded")]
    NoSuchModel(ModelDigest),
    /// No such adapter.
    #[error("adapter {} is not loaded", hex(.0))]
    NoSuchAdapter(AdapterDigest),
    /// The engine thread has ended.
    #[error("the engine has stopped: {reason}")]
    Stopped {
        /// What is known about it.
        reason: String,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Too many wait.
    #[error("the queue is full: {waiting} requests are waiting, at most {max} may")]
    QueueFull {
        /// How many.
        waiting: usize,
        /// The bound.
        max: usize,
        /// When it is worth another try, by the speed measured.
        retry_after: Duration,
    },
    /// Too many of this tenant's wait.
    #[error("{waiting} requests of this caller are waiting, at most {max} may")]
    QuotaFull {
        /// How many.
        waiting: usize,
        /// The bound.
        max: usize,
        /// When it is worth another try, by the speed measured.
        retry_after: Duration,
    },
    /// The model was unloaded.
    #[error("model {0} was unloaded")]
    Unloaded(ModelDigest),
    /// The model failed; loading it again may help.
    #[error("model {digest} has failed: {reason}")]
    ModelFailed {
        /// Which.
        digest: ModelDigest,
        /// What is known about it.
        reason: String,
    },
    /// The engine thread has ended.
    #[error("the engine has stopped: {reason}")]
    Stopped {
        /// What is known about it.
        reason: String,
    },
    /// The request itself.
    #[error(transparent)]
    Request(#[from] request::SubmitError),
}

fn hex(digest: &AdapterDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
