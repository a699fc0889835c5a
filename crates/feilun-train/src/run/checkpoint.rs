//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! ```text
//! checkpoints/step-00000040/
//!   values.safetensors          the trained tensors, f32, under their names
//!   first_moments.safetensors   the optimizer's state, likewise
//!   second_moments.safetensors
//!   state.json                  step, seed, digests of configuration and data, guards
//!   manifest.json               length and BLAKE3 digest of each file, and of this list
//! ```
//!
//! One is written under another name, synced and renamed, so that a crash leaves it whole or
//! not at all; and it is verified before anything of it is used.

mod folder;
mod manifest;
mod tensors;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::guard::OutlierGuard;

pub use folder::{Checkpoints, Found, Refused, Written};
pub use manifest::VerifyError;

/// The part of a checkpoint that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Steps done.
    pub step: u64,
    /// Updates applied: steps without those that were skipped.
    pub num_updates: u64,
    /// Tokens computed.
    pub num_tokens: u64,
    /// Time spent in steps, over all processes of the run.
    pub elapsed_ms: u64,
    /// As configured.
    pub seed: u64,
    /// The digest of the run's configuration.
    pub config: String,
    /// The digest of the data and its order.
    pub data: String,
    /// What the outlier guard remembers.
    pub outliers: OutlierGuard,
    /// The lowest held-out loss so far.
    pub best: Option<Best>,
}

/// The lowest held-out loss, and after how many steps it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

/// Why checkpoints cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum CheckpointError {
    #[error(
        "checkpoint `{path}` ({} MiB) could not be written; earlier checkpoints are untouched: \
         make room or mend the disk, then resume the run", .bytes >> 20
    )]
    Write { path: PathBuf, bytes: u64, source: io::Error },
    #[error("cannot tidy up `{path}`")]
    Tidy { path: PathBuf, source: io::Error },
    #[error("cannot list `{path}`")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot load `{path}`")]
    Load { path: PathBuf, source: io::Error },
    #[error("`{path}` holds other tensors than the run trains")]
    OtherTensors { path: PathBuf },
    #[error(
        "none of the {num} checkpoints in `{path}` can be used; the newest: {newest}. Move them \
         away to start the run again from its beginning"
    )]
    NoneVerifies { path: PathBuf, num: usize, newest: Box<Refused> },
}
