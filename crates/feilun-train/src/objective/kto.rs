//! Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306).

use super::metrics::Sums;
use super::{ObjectiveError, StepTotals, divisor, sigmoid, spread};
use crate::data::{PackedRow, Part};

/// For an answer with log-ratio r (of policy to reference, summed over the answer), and the
/// reference point z₀:
///
/// ```text
/// liked:      loss = λ_D (1 − σ(β (r − z₀)))
/// not liked:  loss = λ_U (1 − σ(β (z₀ − r)))        reward of an answer: β r
/// ```
///
/// z₀ estimates how far the policy is from the reference: the mean log-ratio of mismatched
/// pairs, a prompt with the answer to another one, but at least 0. It is a constant for the
/// gradient. It is estimated over the whole step, from rows that are measured before the step is
/// learned; TRL estimates it over the part of a step that is computed at once.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kto {
    /// How dear it is to leave the reference; 0.1 is usual.
    pub beta: f64,
    /// λ_D, the weight of answers that were liked.
    pub desirable_weight: f64,
    /// λ_U, the weight of answers that were not. The paper advises λ_D · liked : λ_U · not liked
    /// between 1:1 and 4:3.
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Kto {
        Kto { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

/// Refuses what is not a positive number.
pub(super) fn positive(name: &'static str, found: f64) -> Result<(), ObjectiveError> {
    if found.is_finite() && found > 0.0 {
        return Ok(());
    }
    Err(ObjectiveError::Setting { name, found, expected: "a positive number" })
}

impl Kto {
    pub(super) fn check(&self) -> Result<(), ObjectiveError> {
        positive("beta", self.beta)?;
        positive("desirable_weight", self.desirable_weight)?;
        positive("undesirable_weight", self.undesirable_weight)
    }

    /// z₀ from the [`PackedRow::document_log_probs`] of a step's mismatched rows, under the
    /// policy and under the reference. 0 if there are none.
    ///
    /// ```
    /// use feilun_train::objective::Kto;
    /// assert_eq!(Kto::reference_point(&[-3.0, -5.0], &[-4.0, -6.0]), 1.0);
    /// assert_eq!(Kto::reference_point(&[-4.0], &[-3.0]), 0.0);
    /// ```
    pub fn reference_point(policy: &[f64], reference: &[f64]) -> f64 {
        debug_assert_eq!(policy.len(), reference.len());
        let sum: f64 = policy.iter().zip(reference).map(|(p, r)| p - r).sum();
        let mean = sum / divisor(policy.len());
        // Not `max`, which would turn NaN into 0 and hide it.
        if mean < 0.0 { 0.0 } else { mean }
    }

    pub(super) fn evaluate(
        &self,
        row: &PackedRow,
        totals: &StepTotals,
        log_ratios: &[f64],
        coefficients: &mut [f32],
    ) -> Result<Sums, ObjectiveError> {
        let divisor = divisor(totals.num_answers);
        let mut sums = Sums { reference_point: totals.reference_point, ..Sums::default() };
        for (index, (origin, range)) in row.sequences().enumerate() {
            let reward = self.beta * log_ratios[index];
            let (sign, weight) = match origin.part {
                Part::Desirable => {
                    sums.num_desirable += 1;
                    sums.reward_chosen += reward;
                    (1.0, self.desirable_weight)
                }
                Part::Undesirable => {
                    sums.num_undesirable += 1;
                    sums.reward_rejected += reward;
                    (-1.0, self.undesirable_weight)
                }
                found => {
                    let expected = "an answer that was liked or not";
                    return Err(ObjectiveError::Part { index, found, expected });
                }
            };
            // 1 − σ(x) = σ(−x), whose derivative is −σ(x) σ(−x).
            let x = sign * self.beta * (log_ratios[index] - totals.reference_point);
            sums.loss += weight * sigmoid(-x) / divisor;
            let slope = -sign * weight * self.beta * sigmoid(x) * sigmoid(-x) / divisor;
            spread(row, range, slope, coefficients);
        }
        Ok(sums)
    }
}
