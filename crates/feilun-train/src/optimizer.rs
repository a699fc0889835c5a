//! Optimizers: gradients in, changed weights out.
//!
//! The state is flat, as values and gradients are; the arithmetic is
//! `feilun_kernels::optimizer`. What is decided here: which parameters are decayed, and which are
//! matrices to be updated as such.

use std::ops::Range;

use feilun_kernels::gemm::Precision;
use feilun_kernels::memory::{AlignedBytes, OutOfMemory};
use feilun_kernels::optimizer::{AdamW, Muon, MuonScratch, adamw_and_zero, muon, sum_of_squares};
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
    /// Muon for the matrices of layers, AdamW for embeddings, the head, norms and biases.
    Muon(MuonSettings),
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

/// The settings of Muon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuonSettings {
    /// The learning rate of matrices, over that of the rest: the run's learning rate is AdamW's.
    pub matrix_rate: f64,
    /// How much of the mean gradient is kept from step to step.
    pub momentum: f64,
    /// The share of a matrix's weight that a step at (its) learning rate 1 would take away.
    pub weight_decay: f64,
    /// For what is no matrix of a layer.
    pub rest: AdamWSettings,
}

impl Default for MuonSettings {
    /// Jordan's momentum, and his 0.02 for matrices where the rest learns at 0.001.
    fn default() -> MuonSettings {
        let rest = AdamWSettings::default();
        MuonSettings { matrix_rate: 20.0, momentum: 0.95, weight_decay: 0.0, rest }
    }
}

/// How a stretch of the flat vectors is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    AdamW { is_decayed: bool },
    Muon { shape: (usize, usize) },
}

/// A stretch of the flat vectors that is updated in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    range: Range<usize>,
    update: Update,
}

/// One step: what is the same for all stretches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateStep {
    /// The learning rate.
    pub learning_rate: f64,
    /// The gradient is taken times this.
    pub gradient_scale: f64,
    /// Counts the updates: 1 for the first.
    pub num_updates: u64,
}

/// Settings with their state.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    stretches: Vec<Stretch>,
    first_moments: AlignedBytes,
    /// Of matrices that Muon updates, all zero and never touched.
    second_moments: AlignedBytes,
    scratch: MuonScratch,
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
            stretches: stretches(&settings, parameters),
            first_moments: AlignedBytes::zeroed(bytes)?,
            second_moments: AlignedBytes::zeroed(bytes)?,
            scratch: MuonScratch::default(),
        })
    }

    /// Memory for so many parameters, beside values and gradients.
    pub fn state_bytes(num_parameters: usize) -> u64 {
        (2 * size_of::<f32>() * num_parameters) as u64
    }

    /// Applies one step, and sets the gradients to zero for the next.
    ///
    /// # Errors
    /// When there is no room for Muon's working memory; it is there after the first step.
    pub fn update(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        values: &mut [f32],
        gradients: &mut [f32],
        step: &UpdateStep,
    ) -> Result<(), OutOfMemory> {
        let (rest, matrices) = match &self.settings {
            OptimizerSettings::AdamW(settings) => (settings, None),
            OptimizerSettings::Muon(settings) => (&settings.rest, Some(settings)),
        };
        for stretch in &self.stretches {
            let range = stretch.range.clone();
            let values = &mut values[range.clone()];
            let gradients = &mut gradients[range.clone()];
            let m = &mut self.first_moments.as_f32_mut()[range.clone()];
            match (stretch.update, matrices) {
                (Update::Muon { shape }, Some(settings)) => {
                    let step = muon_step(settings, step);
                    let scratch = &mut self.scratch;
                    muon(pool, isa, values, shape, gradients, m, &step, scratch)?;
                    gradients.fill(0.0);
                }
                (update, _) => {
                    let is_decayed = update != Update::AdamW { is_decayed: false };
                    let v = &mut self.second_moments.as_f32_mut()[range];
                    let step = adamw_step(rest, is_decayed, step);
                    adamw_and_zero(pool, isa, values, gradients, m, v, &step);
                }
            }
        }
        Ok(())
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

fn adamw_step(settings: &AdamWSettings, is_decayed: bool, step: &UpdateStep) -> AdamW {
    AdamW {
        lr: step.learning_rate,
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.epsilon,
        weight_decay: if is_decayed { settings.weight_decay } else { 0.0 },
        step: step.num_updates,
        gradient_scale: step.gradient_scale,
    }
}

fn muon_step(settings: &MuonSettings, step: &UpdateStep) -> Muon {
    Muon {
        lr: settings.matrix_rate * step.learning_rate,
        momentum: settings.momentum,
        weight_decay: settings.weight_decay,
        gradient_scale: step.gradient_scale,
        precision: Precision::Bf16,
    }
}

/// Neighbours that are treated alike become one; a matrix stays one of its own.
fn stretches(settings: &OptimizerSettings, parameters: &[ParameterInfo]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for info in parameters {
        let update = match (settings, info.kind, &info.shape[..]) {
            (OptimizerSettings::Muon(_), ParameterKind::Matrix, &[rows, cols]) => {
                Update::Muon { shape: (rows, cols) }
            }
            _ => Update::AdamW { is_decayed: info.kind != ParameterKind::Vector },
        };
        match stretches.last_mut() {
            Some(last)
                if matches!(update, Update::AdamW { .. })
                    && last.update == update
                    && last.range.end == info.range.start =>
            {
                last.range.end = info.range.end;
            }
            _ => stretches.push(Stretch { range: info.range.clone(), update }),
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
        let expected = expected.map(|(range, is_decayed)| {
            let update = Update::AdamW { is_decayed };
            Stretch { range, update }
        });
        let settings = OptimizerSettings::AdamW(AdamWSettings::default());
        assert_eq!(stretches(&settings, &parameters()), expected);
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
            let mut gradients: Vec<f32> =
                (0..85).map(|i| ((i * num_updates) as f32 * 0.3).cos()).collect();
            let (rate, scale) = (0.01 * num_updates as f64, 0.5);
            let step = UpdateStep {
                learning_rate: rate,
                gradient_scale: scale,
                num_updates: num_updates as u64,
            };
            let given = gradients.clone();
            optimizer.update(&mut pool, Isa::Portable, &mut values, &mut gradients, &step).unwrap();
            assert!(gradients.iter().all(|&gradient| gradient == 0.0));
            for (i, [value, m, v]) in reference.iter_mut().enumerate() {
                let gradient = scale * f64::from(given[i]);
                *m = 0.8 * *m + 0.2 * gradient;
                *v = 0.9 * *v + 0.1 * gradient * gradient;
                let corrected = |x: f64, beta: f64| x / (1.0 - beta.powi(num_updates));
                let decay = if (73..78).contains(&i) { 0.0 } else { 0.1 };
                *value -= rate * decay * *value;
                *value -= rate * corrected(*m, 0.8) / (corrected(*v, 0.9).sqrt() + 1e-6);
            }
        }
        for (i, (found, [expected, ..])) in values.iter().zip(&reference).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{i}: {found}, {expected}");
        }
    }

    /// Two matrices of one row: orthogonal then means of length one, whatever the gradient.
    #[test]
    fn muon_moves_matrices_and_adamw_the_rest() {
        let info = |kind, shape: &[usize], range| ParameterInfo {
            name: String::new(),
            shape: shape.to_vec(),
            kind,
            range,
        };
        let parameters = [
            info(ParameterKind::Embedding, &[2, 4], 0..8),
            info(ParameterKind::Matrix, &[1, 8], 8..16),
            info(ParameterKind::Matrix, &[1, 8], 16..24),
            info(ParameterKind::Vector, &[8], 24..32),
        ];
        let rest = AdamWSettings { weight_decay: 0.0, ..AdamWSettings::default() };
        let settings = MuonSettings { matrix_rate: 10.0, rest, ..MuonSettings::default() };
        let settings = OptimizerSettings::Muon(settings);
        let updates = stretches(&settings, &parameters).into_iter().map(|s| s.update);
        let shape = (1, 8);
        let rest = |is_decayed| Update::AdamW { is_decayed };
        let expected = [rest(true), Update::Muon { shape }, Update::Muon { shape }, rest(false)];
        assert_eq!(updates.collect::<Vec<_>>(), expected);
        let mut optimizer = Optimizer::new(settings, &parameters).unwrap();
        let mut pool = Pool::new(1).unwrap();
        let mut values = [0.0; 32];
        let mut gradients: Vec<f32> = (0..32).map(|i| 0.1 + (i % 8) as f32).collect();
        let step = UpdateStep { learning_rate: 0.01, gradient_scale: 1.0, num_updates: 1 };
        optimizer.update(&mut pool, Isa::Portable, &mut values, &mut gradients, &step).unwrap();
        assert!(gradients.iter().all(|&gradient| gradient == 0.0));
        for i in (0..8).chain(24..32) {
            assert!((values[i] + 0.01).abs() < 1e-4, "AdamW's first step: {}", values[i]);
        }
        for matrix in [8..16, 16..24] {
            let length = values[matrix.clone()].iter().map(|x| x * x).sum::<f32>().sqrt();
            // Jordan's iteration ends between 0.7 and 1.2.
            assert!((0.065..0.125).contains(&length), "{length}");
            let ratio = values[matrix.end - 1] / values[matrix.start];
            assert!((ratio - 71.0).abs() < 2.0, "along the gradient: {ratio}");
        }
        let [_, (_, second)] = optimizer.state();
        assert!(second[8..24].iter().all(|&x| x == 0.0) && second[0] > 0.0);
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
