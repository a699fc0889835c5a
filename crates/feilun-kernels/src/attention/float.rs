//! The inner loops for caches of floats: f32 products, bf16 widened as it is loaded.

#![expect(
    clippy::needless_range_loop,
    reason = "tiles of registers are indexed by row, digit and vector, as in the mathematics"
)]

use super::CHUNK_TOKENS;
use super::tile::{RowState, Tile, chunk_maxima};
use crate::kv::BLOCK_TOKENS;
use crate::vector::{LANES, Simd, exp2};

/// How a float is stored in the cache.
pub(super) trait Stored {
    /// Bytes of sixteen of them.
    const VECTOR_BYTES: usize;
    /// Loads sixteen.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F;
}

pub(super) enum StoredF32 {}

impl Stored for StoredF32 {
    const VECTOR_BYTES: usize = LANES * 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from.cast()) }
    }
}

pub(super) enum StoredBf16 {}

impl Stored for StoredBf16 {
    const VECTOR_BYTES: usize = LANES * 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(from.cast()) }
    }
}

/// Packs the `row`-th query of a tile of `num_rows`: `[dim][num_rows]` floats.
///
/// # Safety
/// `q` has `len` floats, and `out` has room for `num_rows * dim` with `len <= dim`.
pub(super) unsafe fn pack_query(
    q: *const f32,
    len: usize,
    out: *mut u8,
    row: usize,
    num_rows: usize,
    dim: usize,
    scale: f32,
) -> RowState {
    for d in 0..dim {
        // SAFETY: the caller's promise.
        unsafe {
            let value = if d < len { q.add(d).read() } else { 0.0 };
            out.cast::<f32>().add(d * num_rows + row).write(value);
        }
    }
    RowState { factor: scale * std::f32::consts::LOG2_E, ..RowState::default() }
}

/// The scores of all rows of the tile against all keys of its blocks.
///
/// # Safety
/// As [`Tile`] says, with `R` rows.
#[inline(always)]
pub(super) unsafe fn scores<
    S: Simd,
    T: Stored,
    const R: usize,
    const N: usize,
    const STREAM: bool,
>(
    simd: S,
    tile: &Tile,
) {
    let mut block = tile.block_start;
    while block + N <= tile.block_end {
        // SAFETY: blocks stay within those of the tile.
        unsafe { block_scores::<S, T, R, N, STREAM>(simd, tile, block) };
        block += N;
    }
    while block + 2 <= tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, T, R, 2, STREAM>(simd, tile, block) };
        block += 2;
    }
    if block < tile.block_end {
        // SAFETY: as above.
        unsafe { block_scores::<S, T, R, 1, STREAM>(simd, tile, block) };
    }
}

#[inline(always)]
unsafe fn block_scores<S: Simd, T: Stored, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
    block: usize,
) {
    // SAFETY: keys are the first `dim` vectors of a head, the packed query has `dim * R` floats,
    // and the scores of a row take `CHUNK_TOKENS`.
    unsafe {
        let mut keys = [std::ptr::null::<u8>(); N];
        for (n, key) in keys.iter_mut().enumerate() {
            *key = *tile.heads.add(block + n);
        }
        let query = tile.query.cast::<f32>();
        let mut acc = [[simd.splat(0.0); N]; R];
        for d in 0..tile.dim {
            let mut key_vectors = [simd.splat(0.0); N];
            for n in 0..N {
                let key = keys[n].add(d * T::VECTOR_BYTES);
                key_vectors[n] = T::load(simd, key);
                if STREAM {
                    // The values are as long, and come next.
                    simd.prefetch(key.wrapping_add(tile.dim * T::VECTOR_BYTES));
                }
            }
            for r in 0..R {
                let q = simd.splat(*query.add(d * R + r));
                for n in 0..N {
                    acc[r][n] = simd.fma(q, key_vectors[n], acc[r][n]);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            let factor = simd.splat((*tile.rows.add(r)).factor);
            for (n, sum) in acc.iter().enumerate() {
                let to = tile.scores.add(r * CHUNK_TOKENS + (block + n) * LANES);
                simd.store(to, simd.mul(*sum, factor));
            }
        }
    }
}

/// Turns the scores of each row into `p` and notes maximum and sum.
///
/// # Safety
/// As [`Tile`] says, for `rows`.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(simd: S, tile: &Tile, rows: &mut [RowState]) {
    // SAFETY: blocks of a row lie in those of the tile.
    unsafe {
        chunk_maxima(simd, tile, rows);
        for (r, row) in rows.iter_mut().enumerate() {
            let scores = tile.scores.add(r * CHUNK_TOKENS);
            let shift = simd.splat(row.chunk.max);
            let mut sum = simd.splat(0.0);
            for block in row.blocks() {
                let at = scores.add(block * LANES);
                let p = exp2(simd, simd.sub(simd.load(at), shift));
                sum = simd.add(sum, p);
                simd.store(at, p);
            }
            row.chunk.sum = simd.reduce_add(sum);
        }
    }
}

/// `acc = sum(p v)` for all rows, each over exactly the keys that it sees.
///
/// # Safety
/// As [`Tile`] says, with `R` rows, after [`softmax`].
#[inline(always)]
pub(super) unsafe fn values<
    S: Simd,
    T: Stored,
    const R: usize,
    const N: usize,
    const STREAM: bool,
>(
    simd: S,
    tile: &Tile,
) {
    // SAFETY: all ranges are those of rows, within the tile's blocks.
    unsafe {
        for d in (0..R * tile.dim).step_by(LANES) {
            simd.store(tile.acc.add(d), simd.splat(0.0));
        }
        let rows = std::slice::from_raw_parts(tile.rows, R);
        // Most keys are seen by all rows; the others are done row by row. A chain of additions
        // may be cut anywhere without a change of its result.
        let start = rows.iter().map(|row| row.key_start).max().unwrap_or(0);
        let end = rows.iter().map(|row| row.key_end).min().unwrap_or(0);
        if start >= end {
            for (r, row) in rows.iter().enumerate() {
                sum_values::<S, T, 1, N, STREAM>(simd, tile, r, row.key_start..row.key_end);
            }
            return;
        }
        for (r, row) in rows.iter().enumerate() {
            sum_values::<S, T, 1, N, STREAM>(simd, tile, r, row.key_start..start);
        }
        sum_values::<S, T, R, N, STREAM>(simd, tile, 0, start..end);
        for (r, row) in rows.iter().enumerate() {
            sum_values::<S, T, 1, N, STREAM>(simd, tile, r, end..row.key_end);
        }
    }
}

/// Adds the keys of a range to the rows `first_row..first_row + R`.
#[inline(always)]
unsafe fn sum_values<S: Simd, T: Stored, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
    first_row: usize,
    keys: std::ops::Range<usize>,
) {
    if keys.is_empty() {
        return;
    }
    let mut d = 0;
    while d + N * LANES <= tile.dim {
        // SAFETY: d stays within the padded dimension.
        unsafe { sum_columns::<S, T, R, N, STREAM>(simd, tile, first_row, keys.clone(), d) };
        d += N * LANES;
    }
    while d < tile.dim {
        // SAFETY: as above.
        unsafe { sum_columns::<S, T, R, 1, STREAM>(simd, tile, first_row, keys.clone(), d) };
        d += LANES;
    }
}

#[inline(always)]
unsafe fn sum_columns<S: Simd, T: Stored, const R: usize, const N: usize, const STREAM: bool>(
    simd: S,
    tile: &Tile,
    first_row: usize,
    keys: std::ops::Range<usize>,
    d: usize,
) {
    // SAFETY: values are `[16][dim]` after the `dim` vectors of keys of a head.
    unsafe {
        let scores = tile.scores.add(first_row * CHUNK_TOKENS);
        let out = tile.acc.add(first_row * tile.dim + d);
        let mut acc = [[simd.splat(0.0); N]; R];
        for r in 0..R {
            for n in 0..N {
                acc[r][n] = simd.load(out.add(r * tile.dim + n * LANES));
            }
        }
        let row_bytes = tile.dim / LANES * T::VECTOR_BYTES;
        let offset = tile.dim * T::VECTOR_BYTES + d / LANES * T::VECTOR_BYTES;
        let mut key = keys.start;
        while key < keys.end {
            let block = key / BLOCK_TOKENS;
            let block_end = keys.end.min((block + 1) * BLOCK_TOKENS);
            let values = (*tile.heads.add(block)).add(offset);
            let next_keys = (*tile.next_heads.add(block)).wrapping_add(d / LANES * T::VECTOR_BYTES);
            while key < block_end {
                let line = key % BLOCK_TOKENS * row_bytes;
                let mut vectors = [simd.splat(0.0); N];
                for n in 0..N {
                    let line = line + n * T::VECTOR_BYTES;
                    vectors[n] = T::load(simd, values.add(line));
                    if STREAM {
                        simd.prefetch(next_keys.wrapping_add(line));
                    }
                }
                for r in 0..R {
                    let p = simd.splat(*scores.add(r * CHUNK_TOKENS + key));
                    for n in 0..N {
                        acc[r][n] = simd.fma(p, vectors[n], acc[r][n]);
                    }
                }
                key += 1;
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (n, sum) in acc.iter().enumerate() {
                simd.store(out.add(r * tile.dim + n * LANES), *sum);
            }
        }
    }
}
