//! How a run ends.

use std::path::PathBuf;

use feilun_kernels::memory::OutOfMemory;

use super::checkpoint::{Best, CheckpointError};
use super::{MetricsError, SettingsError};
use crate::learner::BoxError;
use crate::planner::Score;

/// How a process ended that was not broken off.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// It was asked to stop; what was done is saved.
    Interrupted {
        /// Steps done.
        step: u64,
        /// Where the run will go on from; nothing before the first step.
        checkpoint: Option<PathBuf>,
    },
    /// A guard stopped it. The values are still those of the last good step.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The newest checkpoint, which is a good one.
        checkpoint: Option<PathBuf>,
    },
}

/// A finished run in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Steps done.
    pub step: u64,
    /// Those of them that were left out as outliers.
    pub num_skipped: u64,
    /// Tokens computed, over all processes of the run.
    pub num_tokens: u64,
    /// Time in steps, over all processes of the run.
    pub seconds: f64,
    /// The loss of the last step, if this process did one.
    pub last_loss: Option<f64>,
    /// The lowest held-out loss.
    pub best: Option<Best>,
    /// The BLAKE3 digest of the values: two runs are the same if it is.
    pub values_digest: String,
    /// How the prediction did, if there was one.
    pub score: Option<Score>,
}

/// Why a guard stopped a run. Steps are numbered from 1, as in the metrics.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Refusal {
    #[error(
        "the loss of step {step} is {found}, expected a finite number; row {row} of the batch: \
         {batch}. Look at these examples, or lower the learning rate"
    )]
    Loss { step: u64, row: usize, batch: String, found: f64 },
    #[error(
        "the gradient norm of step {step} is {found}, expected a finite number{}; the batch: \
         {batch}. Look at these examples, or lower the learning rate",
        .parameter.as_ref().map(|name| format!("; first in `{name}`")).unwrap_or_default()
    )]
    GradientNorm { step: u64, batch: String, found: f64, parameter: Option<String> },
    #[error("the batch of step {step} has no token that is learned: {batch}")]
    NothingLearned { step: u64, batch: String },
    #[error(
        "the held-out loss after step {step} is {found}, expected a finite number. Look at the \
         held-out examples, or lower the learning rate"
    )]
    HeldOutLoss { step: u64, found: f64 },
}

/// Why a run could not go on. What its last checkpoint holds is safe.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RunError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("no room for the optimizer's state")]
    Memory(#[from] OutOfMemory),
    #[error("cannot read the batch of step {step}")]
    Batch { step: u64, source: BoxError },
    #[error("cannot compute step {step}")]
    Learner { step: u64, source: BoxError },
    #[error(
        "checkpoint `{path}` was made with other {what}: {found}, expected {expected}. Resume \
         with what the run was begun with, or take a new directory"
    )]
    OtherRun { path: PathBuf, what: &'static str, found: String, expected: String },
    #[error("cannot measure the speed of the disk at `{path}`")]
    Disk { path: PathBuf, source: std::io::Error },
}
