//! What the kernels of one tile share: its description, the softmax's ends, and the merging of
//! chunks. A tile is a few query rows that are multiplied with the same keys and values.

use super::CHUNK_TOKENS;
use crate::vector::{LANES, Simd, exp2};

/// Most rows in a tile, on any path.
pub(super) const TILE_ROWS_MAX: usize = 6;

/// One tile of rows against one chunk of keys. Key indices count from the start of the chunk.
///
/// Whoever makes one guarantees for `R` rows, with `dim` the padded dimension:
/// `query` is what `pack_query` wrote; `heads[b]` points to a whole head of a block for each `b`
/// in `block_start..block_end`, which lies in `0..CHUNK_BLOCKS`; `scores` has room for
/// `R * CHUNK_TOKENS` floats, `digits` for twice as many bytes, `acc` for `R * dim` floats.
pub(super) struct Tile {
    pub(super) query: *const u8,
    pub(super) rows: *const RowState,
    pub(super) heads: *const *const u8,
    pub(super) block_start: usize,
    pub(super) block_end: usize,
    pub(super) dim: usize,
    pub(super) scores: *mut f32,
    pub(super) digits: *mut u8,
    pub(super) acc: *mut f32,
}

/// What a row of a unit carries along.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowState {
    /// Makes a score to base 2 of a sum of products: `scale * log2(e)`, times the query's scale.
    pub(super) factor: f32,
    /// 8-bit kind: what the offset of the keys adds to each sum.
    pub(super) bias: i32,
    /// 8-bit kind: the scale of this chunk's probabilities.
    pub(super) value_factor: f32,
    /// The keys of the chunk that the row sees: `key_start..key_end`.
    pub(super) key_start: usize,
    pub(super) key_end: usize,
    /// Maximum and sum of the chunk.
    pub(super) chunk: Softmax,
    /// Maximum and sum of all chunks so far.
    pub(super) total: Softmax,
}

/// Maximum m of some scores and the sum of `2^(s - m)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Softmax {
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl Default for Softmax {
    /// That of no scores.
    fn default() -> Softmax {
        Softmax { max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

/// Sets the scores that the row does not see, in the blocks where it sees others, to minus
/// infinity, and returns these blocks.
///
/// # Safety
/// `scores` has room for a chunk, and the row sees at least one key of it.
#[inline(always)]
pub(super) unsafe fn mask_edges(scores: *mut f32, row: &RowState) -> std::ops::Range<usize> {
    let first = row.key_start / LANES;
    let end = row.key_end.div_ceil(LANES);
    debug_assert!(row.key_start < row.key_end && row.key_end <= CHUNK_TOKENS);
    for key in (first * LANES..row.key_start).chain(row.key_end..end * LANES) {
        // SAFETY: within the chunk, because it is a whole number of blocks.
        unsafe { scores.add(key).write(f32::NEG_INFINITY) };
    }
    first..end
}

/// The largest of the scores of `blocks`.
///
/// # Safety
/// `scores` has the blocks.
#[inline(always)]
pub(super) unsafe fn max_score<S: Simd>(
    simd: S,
    scores: *const f32,
    blocks: std::ops::Range<usize>,
) -> f32 {
    let mut max = simd.splat(f32::NEG_INFINITY);
    for block in blocks {
        // SAFETY: the caller's promise.
        max = simd.max(max, unsafe { simd.load(scores.add(block * LANES)) });
    }
    simd.reduce_max(max)
}

/// Adds a chunk to what came before: both sums are brought to the larger maximum.
///
/// # Safety
/// `state` and `acc` have room for `dim` floats, a multiple of 16.
#[inline(always)]
pub(super) unsafe fn merge<S: Simd>(
    simd: S,
    state: *mut f32,
    total: &mut Softmax,
    acc: *const f32,
    chunk: Softmax,
    dim: usize,
) {
    let maxima = simd.max(simd.splat(total.max), simd.splat(chunk.max));
    let old = exp2(simd, simd.sub(simd.splat(total.max), maxima));
    let new = exp2(simd, simd.sub(simd.splat(chunk.max), maxima));
    let sum = simd.fma(simd.splat(chunk.sum), new, simd.mul(simd.splat(total.sum), old));
    *total = Softmax { max: simd.reduce_max(maxima), sum: simd.reduce_max(sum) };
    for d in (0..dim).step_by(LANES) {
        // SAFETY: d + 16 <= dim.
        unsafe {
            let before = simd.mul(simd.load(state.add(d)), old);
            simd.store(state.add(d), simd.fma(simd.load(acc.add(d)), new, before));
        }
    }
}

/// `out = state / sum`, the padding left out.
///
/// # Safety
/// `state` has room for `len` floats rounded up to 16, `out` for `len`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    simd: S,
    state: *const f32,
    sum: f32,
    out: *mut f32,
    len: usize,
) {
    let sum = simd.splat(sum);
    let whole = len / LANES * LANES;
    // SAFETY: d + 16 <= len, and the rest goes through an array.
    unsafe {
        for d in (0..whole).step_by(LANES) {
            simd.store(out.add(d), simd.div(simd.load(state.add(d)), sum));
        }
        if whole < len {
            let mut lanes = [0.0; LANES];
            simd.store_array(&mut lanes, simd.div(simd.load(state.add(whole)), sum));
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), out.add(whole), len - whole);
        }
    }
}
