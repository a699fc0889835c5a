//! The run: the loop over steps, its directory and its checkpoints.
//!
//! A run is its [`RunDirectory`]; a [`Run`] is the process that works on it. It can be killed at
//! any instant: the next one takes the newest checkpoint that verifies and goes on from there,
//! bit for bit as if nothing had happened. Three things make it so: the rows of a step follow
//! from (seed, step) alone, a checkpoint holds everything else, and it is on the disk whole or
//! not at all.
//!
//! | file | what it knows |
//! |---|---|
//! | [`directory`](RunDirectory) | where things lie; the lock |
//! | [`settings`](TrainingSettings) | what the loop is told to do |
//! | [`training`](Run) | the loop |
//! | `measure` | a few seconds of the real work, for the planner |
//! | [`checkpoint`] | saving and going on |
//! | [`metrics`](Record) | what happened |

pub mod checkpoint;
mod directory;
mod durable;
mod measure;
mod metrics;
mod outcome;
mod settings;
mod training;

pub use directory::{DirectoryError, RunDirectory, RunFiles};
pub use metrics::{MetricsError, MetricsTail, Record, StepRecord, read_metrics};
pub use outcome::{Outcome, Refusal, RunError, Summary};
pub use settings::{CheckpointSettings, SettingsError, TrainingSettings};
pub use training::{Parts, Run};
