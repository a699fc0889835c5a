//! Cross-entropy: the mean of −log p over all learned tokens of a step.

use super::metrics::Sums;
use super::{StepTotals, divisor};
use crate::data::PackedRow;

pub(super) fn evaluate(
    row: &PackedRow,
    totals: &StepTotals,
    log_probs: &[f32],
    coefficients: &mut [f32],
) -> Sums {
    let divisor = divisor(totals.num_tokens);
    let mut sum = 0.0;
    for (token, &learn) in row.learn.iter().enumerate() {
        if learn {
            sum -= f64::from(log_probs[token]);
            coefficients[token] = (-1.0 / divisor) as f32;
        }
    }
    Sums { loss: sum / divisor, ..Sums::default() }
}
