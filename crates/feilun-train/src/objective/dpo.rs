//! Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290).

use super::metrics::Sums;
use super::{ObjectiveError, StepTotals, divisor, minus_log_sigmoid, sigmoid, spread};
use crate::data::{PackedRow, Part};

/// For a pair with log-ratios r_c and r_r (of policy to reference, summed over the answer):
///
/// ```text
/// loss = −log σ(β (r_c − r_r))        reward of an answer: β r
/// d loss / d r_c = −β σ(−β (r_c − r_r)) = −d loss / d r_r
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// How dear it is to leave the reference; 0.1 is usual.
    pub beta: f64,
}

impl Default for Dpo {
    fn default() -> Dpo {
        Dpo { beta: 0.1 }
    }
}

impl Dpo {
    pub(super) fn check(&self) -> Result<(), ObjectiveError> {
        super::kto::positive("beta", self.beta)
    }

    pub(super) fn evaluate(
        &self,
        row: &PackedRow,
        totals: &StepTotals,
        log_ratios: &[f64],
        coefficients: &mut [f32],
    ) -> Result<Sums, ObjectiveError> {
        let divisor = divisor(totals.num_pairs);
        let mut sums = Sums::default();
        let documents: Vec<_> = row.sequences().collect();
        for (pair, documents) in documents.chunks(2).enumerate() {
            let index = 2 * pair;
            let (chosen_origin, chosen) = documents[0].clone();
            if chosen_origin.part != Part::Chosen {
                let expected = "the chosen answer of a pair";
                return Err(ObjectiveError::Part { index, found: chosen_origin.part, expected });
            }
            let Some((_, rejected)) = documents.get(1).filter(|(origin, _)| {
                origin.part == Part::Rejected && origin.example == chosen_origin.example
            }) else {
                return Err(ObjectiveError::NoPartner { index });
            };
            let margin = self.beta * (log_ratios[index] - log_ratios[index + 1]);
            sums.loss += minus_log_sigmoid(margin) / divisor;
            sums.num_pairs += 1;
            sums.num_correct += usize::from(margin > 0.0);
            sums.reward_chosen += self.beta * log_ratios[index];
            sums.reward_rejected += self.beta * log_ratios[index + 1];
            let slope = self.beta * sigmoid(-margin) / divisor;
            spread(row, chosen, -slope, coefficients);
            spread(row, rejected.clone(), slope, coefficients);
        }
        Ok(sums)
    }
}
