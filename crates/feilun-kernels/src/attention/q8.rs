//! The inner loops for 8-bit caches: integer dot products, exact in any order.
//!
//! Queries and probabilities have sixteen bits, as two digits to base 256 of which each is a row
//! of its own for the dot product instruction: a query is `256 * high + low` with signed digits,
//! a probability has unsigned ones. Keys are the unsigned factor of their product (they are
//! stored with an offset), probabilities that of theirs.

use super::CHUNK_TOKENS;
use super::tile::{RowState, Softmax, Tile, mask_edges, max_score};
use crate::kv::{BLOCK_TOKENS, HEAD_DIM_MAX};
use crate::vector::{LANES, Simd, exp2, load_partial};

/// Digits of a query or of a probability.
const DIGITS: usize = 2;
/// Largest query: both digits are 127.
const QUERY_MAX: f32 = (127 * 256 + 127) as f32;
/// Largest probability: both digits are 255.
const PROBABILITY_MAX: f32 = 65_535.0;
/// What the stored keys have added.
const KEY_OFFSET: i32 = 128;
/// Smaller maxima are taken for zero: their reciprocals are not floats.
const MAX_MIN: f32 = 1e-30;
/// Bytes of a vector of keys or values.
const VECTOR_BYTES: usize = 4 * LANES;
/// Bytes of the scales between keys and values.
const SCALE_BYTES: usize = 2 * 2 * BLOCK_TOKENS;

/// Packs the `row`-th query of a tile of `num_rows`: `[dim / 4][num_rows][2 digits][4]` bytes.
///
/// # Safety
/// `q` has `len` floats, and `out` has room for `2 * num_rows * dim` bytes with `len <= dim`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one kernel signature for all kinds")]
pub(super) unsafe fn pack_query<S: Simd>(
    simd: S,
    q: *const f32,
    len: usize,
    out: *mut u8,
    row: usize,
    num_rows: usize,
    dim: usize,
    scale: f32,
) -> RowState {
    // SAFETY: the caller's promise.
    let q = unsafe { std::slice::from_raw_parts(q, len) };
    let zero = simd.splat(0.0);
    let (mut max, mut poison) = (zero, zero);
    for chunk in q.chunks(LANES) {
        let value = load_partial(simd, chunk, 0.0);
        max = simd.max(simd.max(value, simd.sub(zero, value)), max);
        poison = simd.fma(value, zero, poison);
    }
    let max = simd.reduce_max(max);
    let (query_scale, inverse) = if simd.reduce_add(poison) != 0.0 {
        (f32::NAN, 0.0)
    } else if max < MAX_MIN {
        (0.0, 0.0)
    } else {
        (max / QUERY_MAX, QUERY_MAX / max)
    };
    let factor = simd.splat(inverse);
    let mut high = [0u8; HEAD_DIM_MAX];
    let mut low = [0u8; HEAD_DIM_MAX];
    let mut discarded = [0u8; LANES];
    let chunks = high.as_chunks_mut::<LANES>().0.iter_mut().zip(low.as_chunks_mut::<LANES>().0);
    for (chunk, (high, low)) in q.chunks(LANES).zip(chunks) {
        let value = simd.round(simd.mul(load_partial(simd, chunk, 0.0), factor));
        // The low digit is signed, so the high one is that of the value plus 128.
        let shifted = simd.to_int(simd.add(value, simd.splat(128.0)));
        // SAFETY: all three arrays have sixteen bytes.
        unsafe {
            simd.store_digits(high.as_mut_ptr(), discarded.as_mut_ptr(), shifted);
            simd.store_digits(discarded.as_mut_ptr(), low.as_mut_ptr(), simd.to_int(value));
        }
    }
    let mut sum = 0;
    for (high, low) in high[..dim].iter().zip(&low[..dim]) {
        sum += 256 * i32::from(*high as i8) + i32::from(*low as i8);
    }
    let fours = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
    for (d4, (high, low)) in fours.take(dim / 4).enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let to = out.add((d4 * num_rows + row) * DIGITS * 4).cast::<[u8; 4]>();
            to.write(*high);
            to.add(1).write(*low);
        }
    }
    let factor = query_scale * scale * std::f32::consts::LOG2_E;
    RowState { factor, bias: KEY_OFFSET * sum, ..RowState::default() }
}

/// The scores of all rows of the tile against all keys of its blocks.
///
/// # Safety
/// As [`Tile`] says, with `R` rows.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, const R: usize, const N: usize>(simd: S, tile: &Tile) {
    let mut block = tile.block_start;
    // SAFETY (all): blocks stay within those of the tile.
    while block + N <= tile.block_end {
        unsafe { block_scores::<S, R, N>(simd, tile, block) };
        block += N;
    }
    while block + 2 <= tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, R, 2>(simd, tile, block) };
        block += 2;
    }
    if block < tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, R, 1>(simd, tile, block) };
    }
}

#[inline(always)]
unsafe fn block_scores<S: Simd, const R: usize, const N: usize>(
    simd: S,
    tile: &Tile,
    block: usize,
) {
    // SAFETY: keys are the first `dim / 4` vectors of a head and their scales follow; the packed
    // query has `dim / 4 * R` pairs of digits; the scores of a row take `CHUNK_TOKENS`.
    unsafe {
        let mut keys = [std::ptr::null::<u8>(); N];
        for (n, key) in keys.iter_mut().enumerate() {
            *key = *tile.heads.add(block + n);
        }
        let mut query = tile.query;
        let mut acc = [[[simd.splat_i(0); N]; DIGITS]; R];
        for d4 in 0..tile.dim / 4 {
            let mut vectors = [simd.splat_i(0); N];
            for n in 0..N {
                vectors[n] = simd.load_i(keys[n].add(d4 * VECTOR_BYTES));
            }
            for row in &mut acc {
                for digit in row {
                    let q = simd.splat_bytes(query);
                    query = query.add(4);
                    for n in 0..N {
                        digit[n] = simd.dot4(digit[n], vectors[n], q);
                    }
                }
            }
        }
        for n in 0..N {
            let scale = simd.load_bf16(keys[n].add(tile.dim / 4 * VECTOR_BYTES).cast());
            for (r, acc) in acc.iter().enumerate() {
                let row = &*tile.rows.add(r);
                let sum = simd.join_digits(acc[0][n], acc[1][n], simd.splat_i(row.bias));
                let factor = simd.mul(scale, simd.splat(row.factor));
                let to = tile.scores.add(r * CHUNK_TOKENS + (block + n) * LANES);
                simd.store(to, simd.mul(simd.to_float(sum), factor));
            }
        }
    }
}

/// Turns the scores of row `r` into the digits of `p * scale(v)`, in all blocks of the tile (zero
/// where the row does not see), and notes maximum, sum and the digits' scale.
///
/// # Safety
/// As [`Tile`] says; the row sees a key.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(simd: S, tile: &Tile, r: usize, row: &mut RowState) {
    // SAFETY: blocks of the row lie in those of the tile.
    unsafe {
        let scores = tile.scores.add(r * CHUNK_TOKENS);
        let blocks = mask_edges(scores, row);
        let max = max_score(simd, scores, blocks.clone());
        let shift = simd.splat(max);
        let zero = simd.splat(0.0);
        let smallest = simd.splat(f32::MIN_POSITIVE);
        let (mut sum, mut weight_max) = (zero, zero);
        let scales_offset = tile.dim / 4 * VECTOR_BYTES + SCALE_BYTES / 2;
        for block in blocks.clone() {
            let at = scores.add(block * LANES);
            let p = exp2(simd, simd.sub(simd.load(at), shift));
            sum = simd.add(sum, p);
            let scale = simd.load_bf16((*tile.heads.add(block)).add(scales_offset).cast());
            // A token that the row does not see may have any scale.
            let weight = simd.zero_below(simd.mul(p, scale), p, smallest);
            weight_max = simd.max(weight_max, weight);
            simd.store(at, weight);
        }
        row.chunk = Softmax { max, sum: simd.reduce_add(sum) };
        let weight_max = simd.reduce_max(weight_max);
        let (value_factor, inverse) = if weight_max < MAX_MIN {
            (0.0, 0.0)
        } else {
            (weight_max / PROBABILITY_MAX, PROBABILITY_MAX / weight_max)
        };
        row.value_factor = value_factor;
        let inverse = simd.splat(inverse);
        let high = tile.digits.add(r * DIGITS * CHUNK_TOKENS);
        let low = high.add(CHUNK_TOKENS);
        clear_digits(high, tile.block_start..blocks.start);
        for block in blocks.clone() {
            let weight = simd.load(scores.add(block * LANES));
            let digits = simd.to_int(simd.mul(weight, inverse));
            simd.store_digits(high.add(block * LANES), low.add(block * LANES), digits);
        }
        clear_digits(high, blocks.end..tile.block_end);
    }
}

/// Makes sure that row `r` gets nothing of any block of the tile.
///
/// # Safety
/// As [`Tile`] says.
pub(super) unsafe fn hide(tile: &Tile, r: usize) {
    // SAFETY: the tile has digits for the row.
    unsafe {
        let high = tile.digits.add(r * DIGITS * CHUNK_TOKENS);
        clear_digits(high, tile.block_start..tile.block_end);
    }
}

/// Zeroes both digits of the keys of some blocks.
///
/// # Safety
/// `high` has the digits of a row.
unsafe fn clear_digits(high: *mut u8, blocks: std::ops::Range<usize>) {
    if blocks.is_empty() {
        return;
    }
    for digit in 0..DIGITS {
        // SAFETY: blocks lie in the chunk.
        unsafe {
            let start = high.add(digit * CHUNK_TOKENS + blocks.start * LANES);
            start.write_bytes(0, blocks.len() * LANES);
        }
    }
}

/// `acc = sum(p v)` for all rows.
///
/// # Safety
/// As [`Tile`] says, with `R` rows, after [`softmax`] of each row, or [`hide`] of those
/// that see no key.
#[inline(always)]
pub(super) unsafe fn values<S: Simd, const R: usize, const N: usize>(simd: S, tile: &Tile) {
    let mut d = 0;
    // SAFETY (all): d stays within the padded dimension.
    while d + N * LANES <= tile.dim {
        unsafe { sum_columns::<S, R, N>(simd, tile, d) };
        d += N * LANES;
    }
    while d < tile.dim {
        // SAFETY: as above.
        unsafe { sum_columns::<S, R, 1>(simd, tile, d) };
        d += LANES;
    }
}

#[inline(always)]
unsafe fn sum_columns<S: Simd, const R: usize, const N: usize>(simd: S, tile: &Tile, d: usize) {
    // SAFETY: values are `[4][dim][4]` bytes after keys and scales of a head.
    unsafe {
        let offset = tile.dim / 4 * VECTOR_BYTES + SCALE_BYTES + d * 4;
        let mut acc = [[[simd.splat_i(0); N]; DIGITS]; R];
        for block in tile.block_start..tile.block_end {
            let values = (*tile.heads.add(block)).add(offset);
            let digits = tile.digits.add(block * BLOCK_TOKENS);
            for quad in 0..BLOCK_TOKENS / 4 {
                let value = values.add(quad * tile.dim * 4);
                let mut vectors = [simd.splat_i(0); N];
                for n in 0..N {
                    vectors[n] = simd.load_i(value.add(n * VECTOR_BYTES));
                }
                for r in 0..R {
                    for digit in 0..DIGITS {
                        let row = (r * DIGITS + digit) * CHUNK_TOKENS;
                        let p = simd.splat_bytes(digits.add(row + quad * 4));
                        for n in 0..N {
                            acc[r][digit][n] = simd.dot4(acc[r][digit][n], p, vectors[n]);
                        }
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            let factor = simd.splat((*tile.rows.add(r)).value_factor);
            for n in 0..N {
                let sum = simd.join_digits(acc[0][n], acc[1][n], simd.splat_i(0));
                let to = tile.acc.add(r * tile.dim + d + n * LANES);
                simd.store(to, simd.mul(simd.to_float(sum), factor));
            }
        }
    }
}
