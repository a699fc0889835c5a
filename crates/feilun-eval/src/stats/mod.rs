//! Statistics of per-item results: how sure a number is, and how sure a difference.
//!
//! | to know | ask |
//! |---|---|
//! | how good one model is | [`interval`] |
//! | whether another is better on the same items | [`paired_difference`], [`mcnemar`], [`sign_test`] |
//! | what a comparison will be able to see | [`Plan`], [`answers_per_model`] |
//! | which of several differences count | [`holm`] |
//! | how a live signal stands, at any time | [`monitor`] |
//!
//! Every number is a pure function of items, settings and seed. `tests/honesty` shows by simulation
//! that intervals hold what they promise; `docs/lab-book.md` has its tables.

mod aggregate;
mod bootstrap;
mod clusters;
mod compare;
mod discordant;
mod distribution;
mod error;
mod holm;
pub mod monitor;
mod power;
mod proportion;
mod random;
mod swap;
#[cfg(test)]
mod tests;

pub use aggregate::{Aggregate, Mean};
pub use compare::{
    Difference, Interval, Method, Options, PairedItem, ScoredItem, interval, paired_difference,
};
pub use discordant::{SignTest, mcnemar, sign_test};
pub(crate) use distribution::normal_quantile;
pub use error::StatsError;
pub use holm::holm;
pub use power::{Plan, Spread, answers_per_model};
pub use proportion::agresti_coull;
