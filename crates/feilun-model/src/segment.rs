//! What one forward step is asked to do: a few tokens of each of several sequences.

use crate::lora::Adapter;

/// Tokens in one block of the paged KV cache, and the unit of prefix sharing.
pub const KV_BLOCK_TOKENS: usize = 16;

/// A block of the paged KV cache. It holds [`KV_BLOCK_TOKENS`] positions of one sequence in
/// every layer, and may be shared by sequences that begin alike once it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// For which tokens of a segment the logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// For none: a chunk of a prompt that is not its last.
    None,
    /// For the last token: the usual step.
    Last,
    /// For each token: scoring.
    All,
}

/// Consecutive new tokens of one sequence: a prompt chunk, or the one token of a decode step.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The new tokens, at positions `start..start + tokens.len()`; at least one.
    pub tokens: &'a [u32],
    /// Position of the first token: so many positions are in the cache already.
    pub start: usize,
    /// The sequence's blocks in order; they cover at least `start + tokens.len()` positions.
    /// Block `i` holds positions `16 i .. 16 i + 16`. The blocks that this step writes to (from
    /// position `start` on) belong to this segment alone.
    pub blocks: &'a [BlockId],
    /// Which rows of logits to compute.
    pub logits: LogitRows,
    /// A LoRA adapter to apply, unmerged.
    pub adapter: Option<&'a Adapter>,
}

/// Whether a result may depend on how many rows are computed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchMode {
    /// The fastest kernel for the number of rows.
    #[default]
    Fast,
    /// One kernel semantics for every number of rows: bit-identical alone, batched or chunked.
    Exact,
}

/// Why a step could not be computed. The cache and the model are unharmed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A token id outside the vocabulary.
    #[error("token id {token} is not in the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id found.
        token: u32,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// More rows than the session was planned for.
    #[error("{found} tokens in one step, at most {max} were planned for")]
    TooManyRows {
        /// Tokens in all segments.
        found: usize,
        /// Planned maximum.
        max: usize,
    },
    /// More rows of logits than the session was planned for.
    #[error("{found} rows of logits in one step, at most {max} were planned for")]
    TooManyLogitRows {
        /// Rows wanted by all segments.
        found: usize,
        /// Planned maximum.
        max: usize,
    },
    /// A segment without tokens.
    #[error("segment {segment} has no tokens")]
    EmptySegment {
        /// Index of the segment.
        segment: usize,
    },
    /// The block table does not cover the positions, or names a block that does not exist.
    #[error("segment {segment}: its {blocks} blocks do not cover {positions} positions")]
    BlocksTooFew {
        /// Index of the segment.
        segment: usize,
        /// Blocks given.
        blocks: usize,
        /// Positions needed.
        positions: usize,
    },
    /// A block id outside the cache.
    #[error("block {block} is not in the cache of {num_blocks} blocks")]
    BlockOutOfRange {
        /// The id found.
        block: u32,
        /// Ids must be below this.
        num_blocks: usize,
    },
    /// Two segments would write to the same block.
    #[error("block {block} is written by two segments of one step")]
    BlockShared {
        /// The id found twice.
        block: u32,
    },
    /// An adapter made for a model of another shape.
    #[error("adapter does not fit this model: {reason}")]
    AdapterMismatch {
        /// What differs.
        reason: String,
    },
}
