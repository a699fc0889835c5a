//! LoRA adapters at work: low-rank additions to the rows of the segments that ask for them.

use feilun_kernels::Pool;
use feilun_kernels::rows::RowTiles;

use crate::lora::LoraMatrix;
use crate::{LayerTensor, Segment};

/// Whether any segment's adapter changes one of these matrices.
pub(crate) fn touches(segments: &[Segment<'_>], layer: usize, tensors: &[LayerTensor]) -> bool {
    segments
        .iter()
        .filter_map(|segment| segment.adapter)
        .any(|adapter| tensors.iter().any(|&tensor| adapter.matrix(layer, tensor).is_some()))
}

/// `out[r] += scale * B (A x[r])` for each row whose segment has an adapter for this matrix.
/// The tiles hold the rows' f32 form.
pub(crate) fn add_all(
    pool: &mut Pool,
    tiles: &RowTiles,
    segments: &[Segment<'_>],
    layer: usize,
    tensor: LayerTensor,
    out: &mut [f32],
) {
    if !touches(segments, layer, &[tensor]) {
        return;
    }
    let num_rows: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
    let width = out.len() / num_rows;
    let mut first = 0;
    for segment in segments {
        let count = segment.tokens.len();
        let rows = &mut out[first * width..][..count * width];
        if let Some(matrix) = segment.adapter.and_then(|adapter| adapter.matrix(layer, tensor)) {
            pool.for_each_chunk(rows, width, 4, |row, out| {
                add_row(matrix, tiles.float_row(first + row), out);
            });
        }
        first += count;
    }
}

/// One row. `A` is `(rank, in)` and `B` is `(out, rank)`; both loops run along their rows, in
/// one fixed order.
fn add_row(matrix: &LoraMatrix, x: impl Iterator<Item = f32>, out: &mut [f32]) {
    let x: Vec<f32> = x.collect();
    let projected: Vec<f32> =
        matrix.a.chunks_exact(x.len()).map(|row| matrix.scale * dot(row, &x)).collect();
    for (out, row) in out.iter_mut().zip(matrix.b.chunks_exact(matrix.rank)) {
        *out += dot(row, &projected);
    }
}

/// Sixteen partial sums, so that the loop vectorises, then their sum in order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
