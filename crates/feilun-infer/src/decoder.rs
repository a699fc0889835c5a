//! The model as the scheduler sees it.

use feilun_model::{BatchMode, ForwardError, Logits, ModelConfig, Segment, Session};

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

    /// Most rows of logits of one step; at least one.
    fn max_logit_rows(&self) -> usize;

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

/// Rows of logits, and the hidden states that they come from.
pub trait LogitsView {
    /// One row, as wide as the model's vocabulary.
    fn row(&self, index: usize) -> &[f32];

    /// How many there are.
    fn num_rows(&self) -> usize;

    /// Writes the final hidden state of a token, as wide as the model. Tokens are counted over
    /// all segments, whether or not their logits were wanted.
    fn hidden(&self, token: usize, hidden_h: &mut [f32]);
}

impl Decoder for Session {
    type Logits<'a> = Logits<'a>;

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn num_blocks(&self) -> usize {
        self.num_blocks()
    }

    fn max_rows(&self) -> usize {
        self.max_rows()
    }

    fn max_logit_rows(&self) -> usize {
        self.max_logit_rows()
    }

    fn forward(
        &mut self,
        segments: &[Segment<'_>],
        mode: BatchMode,
    ) -> Result<Logits<'_>, ForwardError> {
        self.forward(segments, mode)
    }
}

impl LogitsView for Logits<'_> {
    fn row(&self, index: usize) -> &[f32] {
        self.row(index)
    }

    fn num_rows(&self) -> usize {
        self.num_rows()
    }

    fn hidden(&self, token: usize, hidden_h: &mut [f32]) {
        self.hidden(token, hidden_h);
    }
}
