//! Optimizers: gradients in, changed weights out.
//!
//! The state is flat, as values and gradients are. What is decided here: which parameters are
//! decayed; the arithmetic is in `plain`.

mod plain;

use std::ops::Range;

use self::plain::{AdamW, adamw, sum_of_squares};
use feilun_kernels::memory::{AlignedBytes, OutOfMemory};
use feilun_kernels::{Isa, Pool};
use feilun_model::train::{ParameterInfo, ParameterKind};
use serde::{Deserialize, Serialize};

/// Which optimizer, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimizerSettings {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW(AdamWSettings),
}

/// The settings of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWSettings {
    /// How much of the mean gradient is kept from step to step.
    pub beta1: f64,
    /// How much of the mean square is kept.
    pub beta2: f64,
    /// Keeps the divisor from zero.
    pub epsilon: f64,
    /// The share of the weight that a step at learning rate 1 would take away. Norms and biases
    /// are not decayed.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    /// As in the paper's reference implementation.
    fn default() -> AdamWSettings {
        AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// A stretch of the flat vectors that is updated in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    range: Range<usize>,
    is_decayed: bool,
}

/// Settings with their state.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    stretches: Vec<Stretch>,
    first_moments: AlignedBytes,
    second_moments: AlignedBytes,
}

impl Optimizer {
    /// With moments of zero.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn new(
        settings: OptimizerSettings,
        parameters: &[ParameterInfo],
    ) -> Result<Optimizer, OutOfMemory> {
        let len = parameters.last().map_or(0, |info| info.range.end);
        let bytes = len.saturating_mul(size_of::<f32>());
        Ok(Optimizer {
            settings,
            stretches: stretches(parameters),
            first_moments: AlignedBytes::zeroed(bytes)?,
            second_moments: AlignedBytes::zeroed(bytes)?,
        })
    }

    /// Memory for so many parameters, beside values and gradients.
    pub fn state_bytes(num_parameters: usize) -> u64 {
        (2 * size_of::<f32>() * num_parameters) as u64
    }

    /// Applies one step. `num_updates` counts it: 1 for the first. The gradient is taken times
    /// `gradient_scale`.
    #[expect(clippy::too_many_arguments, reason = "a step is all of these")]
    pub fn update(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        values: &mut [f32],
        gradients: &[f32],
        learning_rate: f64,
        gradient_scale: f64,
        num_updates: u64,
    ) {
        let OptimizerSettings::AdamW(settings) = self.settings;
        for stretch in &self.stretches {
            let range = stretch.range.clone();
            let weight_decay = if stretch.is_decayed { settings.weight_decay } else { 0.0 };
            let step = AdamW {
                lr: learning_rate as f32,
                beta1: settings.beta1 as f32,
                beta2: settings.beta2 as f32,
                eps: settings.epsilon as f32,
                weight_decay: weight_decay as f32,
                step: num_updates,
                gradient_scale: gradient_scale as f32,
            };
            adamw(
                pool,
                isa,
                &mut values[range.clone()],
                &gradients[range.clone()],
                &mut self.first_moments.as_f32_mut()[range.clone()],
                &mut self.second_moments.as_f32_mut()[range],
                &step,
            );
        }
    }

    /// The state, under the names that it has in a checkpoint.
    pub fn state(&self) -> [(&'static str, &[f32]); 2] {
        [
            ("first_moments.safetensors", self.first_moments.as_f32()),
            ("second_moments.safetensors", self.second_moments.as_f32()),
        ]
    }

    /// The same, to be overwritten from a checkpoint.
    pub fn state_mut(&mut self) -> [(&'static str, &mut [f32]); 2] {
        [
            ("first_moments.safetensors", self.first_moments.as_f32_mut()),
            ("second_moments.safetensors", self.second_moments.as_f32_mut()),
        ]
    }
}

/// The length of the gradient as a vector: the square root of the sum of squares.
pub fn gradient_norm(pool: &mut Pool, isa: Isa, gradients: &[f32]) -> f64 {
    sum_of_squares(pool, isa, gradients).sqrt()
}

/// The factor that shortens a gradient to `clip_norm`, if it is longer; 0 is no limit.
pub fn clip_scale(gradient_norm: f64, clip_norm: f64) -> f64 {
    if clip_norm > 0.0 && gradient_norm > clip_norm { clip_norm / gradient_norm } else { 1.0 }
}

/// Neighbours that are treated alike become one.
fn stretches(parameters: &[ParameterInfo]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for info in parameters {
        let is_decayed = info.kind != ParameterKind::Vector;
        match stretches.last_mut() {
            Some(last) if last.is_decayed == is_decayed && last.range.end == info.range.start => {
                last.range.end = info.range.end;
            }
            _ => stretches.push(Stretch { range: info.range.clone(), is_decayed }),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Vec<ParameterInfo> {
        let mut start = 0;
        let kinds = [
            (ParameterKind::Embedding, 40),
            (ParameterKind::Matrix, 33),
            (ParameterKind::Vector, 5),
            (ParameterKind::Matrix, 7),
        ];
        let info = |(kind, len)| {
            start += len;
            ParameterInfo {
                name: format!("p{start}"),
                shape: vec![len],
                kind,
                range: start - len..start,
            }
        };
        kinds.map(info).to_vec()
    }

    #[test]
    fn vectors_are_not_decayed_and_neighbours_are_one() {
        let expected = [(0..73, true), (73..78, false), (78..85, true)];
        let expected = expected.map(|(range, is_decayed)| Stretch { range, is_decayed });
        assert_eq!(stretches(&parameters()), expected);
    }

    /// The formulas of the paper, in f64 and without care for speed.
    #[test]
    fn updates_are_those_of_the_paper() {
        let settings = AdamWSettings { beta1: 0.8, beta2: 0.9, epsilon: 1e-6, weight_decay: 0.1 };
        let parameters = parameters();
        let mut optimizer =
            Optimizer::new(OptimizerSettings::AdamW(settings), &parameters).unwrap();
        let mut pool = Pool::new(2).unwrap();
        let start = |i: usize| (i as f64 * 0.7).sin();
        let mut values: Vec<f32> = (0..85).map(|i| start(i) as f32).collect();
        let mut reference: Vec<[f64; 3]> = (0..85).map(|i| [start(i), 0.0, 0.0]).collect();
        for num_updates in 1..=5 {
            let gradients: Vec<f32> =
                (0..85).map(|i| ((i * num_updates) as f32 * 0.3).cos()).collect();
            let (rate, scale) = (0.01 * num_updates as f64, 0.5);
            optimizer.update(
                &mut pool,
                Isa::Portable,
                &mut values,
                &gradients,
                rate,
                scale,
                num_updates as u64,
            );
            for (i, [value, m, v]) in reference.iter_mut().enumerate() {
                let gradient = scale * f64::from(gradients[i]);
                *m = 0.8 * *m + 0.2 * gradient;
                *v = 0.9 * *v + 0.1 * gradient * gradient;
                let corrected = |x: f64, beta: f64| x / (1.0 - beta.powi(num_updates as i32));
                let decay = if (73..78).contains(&i) { 0.0 } else { 0.1 };
                *value -= rate * decay * *value;
                *value -= rate * corrected(*m, 0.8) / (corrected(*v, 0.9).sqrt() + 1e-6);
            }
        }
        for (i, (found, [expected, ..])) in values.iter().zip(&reference).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{i}: {found}, {expected}");
        }
    }

    #[test]
    fn long_gradients_are_shortened() {
        let mut pool = Pool::new(1).unwrap();
        let norm = gradient_norm(&mut pool, Isa::Portable, &[3.0, 0.0, -4.0]);
        assert!((norm - 5.0).abs() < 1e-6);
        assert_eq!(clip_scale(5.0, 1.0), 0.2);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(5.0, 0.0), 1.0);
    }
}
