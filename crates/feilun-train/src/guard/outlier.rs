//! Steps far out of line are not applied: one damaged batch must not undo a day's training.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// When a step is an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierSettings {
    /// How many standard deviations above the mean; 0 turns the guard off.
    pub sigmas: f64,
    /// Over how many of the last steps; nothing is judged before half of them are there.
    pub window: usize,
}

/// What was out of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outlier {
    /// The loss.
    Loss,
    /// The norm of the gradient.
    GradientNorm,
}

/// The last losses and gradient norms. It is part of a checkpoint, so that a resumed run skips
/// the same steps.
///
/// Outliers enter the window too: a level that has really changed is soon the normal one, and a
/// run cannot skip for ever.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierGuard {
    losses: VecDeque<f64>,
    gradient_norms: VecDeque<f64>,
}

/// A window that is all but constant has no spread to speak of: differences below this share of
/// the mean are never out of line.
const MIN_SPREAD: f64 = 0.01;

impl OutlierGuard {
    /// Judges a step by those before it, and remembers it. Both values are finite.
    pub fn observe(
        &mut self,
        settings: &OutlierSettings,
        loss: f64,
        gradient_norm: f64,
    ) -> Option<Outlier> {
        if settings.sigmas <= 0.0 {
            return None;
        }
        let is_loss = is_outlier(settings, &self.losses, loss);
        let is_norm = is_outlier(settings, &self.gradient_norms, gradient_norm);
        for (window, value) in [(&mut self.losses, loss), (&mut self.gradient_norms, gradient_norm)]
        {
            window.push_back(value);
            while window.len() > settings.window {
                window.pop_front();
            }
        }
        match (is_loss, is_norm) {
            (true, _) => Some(Outlier::Loss),
            (false, true) => Some(Outlier::GradientNorm),
            (false, false) => None,
        }
    }
}

fn is_outlier(settings: &OutlierSettings, window: &VecDeque<f64>, value: f64) -> bool {
    if window.len() < settings.window.div_ceil(2).max(2) {
        return false;
    }
    let num = window.len() as f64;
    let mean = window.iter().sum::<f64>() / num;
    let variance = window.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (num - 1.0);
    let above = value - mean;
    above > settings.sigmas * variance.sqrt() && above > MIN_SPREAD * mean.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: OutlierSettings = OutlierSettings { sigmas: 6.0, window: 128 };

    /// Losses of a slow decline with a little noise.
    fn loss(step: u32) -> f64 {
        3.0 - 0.002 * f64::from(step) + 0.05 * f64::from(step * 7919 % 13) / 13.0
    }

    fn warm(steps: u32) -> OutlierGuard {
        let mut guard = OutlierGuard::default();
        for step in 0..steps {
            assert_eq!(guard.observe(&SETTINGS, loss(step), 1.0), None, "step {step}");
        }
        guard
    }

    #[test]
    fn a_spike_is_an_outlier_and_a_drop_is_not() {
        let guard = warm(200);
        assert_eq!(guard.losses.len(), 128);
        assert_eq!(guard.clone().observe(&SETTINGS, 9.0, 1.0), Some(Outlier::Loss));
        assert_eq!(guard.clone().observe(&SETTINGS, 2.6, 9.0), Some(Outlier::GradientNorm));
        assert_eq!(guard.clone().observe(&SETTINGS, 0.1, 0.1), None);
        let off = OutlierSettings { sigmas: 0.0, ..SETTINGS };
        assert_eq!(guard.clone().observe(&off, 9.0, 9.0), None);
    }

    #[test]
    fn the_limit_is_six_standard_deviations_above_the_mean() {
        let mut guard = OutlierGuard::default();
        for step in 0..128 {
            guard.observe(&SETTINGS, if step % 2 == 0 { 1.0 } else { 3.0 }, 1.0);
        }
        let sigma = (128.0_f64 / 127.0).sqrt();
        assert_eq!(guard.clone().observe(&SETTINGS, 2.0 + 5.999 * sigma, 1.0), None);
        let above = 2.0 + 6.001 * sigma;
        assert_eq!(guard.clone().observe(&SETTINGS, above, 1.0), Some(Outlier::Loss));
    }

    #[test]
    fn nothing_is_judged_before_half_a_window() {
        let mut guard = warm(63);
        assert_eq!(guard.clone().observe(&SETTINGS, 99.0, 99.0), None);
        guard.observe(&SETTINGS, loss(63), 1.0);
        assert_eq!(guard.observe(&SETTINGS, 99.0, 1.0), Some(Outlier::Loss));
    }

    #[test]
    fn a_new_level_is_accepted_after_a_while() {
        let mut guard = warm(128);
        let skipped = (0..40).filter(|_| guard.observe(&SETTINGS, 5.0, 1.0).is_some()).count();
        assert!((1..10).contains(&skipped), "{skipped} steps skipped");
    }

    #[test]
    fn the_state_survives_json_exactly() {
        let guard = warm(150);
        let text = serde_json::to_string(&guard).unwrap();
        assert_eq!(serde_json::from_str::<OutlierGuard>(&text).unwrap(), guard);
    }
}
