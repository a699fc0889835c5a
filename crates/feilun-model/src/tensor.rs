//! The tensors of a decoder by their role, and a view of one in a mapped file.

use feilun_kernels::BlockType;

/// Which tensor of the decoder, whatever a file format calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// `(vocab, hidden)`.
    TokenEmbedding,
    /// `(hidden)`.
    OutputNorm,
    /// `(vocab, hidden)`; absent where embeddings are tied.
    OutputHead,
    /// A tensor of layer `.0`.
    Layer(usize, LayerTensor),
}

/// A tensor of one layer. Matrices are `(rows = outputs, cols = inputs)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum LayerTensor {
    AttnNorm,
    AttnQ,
    AttnK,
    AttnV,
    AttnOutput,
    AttnQBias,
    AttnKBias,
    AttnVBias,
    AttnOutputBias,
    AttnQNorm,
    AttnKNorm,
    PostAttnNorm,
    MlpNorm,
    MlpGate,
    MlpUp,
    MlpDown,
    MlpGateBias,
    MlpUpBias,
    MlpDownBias,
    PostMlpNorm,
}

/// How the rows of a stored matrix must be reordered to the canonical (Hugging Face) order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Already canonical.
    Canonical,
    /// Each head's `head_dim` rows are interleaved pairs, as GGUF stores q and k of Llama:
    /// stored row `h * head_dim + 2 * i + j` is canonical row
    /// `h * head_dim + j * head_dim / 2 + i` (i < head_dim/2, j in 0..2).
    InterleavedPairs {
        /// Rows of one head.
        head_dim: usize,
    },
}

/// One tensor of a mapped model file, validated: `bytes.len()` is exactly
/// `rows * block_type.row_bytes(cols)`.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Its name in the file, for messages.
    pub name: &'a str,
    /// Storage of the weights.
    pub block_type: BlockType,
    /// Outputs; 1 for a vector.
    pub rows: usize,
    /// Inputs, contiguous in memory.
    pub cols: usize,
    /// The stored rows, one after another.
    pub bytes: &'a [u8],
    /// What to do to reach the canonical order.
    pub row_order: RowOrder,
    /// Added to every weight after loading: 1 for Gemma's norms in safetensors, else 0.
    pub offset: f32,
}
