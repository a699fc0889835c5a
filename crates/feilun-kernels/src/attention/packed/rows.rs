//! What happens to rows of scores between the products. Scores are to base 2: the queries come
//! multiplied by `scale * log2(e)`.

use std::ops::Range;

use super::KEYS;
use super::block::{Block, whole_vectors};
use super::product::TILE_ROWS;
use crate::vector::{LANES, Simd, exp2, simd_fns};

/// From one row of scores to the next: more than their number, so that the rows do not compete
/// for the same lines of the first-level cache.
pub(super) const SCORES_STEP: usize = KEYS + LANES;

/// What the forward pass carries along for a block of queries.
pub(super) struct RowStates<'a> {
    /// Each row's largest score so far.
    pub(super) maxima: &'a mut [f32],
    /// Each row's sum of `2^(s - max)`, in sixteen lanes.
    pub(super) sums: &'a mut [[f32; LANES]],
    /// Each row's sum of `2^(s - max) v`, `dim` values each.
    pub(super) acc: &'a mut [f32],
    pub(super) dim: usize,
}

simd_fns! {
    /// Replaces scores by `2^(s - max)`, 0 where a row does not see the key, and brings what the
    /// rows carry along to the new maxima. Only columns of the row's tile are touched.
    pub(super) fn softmax_rows(block: &Block, scores: &mut [f32], states: &mut RowStates<'_>) =
        softmax_rows_kernel;

    /// Ends the forward pass of one row: `acc /= sum`; returns the natural logarithm of the
    /// sum of exponentials.
    pub(super) fn finish_row(max: f32, sums: &[f32; LANES], acc: &mut [f32]) -> f32 =
        finish_row_kernel;

    /// Replaces scores by probabilities `2^(s - lse)` and `d_scores`, gradients of probabilities,
    /// by those of scores, `p * (dp - delta)`. Both are 0 where a row does not see the key.
    pub(super) fn gradient_rows(
        block: &Block, scores: &mut [f32], d_scores: &mut [f32], lse: &[f32], delta: &[f32],
    ) = gradient_rows_kernel;

    /// Each row of `a` times that of `b`; as many rows of whole vectors as `out` has values.
    pub(super) fn row_dots(a: &[f32], b: &[f32], out: &mut [f32]) = row_dots_kernel;
}

/// The columns of a row that its tile's products computed.
#[inline(always)]
fn tile_columns(block: &Block, row: usize) -> Range<usize> {
    let start = row / TILE_ROWS * TILE_ROWS;
    whole_vectors(&block.columns(&(start..block.num_rows.min(start + TILE_ROWS))))
}

#[inline(always)]
fn softmax_rows_kernel<S: Simd>(
    simd: S,
    block: &Block,
    scores: &mut [f32],
    states: &mut RowStates<'_>,
) {
    for row in 0..block.num_rows {
        let computed = tile_columns(block, row);
        let seen = block.columns(&(row..row + 1));
        let scores = &mut scores[row * SCORES_STEP..][computed.clone()];
        if seen.is_empty() {
            scores.fill(0.0);
            continue;
        }
        scores[..seen.start - computed.start].fill(f32::NEG_INFINITY);
        scores[seen.end - computed.start..].fill(f32::NEG_INFINITY);
        let (vectors, _) = scores.as_chunks_mut::<LANES>();
        let mut maxima = simd.splat(f32::NEG_INFINITY);
        for vector in vectors.iter() {
            maxima = simd.max(simd.load_array(vector), maxima);
        }
        let (max, old) = (simd.reduce_max(maxima), states.maxima[row]);
        let sums = &mut states.sums[row];
        let mut sum = simd.load_array(sums);
        // In the usual case, that of no new maximum, this would multiply by 1.
        if max > old {
            states.maxima[row] = max;
            let factor = exp2(simd, simd.splat(old - max));
            sum = simd.mul(sum, factor);
            let acc = &mut states.acc[row * states.dim..(row + 1) * states.dim];
            for chunk in acc.as_chunks_mut::<LANES>().0 {
                let scaled = simd.mul(simd.load_array(chunk), factor);
                simd.store_array(chunk, scaled);
            }
        }
        let shift = simd.splat(states.maxima[row]);
        for vector in vectors {
            let power = exp2(simd, simd.sub(simd.load_array(vector), shift));
            sum = simd.add(sum, power);
            simd.store_array(vector, power);
        }
        simd.store_array(sums, sum);
    }
}

#[inline(always)]
fn finish_row_kernel<S: Simd>(simd: S, max: f32, sums: &[f32; LANES], acc: &mut [f32]) -> f32 {
    let sum = simd.reduce_add(simd.load_array(sums));
    let factor = simd.splat(1.0 / sum);
    for chunk in acc.as_chunks_mut::<LANES>().0 {
        let scaled = simd.mul(simd.load_array(chunk), factor);
        simd.store_array(chunk, scaled);
    }
    ((f64::from(max) + f64::from(sum).log2()) * std::f64::consts::LN_2) as f32
}

#[inline(always)]
fn gradient_rows_kernel<S: Simd>(
    simd: S,
    block: &Block,
    scores: &mut [f32],
    d_scores: &mut [f32],
    lse: &[f32],
    delta: &[f32],
) {
    let all = whole_vectors(&(0..block.num_keys));
    for row in 0..block.num_rows {
        let computed = tile_columns(block, row);
        let seen = block.columns(&(row..row + 1));
        let range = row * SCORES_STEP..row * SCORES_STEP + all.end;
        let (scores, d_scores) = (&mut scores[range.clone()], &mut d_scores[range]);
        for outside in [0..seen.start, seen.end..all.end] {
            scores[outside.clone()].fill(f32::NEG_INFINITY);
            d_scores[outside].fill(0.0);
        }
        if seen.is_empty() {
            scores.fill(0.0);
            continue;
        }
        scores[..computed.start].fill(0.0);
        scores[computed.end..].fill(0.0);
        let (shift, delta) = (simd.splat(lse[row]), simd.splat(delta[row]));
        let vectors = scores[computed.clone()].as_chunks_mut::<LANES>().0.iter_mut();
        let d_vectors = d_scores[computed].as_chunks_mut::<LANES>().0.iter_mut();
        for (score, d_score) in vectors.zip(d_vectors) {
            let share = exp2(simd, simd.sub(simd.load_array(score), shift));
            let d_share = simd.sub(simd.load_array(d_score), delta);
            simd.store_array(score, share);
            simd.store_array(d_score, simd.mul(share, d_share));
        }
    }
}

#[inline(always)]
fn row_dots_kernel<S: Simd>(simd: S, a: &[f32], b: &[f32], out: &mut [f32]) {
    let dim = a.len() / out.len();
    for ((a, b), out) in a.chunks_exact(dim).zip(b.chunks_exact(dim)).zip(out) {
        let mut sum = simd.splat(0.0);
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            sum = simd.fma(simd.load_array(a), simd.load_array(b), sum);
        }
        *out = simd.reduce_add(sum);
    }
}
