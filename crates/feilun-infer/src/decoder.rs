//! The model as the scheduler sees it.

use feilun_model::{BatchMode, ForwardError, ModelConfig, Segment};

/// A model with its KV cache: one call computes a step of many sequences.
pub trait Decoder {
    /// The result of a step.
    type Logits<'a>: LogitsView
    where
        Self: 'a;

    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// Blocks in its KV cache.
    fn num_blocks(&self) -> usize;

    /// Most tokens of one step, over all segments.
    fn max_rows(&self) -> usize;

    /// Computes the segments and returns the wanted rows of logits, in order of segments.
    ///
    /// # Errors
    /// If a segment is not acceptable; then nothing was computed.
    fn forward(
        &mut self,
        segments: &[Segment<'_>],
        mode: BatchMode,
    ) -> Result<Self::Logits<'_>, ForwardError>;
}

/// Rows of logits.
pub trait LogitsView {
    /// One row, as wide as the model's vocabulary.
    fn row(&self, index: usize) -> &[f32];

    /// How many there are.
    fn num_rows(&self) -> usize;
}
