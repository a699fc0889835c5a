//! The arithmetic of the optimizers, one value after the other on one thread.

use feilun_kernels::{Isa, Pool};

/// One step of AdamW.
pub(super) struct AdamW {
    pub(super) lr: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    pub(super) eps: f32,
    pub(super) weight_decay: f32,
    /// Counts from 1.
    pub(super) step: u64,
    /// What each gradient is multiplied with first.
    pub(super) gradient_scale: f32,
}

/// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`,
/// `w ← w − lr · weight_decay · w − lr · m̂ / (√v̂ + ε)` with the means corrected for their start
/// at zero.
pub(super) fn adamw(
    _pool: &mut Pool,
    _isa: Isa,
    values: &mut [f32],
    gradients: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    settings: &AdamW,
) {
    // In f64: β₂ = 0.999 to the power of a step loses most digits of its distance to 1 in f32.
    let correction = |beta: f32| (1.0 - f64::from(beta).powf(settings.step as f64)).recip() as f32;
    let (correct_m, correct_v) = (correction(settings.beta1), correction(settings.beta2));
    let (keep_m, keep_v) = (settings.beta1, settings.beta2);
    let decay = 1.0 - settings.lr * settings.weight_decay;
    for (((value, gradient), m), v) in values.iter_mut().zip(gradients).zip(m).zip(v) {
        let gradient = gradient * settings.gradient_scale;
        *m = keep_m * *m + (1.0 - keep_m) * gradient;
        *v = keep_v * *v + (1.0 - keep_v) * gradient * gradient;
        let direction = (*m * correct_m) / ((*v * correct_v).sqrt() + settings.eps);
        *value = *value * decay - settings.lr * direction;
    }
}

/// Summed in f64, in order.
pub(super) fn sum_of_squares(_pool: &mut Pool, _isa: Isa, values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}
