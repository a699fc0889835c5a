//! The smallest model that learns something: log p(token | the one before it) is the softmax of a
//! row of a matrix plus a bias. Its gradient is the true one, checked by finite differences.

use feilun_kernels::{Isa, Pool};
use feilun_model::train::{ParameterInfo, ParameterKind};
use feilun_train::data::PackedRow;
use feilun_train::learner::{BoxError, Flat, Learner};
use feilun_train::objective::{Objective, StepTotals, Sums};

pub(crate) struct Bigram {
    num_tokens: usize,
    infos: Vec<ParameterInfo>,
    values: Vec<f32>,
    gradients: Vec<f32>,
    totals: StepTotals,
    pool: Pool,
}

impl Bigram {
    pub(crate) fn new(num_tokens: usize) -> Bigram {
        let len = num_tokens * num_tokens;
        let info = |name: &str, shape: Vec<usize>, kind, range| ParameterInfo {
            name: name.into(),
            shape,
            kind,
            range,
        };
        let infos = vec![
            info("table", vec![num_tokens, num_tokens], ParameterKind::Matrix, 0..len),
            info("bias", vec![num_tokens], ParameterKind::Vector, len..len + num_tokens),
        ];
        let start = |i: usize| (i as f32 * 0.7).sin() * 0.1;
        let values = (0..len + num_tokens).map(start).collect::<Vec<f32>>();
        let gradients = vec![0.0; values.len()];
        let (totals, pool) = (StepTotals::default(), Pool::new(1).unwrap());
        Bigram { num_tokens, infos, values, gradients, totals, pool }
    }

    /// log p of each token after `before`.
    fn log_probs(&self, before: u32) -> Vec<f32> {
        let start = before as usize * self.num_tokens;
        let bias = &self.values[self.num_tokens * self.num_tokens..];
        let table = &self.values[start..start + self.num_tokens];
        let scores: Vec<f32> = table.iter().zip(bias).map(|(a, b)| a + b).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|score| (score - max).exp()).sum();
        scores.iter().map(|score| score - max - sum.ln()).collect()
    }

    fn forward(&self, row: &PackedRow) -> Result<(Sums, Vec<f32>), BoxError> {
        let mut log_probs = vec![0.0; row.tokens.len()];
        for (_, range) in row.sequences() {
            for place in range.skip(1) {
                let next = self.log_probs(row.tokens[place - 1]);
                log_probs[place] = next[row.tokens[place] as usize];
            }
        }
        let mut coefficients = vec![0.0; row.tokens.len()];
        let totals = &self.totals;
        let sums = Objective::Tokens.evaluate(row, &log_probs, totals, &[], &mut coefficients)?;
        Ok((sums, coefficients))
    }
}

impl Learner for Bigram {
    fn parameters(&self) -> &[ParameterInfo] {
        &self.infos
    }

    fn values(&self) -> &[f32] {
        &self.values
    }

    fn flat_mut(&mut self) -> Flat<'_> {
        let Bigram { pool, values, gradients, .. } = self;
        Flat { pool, isa: Isa::Portable, values, gradients }
    }

    fn begin(&mut self, rows: &[PackedRow]) -> Result<(), BoxError> {
        self.totals = StepTotals::of(rows);
        Ok(())
    }

    /// d log p(token) / d score = (is it the token) − p.
    fn accumulate(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        let (sums, coefficients) = self.forward(row)?;
        let num_tokens = self.num_tokens;
        for (place, &coefficient) in coefficients.iter().enumerate() {
            if coefficient == 0.0 {
                continue;
            }
            let (before, token) = (row.tokens[place - 1], row.tokens[place] as usize);
            for (next, log_prob) in self.log_probs(before).into_iter().enumerate() {
                let is_it = if next == token { 1.0 } else { 0.0 };
                let gradient = coefficient * (is_it - log_prob.exp());
                self.gradients[before as usize * num_tokens + next] += gradient;
                self.gradients[num_tokens * num_tokens + next] += gradient;
            }
        }
        Ok(sums)
    }

    fn loss(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        Ok(self.forward(row)?.0)
    }

    fn other_bytes(&self) -> u64 {
        0
    }
}

#[test]
fn its_gradient_is_that_of_finite_differences() {
    use crate::chain::Chain;
    use feilun_train::learner::Batches as _;

    let rows = Chain::new(6, 2).rows(0).unwrap();
    let mut learner = Bigram::new(6);
    learner.begin(&rows).unwrap();
    rows.iter().for_each(|row| {
        learner.accumulate(row).unwrap();
    });
    let gradients = learner.gradients.clone();
    let mut loss = |index: usize, change: f32| {
        let value = learner.values[index];
        learner.values[index] = value + change;
        let sum: f64 = rows.iter().map(|row| learner.loss(row).unwrap().loss).sum();
        learner.values[index] = value;
        sum
    };
    let mut largest = 0.0_f64;
    for (index, &gradient) in gradients.iter().enumerate() {
        let expected = (loss(index, 0.01) - loss(index, -0.01)) / 0.02;
        assert!((f64::from(gradient) - expected).abs() < 1e-4, "{index}: {gradient}, {expected}");
        largest = largest.max(expected.abs());
    }
    assert!(largest > 0.01, "there is something to compare");
}
