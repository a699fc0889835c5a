//! One batch on its way through the model: forward through all layers, the head, and back.

use feilun_kernels::activation;
use feilun_kernels::memory::OutOfMemory;

use super::Coefficients;
use super::attention_block::Layer;
use super::batch::Batch;
use super::head::{Head, Stream};
use super::linear::Step;
use super::parameters::Parameter;
use super::workspace::Workspace;
use crate::rope_tables::RopeTables;
use crate::{ModelConfig, TensorRole};

/// Everything that a batch needs, borrowed from the trainee.
pub(super) struct Pass<'t> {
    pub(super) config: &'t ModelConfig,
    pub(super) batch: Batch<'t>,
    pub(super) step: Step<'t>,
    pub(super) space: &'t mut Workspace,
    pub(super) head: &'t mut Head,
    pub(super) ropes: &'t RopeTables,
    pub(super) positions: &'t [usize],
    pub(super) logprobs: &'t mut [f32],
}

impl<'t> Pass<'t> {
    fn layer(&self, index: usize) -> Layer<'t> {
        Layer {
            config: self.config,
            index,
            rope: self.ropes.of_layer(index),
            positions: self.positions,
            documents: self.batch.documents,
        }
    }

    /// From the tokens to the residual stream behind the last layer.
    pub(super) fn forward(&mut self) -> Result<(), OutOfMemory> {
        let (tokens, hidden) = (self.batch.tokens, self.config.hidden_size);
        let (scale, isa) = (self.config.embedding_scale, self.step.compute.isa);
        let weights = self.step.weights;
        let x_th = self.space.x_th.first_mut(tokens.len() * hidden);
        self.step.compute.rows(x_th, hidden, |row, x_h| {
            weights.embedding(tokens[row], x_h);
            if scale != 1.0 {
                activation::scale(isa, x_h, scale);
            }
        });
        for index in 0..self.config.layers.len() {
            let layer = self.layer(index);
            layer.attention_forward(&mut self.step, self.space)?;
            layer.mlp_forward(&mut self.step, self.space);
        }
        Ok(())
    }

    /// The log-probabilities of the tokens that are marked, or of all.
    pub(super) fn score(&mut self, learn: Option<&[bool]>) {
        let x_th = self.space.x_th.first(self.batch.tokens.len() * self.config.hidden_size);
        let targets = self.batch.targets();
        self.head.score(&mut self.step, self.config, targets, learn, x_th, self.logprobs);
    }

    /// The log-probabilities, and the gradients of everything.
    pub(super) fn backward(&mut self, coefficients: Coefficients<'_>) -> Result<(), OutOfMemory> {
        let len = self.batch.tokens.len() * self.config.hidden_size;
        let Workspace { x_th, d_x_th, .. } = &mut *self.space;
        let stream = Stream { x_th: x_th.first(len), d_x_th: d_x_th.first_mut(len) };
        let targets = self.batch.targets();
        let (step, config) = (&mut self.step, self.config);
        self.head.loss(step, config, targets, coefficients, stream, self.logprobs);
        for index in (0..self.config.layers.len()).rev() {
            let layer = self.layer(index);
            layer.mlp_backward(&mut self.step, self.space);
            layer.attention_backward(&mut self.step, self.space)?;
        }
        self.embedding_backward(len);
        Ok(())
    }

    /// Adds each token's gradient to its row of the embedding, in the order of the tokens.
    fn embedding_backward(&mut self, len: usize) {
        let role = Parameter::Base(TensorRole::TokenEmbedding);
        let Some(range) = self.step.weights.table.range(role) else { return };
        let (hidden, scale) = (self.config.hidden_size, self.config.embedding_scale);
        let d_table = &mut self.step.gradients[range];
        let d_x_th = self.space.d_x_th.first(len).chunks_exact(hidden);
        for (&token, d_x_h) in self.batch.tokens.iter().zip(d_x_th) {
            let d_row = &mut d_table[token as usize * hidden..][..hidden];
            d_row.iter_mut().zip(d_x_h).for_each(|(sum, d_x)| *sum += scale * d_x);
        }
    }
}
