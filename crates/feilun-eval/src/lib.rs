//! Evaluation: how good a model is, how sure that is, and whether another one is better.
//!
//! | module | what it knows |
//! |---|---|
//! | [`capability`] | a suite that is made from a seed: is a model general? |
//! | [`score`] | scorers: what an answer is worth, compared with a reference |
//! | [`stats`] | intervals, tests, power and monitors, for items that come in clusters |
//!
//! This crate knows no HTTP, no store and no apps; it never prints, exits or reads the environment.

pub mod capability;
pub mod score;
pub mod stats;
