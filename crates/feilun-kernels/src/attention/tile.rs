//! What the kernels of one tile share: its description, the softmax's ends, and the merging of
//! chunks. A tile is a few query rows that are multiplied with the same keys and values.

use super::{CHUNK_BLOCKS, CHUNK_TOKENS};
use crate::vector::{LANES, Simd, exp2};

/// Most rows in a tile, on any path.
pub(super) const TILE_ROWS_MAX: usize = 6;

/// One tile of rows against one chunk of keys. Key indices count from the start of the chunk.
///
/// Whoever makes one guarantees for `R` rows, with `dim` the padded dimension:
/// `query` is what `pack_query` wrote; `heads[b]` points to a whole head of a block for each `b`
/// in `block_start..block_end`, which lies in `0..CHUNK_BLOCKS`, and `next_heads` is as long; `scores` has room for
/// `R * CHUNK_TOKENS` floats, `digits` for twice as many bytes, `acc` for `R * dim` floats.
pub(super) struct Tile {
    pub(super) query: *const u8,
    pub(super) rows: *const RowState,
    pub(super) heads: *const *const u8,
    /// The same for what is needed after this chunk, to be prefetched: any addresses.
    pub(super) next_heads: *const *const u8,
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
    /// 8-bit kind: minus what the offset of the keys adds to each sum.
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

impl RowState {
    /// The blocks of the chunk of which the row sees a key; an empty range at the end of the
    /// chunk where it sees none.
    #[inline(always)]
    pub(super) fn blocks(&self) -> std::ops::Range<usize> {
        if self.key_start < self.key_end {
            self.key_start / LANES..self.key_end.div_ceil(LANES)
        } else {
            CHUNK_BLOCKS..CHUNK_BLOCKS
        }
    }
}

/// Notes each row's largest score, after setting those that it does not see, in the blocks
/// where it sees others, to minus infinity.
///
/// # Safety
/// As [`Tile`] says, for `rows`, with their scores.
#[inline(always)]
pub(super) unsafe fn chunk_maxima<S: Simd>(simd: S, tile: &Tile, rows: &mut [RowState]) {
    for (r, row) in rows.iter_mut().enumerate() {
        let blocks = row.blocks();
        // SAFETY: a row has the scores of a chunk, and its blocks lie in the chunk.
        unsafe {
            let scores = tile.scores.add(r * CHUNK_TOKENS);
            if !blocks.is_empty() {
                for key in blocks.start * LANES..row.key_start {
                    scores.add(key).write(f32::NEG_INFINITY);
                }
                for key in row.key_end..blocks.end * LANES {
                    scores.add(key).write(f32::NEG_INFINITY);
                }
            }
            let mut max = simd.splat(f32::NEG_INFINITY);
            for block in blocks {
                max = simd.max(max, simd.load(scores.add(block * LANES)));
            }
            row.chunk = Softmax { max: simd.reduce_max(max), sum: 0.0 };
        }
    }
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
    let factor = simd.splat(1.0 / sum);
    let whole = len / LANES * LANES;
    // SAFETY: d + 16 <= len, and the rest goes through an array.
    unsafe {
        for d in (0..whole).step_by(LANES) {
            simd.store(out.add(d), simd.mul(simd.load(state.add(d)), factor));
        }
        if whole < len {
            let mut lanes = [0.0; LANES];
            simd.store_array(&mut lanes, simd.mul(simd.load(state.add(whole)), factor));
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), out.add(whole), len - whole);
        }
    }
}
