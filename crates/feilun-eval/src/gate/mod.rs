//! The gate: does a candidate take the incumbent's place?
//!
//! Both models answered the same items. On the *target* the candidate must be better; on each
//! *guardrail* it must not be worse by more than a margin. There are three answers, and "not
//! enough evidence" is one of them.
//!
//! **The target** has two marks: zero, and the smallest improvement that is worth a promotion.
//! With the interval of the candidate's gain, at `1 − 2α`:
//!
//! - above zero, and reaching the smallest improvement: promote, if the swap test agrees;
//! - below the smallest improvement: reject, for the candidate cannot be that much better;
//! - from zero or below to the smallest improvement or beyond: not enough evidence. An interval
//!   narrower than the distance of the marks cannot do that, so enough items always decide.
//!
//! **A guardrail** holds if the interval is above minus its margin (non-inferiority), is broken if
//! the candidate is shown to be worse than that, and is open otherwise.
//!
//! **Error rates.** Two equal models are promoted with probability at most α: the swap test is
//! exact. All guardrails must hold, so each is tested at α without correction (an intersection-union
//! test; Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24,
//! 1982). One broken guardrail suffices to reject, so there the more there are, the more chances
//! to reject a harmless candidate: those p-values are Holm's.

mod decide;
mod foresight;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::stats::{Aggregate, Method, Options, PairedItem, StatsError};

pub use decide::decide;
pub use foresight::{Foresight, foresee};

/// Which way a metric gets better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Accuracy, chrF.
    #[default]
    HigherIsBetter,
    /// Bits per byte.
    LowerIsBetter,
}

/// How a metric is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// From 0 to 1, shown as a percentage; differences in points.
    #[default]
    Share,
    /// From 0 to 100 already, as chrF and BLEU.
    Points,
    /// Any other number, with four digits behind the point.
    Plain,
}

/// One metric of two models on the same items.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// What people call it.
    pub name: &'a str,
    /// The items that both answered.
    pub items: &'a [PairedItem],
    /// The metric.
    pub aggregate: &'a dyn Aggregate,
    /// Which way it gets better.
    pub direction: Direction,
    /// How it is shown.
    pub unit: Unit,
}

/// A metric that must not get worse by more than a margin.
#[derive(Clone, Copy)]
pub struct Guardrail<'a> {
    /// The metric.
    pub comparison: Comparison<'a>,
    /// How much worse it may get, above zero, in units of the metric.
    pub margin: f64,
}

/// What a gate promises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateOptions {
    /// The smallest improvement that is worth a promotion, above zero, in units of the metric.
    pub minimum_effect: f64,
    /// The probability to promote a model that is the same as the incumbent, at most. Intervals
    /// are at 1 − 2α.
    pub alpha: f64,
    /// With this probability, as many further items as the gate asks for show that a guardrail
    /// holds if nothing got worse.
    pub power: f64,
    /// The same seed gives the same numbers.
    pub seed: u64,
    /// See [`Options::num_resamples`].
    pub num_resamples: usize,
}

impl GateOptions {
    /// The usual rates: α = 2.5 %, so intervals are at 95 %, and power 80 %.
    pub fn new(minimum_effect: f64) -> GateOptions {
        let Options { seed, num_resamples, .. } = Options::default();
        GateOptions { minimum_effect, alpha: 0.025, power: 0.8, seed, num_resamples }
    }
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// The candidate is better, and no guardrail is in danger.
    Promote,
    /// The candidate is not better enough, or it breaks a guardrail.
    Reject,
    /// These items cannot tell.
    NotEnough {
        /// With about so many more they can.
        further_items: u64,
    },
}

/// What one comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Target: better, and perhaps by as much as is wanted.
    Better,
    /// Target: shown to be worse than the incumbent.
    Worse,
    /// Target: whether better or worse, not by as much as is wanted.
    TooSmall,
    /// Guardrail: not worse than its margin allows.
    Held,
    /// Guardrail: shown to be worse than its margin allows.
    Broken,
    /// Neither can be said.
    Open {
        /// With about so many more items it can.
        further_items: u64,
    },
}

/// One comparison, with its numbers turned so that more is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What people call the metric.
    pub name: String,
    /// How it is shown.
    pub unit: Unit,
    /// Which way it gets better.
    pub direction: Direction,
    /// The candidate's metric.
    pub candidate: f64,
    /// The incumbent's metric.
    pub incumbent: f64,
    /// How much better the candidate is; below zero where it is worse.
    pub gain: f64,
    /// The lower end of the gain's interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Target: the smallest improvement that is wanted. Guardrail: minus the margin.
    pub mark: f64,
    /// Target: of "the models are the same", by the swap test. Guardrail: of "not worse than the
    /// margin allows", after Holm.
    pub p_value: f64,
    /// How many items.
    pub num_items: usize,
    /// In how many clusters.
    pub num_clusters: usize,
    /// How the interval was computed.
    pub method: Method,
    /// What follows.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A gate's answer with all that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is to be done.
    #[serde(flatten)]
    pub decision: Decision,
    /// What must get better.
    pub target: Finding,
    /// What must not get worse.
    pub guardrails: Vec<Finding>,
    /// What the gate was asked to promise.
    pub options: GateOptions,
}

/// Why a gate could not be asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum GateError {
    #[error("{name} is {found}, expected a finite number above 0")]
    Setting { name: &'static str, found: f64 },
    #[error("alpha is {found}, expected a number above 0 and below 0.5")]
    Alpha { found: f64 },
    #[error("guardrail `{name}`: its margin is {found}, expected a finite number above 0")]
    Margin { name: String, found: f64 },
    #[error("`{name}` cannot be compared")]
    Comparison { name: String, source: StatsError },
}
