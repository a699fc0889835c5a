//! Evaluation: how good a model is, how sure that is, and whether another one is better.
//!
//! | module | what it knows |
//! |---|---|
//! | [`capability`] | a suite that is made from a seed: is a model general? |
//! | [`suite`] | items, tasks, suites: reading and checking them |
//! | [`run`] | a suite through a model |
//! | [`results`] | evaluations on disk: resumable, comparable |
//! | [`gate`] | whether a candidate takes the incumbent's place |
//! | [`report`] | pages and Markdown for people who do not do statistics |
//! | [`score`] | scorers: what an answer is worth, compared with a reference |
//! | [`stats`] | intervals, tests, power and monitors, for items that come in clusters |
//!
//! This crate knows no HTTP, no store and no apps; it never prints, exits or reads the environment.

pub mod capability;
pub mod gate;
mod lines;
pub mod report;
pub mod results;
pub mod run;
pub mod score;
pub mod stats;
pub mod suite;
