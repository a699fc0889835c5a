//! The output head and the loss: log-probabilities of the tokens, and their gradient, a few
//! rows at a time, so that logits are never `tokens x vocabulary` in memory. Rows whose
//! log-probability nobody asks for are left out.

use std::ops::Range;

use feilun_kernels::backward::{self, cross_entropy, token_logprob};
use feilun_kernels::gemm::Write;
use feilun_kernels::memory::OutOfMemory;

use super::Coefficients;
use super::linear::{Step, rows};
use super::parameters::Parameter;
use super::workspace::Buffer;
use crate::{ModelConfig, TensorRole};

/// Most memory of logits. Fewer rows at a time read and write the gradient of the head more
/// often.
const LOGIT_BYTES: usize = 256 << 20;
/// The same for a frozen head, which is only read, and small in its packed form.
const FROZEN_LOGIT_BYTES: usize = 24 << 20;
/// Fewer rows of a frozen head at a time unpack it too often.
const FROZEN_MIN_ROWS: usize = 128;
/// Rows beyond which a chunk gains nothing.
const MAX_ROWS: usize = 256;

#[derive(Debug)]
pub(super) struct Head {
    chunk_rows: usize,
    logits: Buffer,
    x: Buffer,
    d_x: Buffer,
    normed: Buffer,
    d_normed: Buffer,
    /// Rows of the batch that predict a token somebody asks for.
    wanted: Vec<Wanted>,
    coefficients: Vec<f32>,
}

/// Row `row` predicts `target`, the token behind it.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    row: usize,
    target: usize,
}

/// The residual stream behind the last layer, and its gradient.
pub(super) struct Stream<'a> {
    pub(super) x_th: &'a [f32],
    pub(super) d_x_th: &'a mut [f32],
}

impl Head {
    pub(super) fn new(
        config: &ModelConfig,
        max_tokens: usize,
        is_frozen: bool,
    ) -> Result<Head, OutOfMemory> {
        let (bytes, min_rows) =
            if is_frozen { (FROZEN_LOGIT_BYTES, FROZEN_MIN_ROWS) } else { (LOGIT_BYTES, 16) };
        let fitting = bytes / (4 * config.vocab_size.max(1));
        let chunk_rows = fitting.clamp(min_rows, MAX_ROWS).min(max_tokens.max(1));
        let hidden = chunk_rows * config.hidden_size;
        Ok(Head {
            chunk_rows,
            logits: Buffer::new(chunk_rows * config.vocab_size)?,
            x: Buffer::new(hidden)?,
            d_x: Buffer::new(hidden)?,
            normed: Buffer::new(hidden)?,
            d_normed: Buffer::new(hidden)?,
            wanted: Vec::with_capacity(max_tokens),
            coefficients: Vec::with_capacity(max_tokens),
        })
    }

    /// Memory of all buffers.
    pub(super) fn bytes(&self) -> usize {
        let buffers = [&self.logits, &self.x, &self.d_x, &self.normed, &self.d_normed];
        buffers.into_iter().map(Buffer::bytes).sum()
    }

    /// Writes the log-probabilities of the wanted tokens (0 for the others) and the gradient
    /// of `x`, and adds those of the head and of the last norm.
    pub(super) fn loss(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        targets: impl Iterator<Item = Option<u32>>,
        coefficients: Coefficients<'_>,
        stream: Stream<'_>,
        logprobs: &mut [f32],
    ) {
        let Stream { x_th, d_x_th } = stream;
        self.wanted.clear();
        for (row, target) in targets.enumerate() {
            let Some(target) = target.map(|target| target as usize) else { continue };
            let is_wanted = match &coefficients {
                Coefficients::Known { values, .. } => values[row + 1] != 0.0,
                Coefficients::Of { learn, .. } => learn[row + 1],
            };
            if is_wanted {
                self.wanted.push(Wanted { row, target });
            }
        }
        logprobs.fill(0.0);
        d_x_th.fill(0.0);
        self.coefficients.clear();
        self.coefficients.resize(x_th.len() / config.hidden_size, 0.0);
        let label_smoothing = match coefficients {
            Coefficients::Known { values, label_smoothing } => {
                self.coefficients.copy_from_slice(values);
                label_smoothing
            }
            Coefficients::Of { of, .. } => {
                for range in self.chunks() {
                    self.forward(step, config, x_th, range.clone());
                    self.logprobs(step, config, range, logprobs);
                }
                of(logprobs, &mut self.coefficients);
                0.0
            }
        };
        for range in self.chunks() {
            self.forward(step, config, x_th, range.clone());
            self.backward(step, config, label_smoothing, range.clone(), logprobs);
            self.input_backward(step, config, range, d_x_th);
        }
    }

    /// Only the log-probabilities, of every token that a token predicts, or of the marked ones.
    pub(super) fn score(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        targets: impl Iterator<Item = Option<u32>>,
        learn: Option<&[bool]>,
        x_th: &[f32],
        logprobs: &mut [f32],
    ) {
        self.wanted.clear();
        self.wanted.extend(
            targets
                .enumerate()
                .filter_map(|(row, target)| Some(Wanted { row, target: target? as usize }))
                .filter(|wanted| learn.is_none_or(|learn| learn[wanted.row + 1])),
        );
        logprobs.fill(0.0);
        for range in self.chunks() {
            self.forward(step, config, x_th, range.clone());
            self.logprobs(step, config, range, logprobs);
        }
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, chunk_rows) = (self.wanted.len(), self.chunk_rows);
        (0..len).step_by(chunk_rows).map(move |start| start..len.min(start + chunk_rows))
    }

    /// The logits of a chunk.
    fn forward(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        x_th: &[f32],
        range: Range<usize>,
    ) {
        let hidden = config.hidden_size;
        let x = self.x.first_mut(range.len() * hidden);
        for (x, wanted) in x.chunks_exact_mut(hidden).zip(&self.wanted[range.clone()]) {
            x.copy_from_slice(&x_th[wanted.row * hidden..][..hidden]);
        }
        let normed = self.normed.first_mut(x.len());
        step.norm(TensorRole::OutputNorm, config.norm_eps, x, normed);
        let Some(weights) = step.weights.matrix(role(config)) else { return };
        let logits = self.logits.first_mut(range.len() * config.vocab_size);
        let weights = weights.transposed();
        step.compute.multiply(rows(normed, hidden), weights, logits, Write::Store);
    }

    fn logprobs(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        range: Range<usize>,
        logprobs: &mut [f32],
    ) {
        let (isa, vocab_size) = (step.compute.isa, config.vocab_size);
        let logits = self.logits.first(range.len() * vocab_size);
        let wanted = &self.wanted[range];
        let mut found = [0.0; MAX_ROWS];
        let found = &mut found[..wanted.len()];
        let head = backward::Head { softcap: config.logit_softcap, label_smoothing: 0.0 };
        step.compute.pool.for_each_chunk(found, 1, 1, |index, found| {
            let logits = &logits[index * vocab_size..][..vocab_size];
            found[0] = token_logprob(isa, logits, wanted[index].target, &head);
        });
        for (wanted, found) in wanted.iter().zip(found) {
            logprobs[wanted.row + 1] = *found;
        }
    }

    /// Turns the logits of a chunk into their gradient; writes the log-probabilities.
    fn backward(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        label_smoothing: f32,
        range: Range<usize>,
        logprobs: &mut [f32],
    ) {
        let (isa, vocab_size) = (step.compute.isa, config.vocab_size);
        let logits = self.logits.first_mut(range.len() * vocab_size);
        let wanted = &self.wanted[range];
        let coefficients = &self.coefficients;
        let mut found = [0.0; MAX_ROWS];
        let found = &mut found[..wanted.len()];
        let head = backward::Head { softcap: config.logit_softcap, label_smoothing };
        let logits = (logits, vocab_size);
        let pool = &mut step.compute.pool;
        pool.for_each_chunk_pair(logits, (&mut *found, 1), 1, |index, logits, found| {
            let Wanted { row, target } = wanted[index];
            let coefficient = coefficients[row + 1];
            found[0] = cross_entropy(isa, logits, target, coefficient, &head);
        });
        for (wanted, found) in wanted.iter().zip(found) {
            logprobs[wanted.row + 1] = *found;
        }
    }

    /// From the gradient of a chunk's logits to those of the head and of `x`.
    fn input_backward(
        &mut self,
        step: &mut Step<'_>,
        config: &ModelConfig,
        range: Range<usize>,
        d_x_th: &mut [f32],
    ) {
        let hidden = config.hidden_size;
        let len = range.len() * hidden;
        let (x, normed) = (self.x.first(len), self.normed.first(len));
        let (d_x, d_normed) = (self.d_x.first_mut(len), self.d_normed.first_mut(len));
        let d_logits = rows(self.logits.first(range.len() * config.vocab_size), config.vocab_size);
        let Some(weights) = step.weights.matrix(role(config)) else { return };
        step.compute.multiply(d_logits, weights, d_normed, Write::Store);
        if let Some(place) = step.weights.table.range(Parameter::Base(role(config))) {
            let d_weights = &mut step.gradients[place];
            let normed = rows(normed, hidden);
            step.compute.multiply(d_logits.transposed(), normed, d_weights, Write::Add);
        }
        d_x.fill(0.0);
        step.norm_backward(TensorRole::OutputNorm, config.norm_eps, x, d_normed, d_x);
        for (d_x, wanted) in d_x.chunks_exact(hidden).zip(&self.wanted[range]) {
            d_x_th[wanted.row * hidden..][..hidden].copy_from_slice(d_x);
        }
    }
}

/// The matrix that makes logits.
fn role(config: &ModelConfig) -> TensorRole {
    if config.tied_embeddings { TensorRole::TokenEmbedding } else { TensorRole::OutputHead }
}
