//! Training: data, objectives, optimizers, schedules, and the run that joins them.
//!
//! | module | what it knows |
//! |---|---|
//! | [`data`] | examples in files, rendered to tokens, packed into rows, in an order that is a pure function of (seed, step) |
//! | [`objective`] | log-probabilities of tokens in, the loss and its derivatives out |
//! | [`optimizer`] | gradients in, changed weights out |
//! | [`schedule`] | the learning rate of a step |
//! | [`depth`] | the one dial of pretraining: shape, tokens and settings of a depth |
//! | [`planner`] | time and memory of a run, before it starts |
//! | [`guard`] | what must stop a run, before it starts or in the middle |
//! | [`run`] | the loop, its directory and its checkpoints |
//!
//! The forward and backward pass are `feilun_model::train`. This crate knows no HTTP and no apps; it
//! never prints, exits or reads the environment.

pub mod bench;
pub mod data;
pub mod depth;
pub mod guard;
pub mod learner;
pub mod objective;
pub mod optimizer;
pub mod planner;
pub mod run;
pub mod schedule;
pub mod trainee;
