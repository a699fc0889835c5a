//! The inner loops for 8-bit caches: integer dot products, exact in any order.
//!
//! Queries and probabilities have sixteen bits, as two digits to base 256 of which each is a row
//! of its own for the dot product instruction: a query is `256 * high + low` with signed digits,
//! a probability has unsigned ones. Keys are the unsigned factor of their product (they are
//! stored with an offset), probabilities that of theirs.

#![expect(
    clippy::needless_range_loop,
    reason = "tiles of registers are indexed by row, digit and vector, as in the mathematics"
)]

use super::CHUNK_TOKENS;
use super::tile::{RowState, Tile, chunk_maxima};
use crate::kv::BLOCK_TOKENS;
use crate::vector::{LANES, Simd, exp2, load_chunk};

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
    let num_vectors = dim / LANES;
    let zero = simd.splat(0.0);
    let (mut max, mut poison) = (zero, zero);
    for index in 0..num_vectors {
        let value = load_chunk(simd, q, index);
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
    let step = num_rows * DIGITS * 4;
    let mut sum = simd.splat_i(0);
    for index in 0..num_vectors {
        let value = simd.to_int(simd.mul(load_chunk(simd, q, index), factor));
        sum = simd.add_i(sum, value);
        // SAFETY: the caller's promise: four steps of each vector.
        unsafe {
            let to = out.add(index * 4 * step + row * DIGITS * 4);
            simd.store_signed_digits(to, step, value);
        }
    }
    let bias = -KEY_OFFSET * simd.reduce_add_i(sum);
    let factor = query_scale * scale * std::f32::consts::LOG2_E;
    RowState { factor, bias, ..RowState::default() }
}

/// The scores of all rows of the tile against all keys of its blocks.
///
/// # Safety
/// As [`Tile`] says, with `R` rows.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
) {
    let mut block = tile.block_start;
    while block + N <= tile.block_end {
        // SAFETY: blocks stay within those of the tile.
        unsafe { block_scores::<S, R, N, STREAM>(simd, tile, block) };
        block += N;
    }
    while block + 2 <= tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, R, 2, STREAM>(simd, tile, block) };
        block += 2;
    }
    if block < tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, R, 1, STREAM>(simd, tile, block) };
    }
}

#[inline(always)]
unsafe fn block_scores<S: Simd, const R: usize, const N: usize, const STREAM: bool>(
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
        let values_offset = tile.dim / 4 * VECTOR_BYTES + SCALE_BYTES;
        let mut query = tile.query;
        let mut acc = [[[simd.splat_i(0); N]; DIGITS]; R];
        for (r, acc) in acc.iter_mut().enumerate() {
            acc[1] = [simd.splat_i((*tile.rows.add(r)).bias); N];
        }
        for d4 in 0..tile.dim / 4 {
            let mut vectors = [simd.splat_i(0); N];
            for n in 0..N {
                let key = keys[n].add(d4 * VECTOR_BYTES);
                vectors[n] = simd.load_i(key);
                if STREAM {
                    // There are as many lines of values, which come next.
                    simd.prefetch(key.wrapping_add(values_offset));
                }
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
                let sum = simd.join_digits(acc[0][n], acc[1][n]);
                let factor = simd.mul(scale, simd.splat(row.factor));
                let to = tile.scores.add(r * CHUNK_TOKENS + (block + n) * LANES);
                simd.store(to, simd.mul(simd.to_float(sum), factor));
            }
        }
    }
}

/// Turns the scores of each row into the digits of `p * scale(v)`, in all blocks of the tile (zero
/// where the row does not see), and notes maximum, sum and the digits' scale.
///
/// Three passes, each over all rows: what a row waits for at the end of a pass is hidden by
/// the others.
///
/// # Safety
/// As [`Tile`] says, for `rows`.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(simd: S, tile: &Tile, rows: &mut [RowState]) {
    let zero = simd.splat(0.0);
    let smallest = simd.splat(f32::MIN_POSITIVE);
    let scales_offset = tile.dim / 4 * VECTOR_BYTES + SCALE_BYTES / 2;
    // SAFETY: blocks of a row lie in those of the tile.
    unsafe {
        chunk_maxima(simd, tile, rows);
        for (r, row) in rows.iter_mut().enumerate() {
            let scores = tile.scores.add(r * CHUNK_TOKENS);
            let shift = simd.splat(row.chunk.max);
            let (mut sum, mut weight_max) = (zero, zero);
            for block in row.blocks() {
                let at = scores.add(block * LANES);
                let p = exp2(simd, simd.sub(simd.load(at), shift));
                sum = simd.add(sum, p);
                let scale = simd.load_bf16((*tile.heads.add(block)).add(scales_offset).cast());
                // A token that the row does not see may have any scale.
                let weight = simd.zero_below(simd.mul(p, scale), p, smallest);
                weight_max = simd.max(weight_max, weight);
                simd.store(at, weight);
            }
            row.chunk.sum = simd.reduce_add(sum);
            row.value_factor = simd.reduce_max(weight_max) / PROBABILITY_MAX;
        }
        for (r, row) in rows.iter_mut().enumerate() {
            let scores = tile.scores.add(r * CHUNK_TOKENS);
            let mut inverse = 1.0 / row.value_factor;
            if row.value_factor < MAX_MIN {
                (row.value_factor, inverse) = (0.0, 0.0);
            }
            let inverse = simd.splat(inverse);
            let high = tile.digits.add(r * DIGITS * CHUNK_TOKENS);
            let low = high.add(CHUNK_TOKENS);
            let blocks = row.blocks();
            clear_digits(high, tile.block_start..blocks.start);
            for block in blocks.clone() {
                let weight = simd.load(scores.add(block * LANES));
                let digits = simd.to_int(simd.mul(weight, inverse));
                simd.store_digits(high.add(block * LANES), low.add(block * LANES), digits);
            }
            clear_digits(high, blocks.end..tile.block_end);
        }
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
/// As [`Tile`] says, with `R` rows, after [`softmax`].
#[inline(always)]
pub(super) unsafe fn values<S: Simd, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
) {
    let mut d = 0;
    while d + N * LANES <= tile.dim {
        // SAFETY: d stays within the padded dimension.
        unsafe { sum_columns::<S, R, N, STREAM>(simd, tile, d) };
        d += N * LANES;
    }
    while d < tile.dim {
        // SAFETY: as above.
        unsafe { sum_columns::<S, R, 1, STREAM>(simd, tile, d) };
        d += LANES;
    }
}

#[inline(always)]
unsafe fn sum_columns<S: Simd, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
    d: usize,
) {
    // SAFETY: values are `[4][dim][4]` bytes after keys and scales of a head.
    unsafe {
        let offset = tile.dim / 4 * VECTOR_BYTES + SCALE_BYTES + d * 4;
        let mut acc = [[[simd.splat_i(0); N]; DIGITS]; R];
        for block in tile.block_start..tile.block_end {
            let values = (*tile.heads.add(block)).add(offset);
            let digits = tile.digits.add(block * BLOCK_TOKENS);
            let next_keys = (*tile.next_heads.add(block)).wrapping_add(d * 4);
            if STREAM && d == 0 {
                simd.prefetch(next_keys.wrapping_add(tile.dim / 4 * VECTOR_BYTES));
            }
            for quad in 0..BLOCK_TOKENS / 4 {
                let value = values.add(quad * tile.dim * 4);
                let mut vectors = [simd.splat_i(0); N];
                for n in 0..N {
                    vectors[n] = simd.load_i(value.add(n * VECTOR_BYTES));
                    if STREAM {
                        let line = quad * tile.dim * 4 + n * VECTOR_BYTES;
                        simd.prefetch(next_keys.wrapping_add(line));
                    }
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
                let sum = simd.join_digits(acc[0][n], acc[1][n]);
                let to = tile.acc.add(r * tile.dim + d + n * LANES);
                simd.store(to, simd.mul(simd.to_float(sum), factor));
            }
        }
    }
}
