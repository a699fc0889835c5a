//! What trains, as the server sees it: jobs go in, news come back. `feilun up` starts its own
//! program for each; tests put something quicker there.

use std::fs::File;
use std::path::PathBuf;

use feilun_store::digest::ModelDigest;

/// What trains. Everything here may block; it is called on threads that may.
pub trait Trainer: Send + Sync {
    /// Reads a file of examples line by line, as training will; returns how many they are.
    ///
    /// # Errors
    /// In words for whoever brought the file, with the number of the line.
    fn check(&self, examples: File, objective: Option<Objective>) -> Result<u64, String>;

    /// Begins a job, or goes on with it where it was broken off.
    ///
    /// # Errors
    /// In words for whoever asked for it.
    fn start(&self, order: &TrainingOrder) -> Result<Box<dyn Training>, String>;
}

/// A job at work. Dropping it ends the work at once.
pub trait Training: Send {
    /// What happened since the last call. It may tell of a step twice.
    fn news(&mut self) -> Vec<News>;

    /// How it ended, if it has.
    fn ending(&mut self) -> Option<Ending>;

    /// Asks it to save its state and to end.
    fn interrupt(&mut self);

    /// Ends it at once.
    fn kill(&mut self);
}

/// What is to be trained: an adapter on a base.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingOrder {
    /// Names the run, and the model that comes of it.
    pub name: String,
    /// The base, by its name.
    pub base: String,
    /// The base's digest, where it was known.
    pub base_digest: Option<ModelDigest>,
    /// Where the examples are.
    pub examples: PathBuf,
    /// What is learned of them.
    pub objective: Objective,
    /// Passes over the examples.
    pub num_epochs: u64,
    /// Examples of a step, or whatever is usual.
    pub batch_size: Option<u64>,
    /// Factor on the usual learning rate.
    pub rate_multiplier: f64,
    /// How dear it is to leave the base, for pairs.
    pub beta: Option<f64>,
    /// Decides the order of the examples and the first values.
    pub seed: u64,
}

/// What is learned of examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// To answer as they do.
    Supervised,
    /// To prefer what is preferred.
    Preference,
}

/// Something that happened in a job.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It began, or went on.
    Started {
        /// Steps that were done before.
        step: u64,
        /// Steps in all.
        num_steps: u64,
    },
    /// A step was done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        learning_rate: f64,
    },
    /// It was measured on what is kept back.
    Evaluation {
        /// Steps done.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// From here it goes on if it is broken off.
    Saved {
        /// Steps done.
        step: u64,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With a model.
    Trained(Trained),
    /// It cannot be done; trying again would end the same.
    Failed {
        /// Why, in words for whoever asked for it.
        reason: String,
    },
    /// It was broken off, by whomever; it can go on.
    BrokenOff {
        /// What is known of it.
        reason: String,
    },
}

/// What a job made: an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Names it by its content.
    pub digest: ModelDigest,
    /// What it is an adapter of.
    pub base: ModelDigest,
    /// What it takes on the disk.
    pub size_bytes: u64,
    /// Tokens that were computed.
    pub num_tokens: u64,
}
