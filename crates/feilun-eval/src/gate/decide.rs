//! From intervals to an answer.

use crate::stats::{Difference, Options, Plan, Spread, holm, normal_quantile, paired_difference};

use super::{
    Comparison, Decision, Direction, Finding, GateError, GateOptions, Guardrail, Outcome, Verdict,
};

/// More further items than anybody will collect.
const MAX_FURTHER: f64 = 1e9;

/// Asks the gate.
///
/// ```
/// use feilun_eval::gate::{Comparison, Decision, Direction, GateOptions, Unit, decide};
/// use feilun_eval::stats::{Mean, PairedItem};
///
/// // The candidate gets 40 of 100 items right that the incumbent gets wrong.
/// let items: Vec<PairedItem> = (0..100)
///     .map(|item| PairedItem {
///         cluster: item,
///         candidate: vec![if item < 80 { 1.0 } else { 0.0 }, 1.0],
///         incumbent: vec![if item < 40 { 1.0 } else { 0.0 }, 1.0],
///     })
///     .collect();
/// let (direction, unit) = (Direction::HigherIsBetter, Unit::Share);
/// let target =
///     Comparison { name: "accuracy", items: &items, aggregate: &Mean, direction, unit };
/// let verdict = decide(&target, &[], &GateOptions::new(0.05))?;
/// assert_eq!(verdict.decision, Decision::Promote);
/// # Ok::<(), feilun_eval::gate::GateError>(())
/// ```
pub fn decide(
    target: &Comparison<'_>,
    guardrails: &[Guardrail<'_>],
    options: &GateOptions,
) -> Result<Verdict, GateError> {
    check(guardrails, options)?;
    let target = judge_target(target, options)?;
    let guardrails = judge_guardrails(guardrails, options)?;
    let decision = combine(&target, &guardrails);
    Ok(Verdict { decision, target, guardrails, options: *options })
}

fn check(guardrails: &[Guardrail<'_>], options: &GateOptions) -> Result<(), GateError> {
    let is_positive = |found: f64| found > 0.0 && found.is_finite();
    if !is_positive(options.minimum_effect) {
        return Err(GateError::Setting { name: "minimum effect", found: options.minimum_effect });
    }
    if !(options.power > 0.0 && options.power < 1.0) {
        return Err(GateError::Setting { name: "power", found: options.power });
    }
    if !(options.alpha > 0.0 && options.alpha < 0.5) {
        return Err(GateError::Alpha { found: options.alpha });
    }
    match guardrails.iter().find(|guardrail| !is_positive(guardrail.margin)) {
        Some(Guardrail { comparison, margin }) => {
            Err(GateError::Margin { name: comparison.name.to_owned(), found: *margin })
        }
        None => Ok(()),
    }
}

/// Any doubt about the candidate that is proven rejects; any that is not yet dispelled waits.
fn combine(target: &Finding, guardrails: &[Finding]) -> Decision {
    let findings = || std::iter::once(target).chain(guardrails);
    let refuses = |outcome| matches!(outcome, Outcome::Worse | Outcome::TooSmall | Outcome::Broken);
    if findings().any(|finding| refuses(finding.outcome)) {
        return Decision::Reject;
    }
    let missing = findings().filter_map(|finding| match finding.outcome {
        Outcome::Open { further_items } => Some(further_items),
        _ => None,
    });
    match missing.max() {
        Some(further_items) => Decision::NotEnough { further_items },
        None => Decision::Promote,
    }
}

fn judge_target(comparison: &Comparison<'_>, options: &GateOptions) -> Result<Finding, GateError> {
    let wanted = options.minimum_effect;
    let gain = Gain::of(comparison, 0.0, options)?;
    let outcome = if gain.high < 0.0 {
        Outcome::Worse
    } else if gain.high < wanted {
        Outcome::TooSmall
    } else if gain.low > 0.0 && gain.p_same <= options.alpha {
        Outcome::Better
    } else {
        // The width falls with the root of the number of items; once it is below `wanted`, the
        // interval cannot reach from zero to there. If the swap test alone is in doubt, that is
        // so already, and twice as many items settle it.
        let num = gain.difference.num_items as f64;
        let needed = num * ((gain.high - gain.low) / wanted).powi(2);
        Outcome::Open { further_items: further(if needed > num { needed } else { 2.0 * num }, num) }
    };
    Ok(gain.finding(comparison, wanted, gain.p_same, outcome))
}

fn judge_guardrails(
    guardrails: &[Guardrail<'_>],
    options: &GateOptions,
) -> Result<Vec<Finding>, GateError> {
    let gains = guardrails
        .iter()
        .map(|guardrail| Gain::of(&guardrail.comparison, -guardrail.margin, options))
        .collect::<Result<Vec<Gain>, GateError>>()?;
    let p_harm = holm(&gains.iter().map(|gain| gain.p_harm).collect::<Vec<f64>>());
    let judged = guardrails.iter().zip(gains).zip(p_harm).map(|((guardrail, gain), p_harm)| {
        let outcome = if gain.low > -guardrail.margin {
            Outcome::Held
        } else if p_harm <= options.alpha {
            Outcome::Broken
        } else {
            Outcome::Open { further_items: further_for_guardrail(&gain, guardrail.margin, options) }
        };
        gain.finding(&guardrail.comparison, -guardrail.margin, p_harm, outcome)
    });
    Ok(judged.collect())
}

/// How many items show, with the promised power, that nothing got worse if nothing did. Where
/// there are as many already, the truth may be near the margin: as many again.
fn further_for_guardrail(gain: &Gain, margin: f64, options: &GateOptions) -> u64 {
    let num = gain.difference.num_items as f64;
    // What an item's difference varies by, as the interval has it: with clusters and all.
    let z = normal_quantile(1.0 - options.alpha);
    let deviation = (gain.high - gain.low) / (2.0 * z) * num.sqrt();
    let GateOptions { alpha, power, .. } = *options;
    let plan = Plan { alpha, power, spread: Spread::Deviation { deviation }, design_effect: 1.0 };
    let needed = plan.items_needed(margin).map_or(MAX_FURTHER, |needed| needed as f64);
    further(if needed > num { needed } else { 2.0 * num }, num)
}

fn further(needed: f64, num: f64) -> u64 {
    (needed - num).ceil().clamp(1.0, MAX_FURTHER) as u64
}

/// A difference, turned so that more is better.
struct Gain {
    difference: Difference,
    value: f64,
    low: f64,
    high: f64,
    /// p-value of "the models are the same" against "the candidate is better".
    p_same: f64,
    /// p-value of "the gain is at least the threshold".
    p_harm: f64,
}

impl Gain {
    fn of(
        comparison: &Comparison<'_>,
        threshold: f64,
        options: &GateOptions,
    ) -> Result<Gain, GateError> {
        let is_higher_better = comparison.direction == Direction::HigherIsBetter;
        let sign = if is_higher_better { 1.0 } else { -1.0 };
        let GateOptions { alpha, seed, num_resamples, .. } = *options;
        let settings = Options { confidence: 1.0 - 2.0 * alpha, seed, num_resamples };
        let difference =
            paired_difference(comparison.items, comparison.aggregate, sign * threshold, &settings)
                .map_err(|source| GateError::Comparison {
                    name: comparison.name.to_owned(),
                    source,
                })?;
        let Difference { estimate, low, high, p_swap_greater, p_swap_less, .. } = difference;
        let Difference { p_greater, p_less, .. } = difference;
        Ok(if is_higher_better {
            Gain { value: estimate, low, high, p_same: p_swap_greater, p_harm: p_less, difference }
        } else {
            let (low, high) = (-high, -low);
            Gain { value: -estimate, low, high, p_same: p_swap_less, p_harm: p_greater, difference }
        })
    }

    fn finding(
        &self,
        comparison: &Comparison<'_>,
        mark: f64,
        p_value: f64,
        outcome: Outcome,
    ) -> Finding {
        Finding {
            name: comparison.name.to_owned(),
            unit: comparison.unit,
            direction: comparison.direction,
            candidate: self.difference.candidate,
            incumbent: self.difference.incumbent,
            gain: self.value,
            low: self.low,
            high: self.high,
            mark,
            p_value,
            num_items: self.difference.num_items,
            num_clusters: self.difference.num_clusters,
            method: self.difference.method,
            outcome,
        }
    }
}
