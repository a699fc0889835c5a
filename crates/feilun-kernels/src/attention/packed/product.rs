//! Small products of matrices in cache: `out = left * right`, or added to `out`.
//!
//! Each element is one chain of fused multiply-adds over k, ascending, however the matrices are
//! cut into tiles.

#![expect(
    clippy::needless_range_loop,
    reason = "tiles of registers are indexed by row and vector, as in the mathematics"
)]

use std::ops::Range;

use crate::vector::{LANES, Simd, simd_fns};

/// Rows of a tile: with the vectors of [`Simd::NUM_VECTORS`], six rows of four (one on AVX2)
/// leave room for the operands.
pub(super) const TILE_ROWS: usize = 6;

/// A matrix of which single elements are read: (row, k) is at `row * row_step + k * k_step`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_step: usize,
    pub(super) k_step: usize,
}

/// A matrix of which rows of vectors are read: row k is at `k * k_step`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) values: &'a [f32],
    pub(super) k_step: usize,
}

/// Which elements are computed, and over what they sum.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) rows: Range<usize>,
    /// Whole vectors.
    pub(super) columns: Range<usize>,
    pub(super) k: Range<usize>,
}

simd_fns! {
    /// `out[row][column] = sum(left[row][k] * right[k][column])` for the elements of the span,
    /// rows of `out` being `out_step` apart.
    pub(super) fn multiply(
        left: Left<'_>, right: Right<'_>, span: Span, out: &mut [f32], out_step: usize,
    ) = multiply_kernel;

    /// The same, added to `out`.
    pub(super) fn multiply_add(
        left: Left<'_>, right: Right<'_>, span: Span, out: &mut [f32], out_step: usize,
    ) = multiply_add_kernel;
}

#[inline(always)]
fn multiply_kernel<S: Simd>(
    simd: S,
    left: Left<'_>,
    right: Right<'_>,
    span: Span,
    out: &mut [f32],
    out_step: usize,
) {
    product::<S, false>(simd, left, right, span, out, out_step);
}

#[inline(always)]
fn multiply_add_kernel<S: Simd>(
    simd: S,
    left: Left<'_>,
    right: Right<'_>,
    span: Span,
    out: &mut [f32],
    out_step: usize,
) {
    product::<S, true>(simd, left, right, span, out, out_step);
}

/// One tile, as pointers to its first elements.
#[derive(Clone, Copy)]
struct Tile {
    left: *const f32,
    row_step: usize,
    k_step: usize,
    right: *const f32,
    right_step: usize,
    out: *mut f32,
    out_step: usize,
    num_k: usize,
}

#[inline(always)]
fn product<S: Simd, const ADD: bool>(
    simd: S,
    left: Left<'_>,
    right: Right<'_>,
    span: Span,
    out: &mut [f32],
    out_step: usize,
) {
    let Span { rows, columns, k } = span;
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    assert!(columns.start.is_multiple_of(LANES) && columns.end.is_multiple_of(LANES));
    assert!((rows.end - 1) * out_step + columns.end <= out.len(), "out is short");
    if !k.is_empty() {
        let last = (rows.end - 1) * left.row_step + (k.end - 1) * left.k_step;
        assert!(last < left.values.len(), "left is short");
        assert!((k.end - 1) * right.k_step + columns.end <= right.values.len(), "right is short");
    }
    let out = out.as_mut_ptr();
    let tile_at = |row: usize, column: usize| Tile {
        left: left.values.as_ptr().wrapping_add(row * left.row_step + k.start * left.k_step),
        row_step: left.row_step,
        k_step: left.k_step,
        right: right.values.as_ptr().wrapping_add(k.start * right.k_step + column),
        right_step: right.k_step,
        out: out.wrapping_add(row * out_step + column),
        out_step,
        num_k: k.len(),
    };
    // Columns outside: what is read of `right` stays in the first-level cache for all rows.
    let mut column = columns.start;
    while column < columns.end {
        let left_over = (columns.end - column) / LANES;
        let wide = S::NUM_VECTORS >= 32;
        let num_vectors = if wide { left_over.min(4) } else { 1 };
        let mut row = rows.start;
        while row < rows.end {
            let tile = tile_at(row, column);
            // SAFETY: the asserts above hold for the last element, so for all, and `out` is
            // borrowed mutably.
            row += unsafe {
                match num_vectors {
                    4 => some_rows::<S, 4, ADD>(simd, tile, rows.end - row),
                    3 => some_rows::<S, 3, ADD>(simd, tile, rows.end - row),
                    2 => some_rows::<S, 2, ADD>(simd, tile, rows.end - row),
                    _ => some_rows::<S, 1, ADD>(simd, tile, rows.end - row),
                }
            };
        }
        column += num_vectors * LANES;
    }
}

/// Computes up to six rows; returns how many.
///
/// # Safety
/// As [`tile_product`], for up to `num_rows` rows.
#[inline(always)]
unsafe fn some_rows<S: Simd, const N: usize, const ADD: bool>(
    simd: S,
    tile: Tile,
    num_rows: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        match num_rows {
            TILE_ROWS.. => {
                tile_product::<S, TILE_ROWS, N, ADD>(simd, tile);
                TILE_ROWS
            }
            4.. => {
                tile_product::<S, 4, N, ADD>(simd, tile);
                4
            }
            2.. => {
                tile_product::<S, 2, N, ADD>(simd, tile);
                2
            }
            _ => {
                tile_product::<S, 1, N, ADD>(simd, tile);
                1
            }
        }
    }
}

/// # Safety
/// For `R` rows, `N` vectors and `num_k` steps, the elements of left and right are readable and
/// those of out are writable.
#[inline(always)]
unsafe fn tile_product<S: Simd, const R: usize, const N: usize, const ADD: bool>(
    simd: S,
    tile: Tile,
) {
    let Tile { left, row_step, k_step, right, right_step, out, out_step, num_k } = tile;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[simd.splat(0.0); N]; R];
        if ADD {
            for r in 0..R {
                for n in 0..N {
                    sums[r][n] = simd.load(out.add(r * out_step + n * LANES));
                }
            }
        }
        for k in 0..num_k {
            let mut vectors = [simd.splat(0.0); N];
            for n in 0..N {
                vectors[n] = simd.load(right.add(k * right_step + n * LANES));
            }
            for r in 0..R {
                let factor = simd.splat(*left.add(r * row_step + k * k_step));
                for n in 0..N {
                    sums[r][n] = simd.fma(factor, vectors[n], sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                simd.store(out.add(r * out_step + n * LANES), sums[r][n]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::vector::test_rows::{assert_same_bits, values};

    /// A row, a k and a column before those of the span, so that offsets matter.
    const FIRST: usize = 3;

    #[test]
    fn each_element_is_one_ascending_chain_on_every_path() {
        for num_rows in 1..=14 {
            for num_vectors in 1..=9 {
                for num_k in [0, 1, 5, 64] {
                    let num_columns = num_vectors * LANES;
                    let values_left = values((num_rows + FIRST) * (num_k + FIRST), 1, 1.0);
                    let values_right = values((num_k + FIRST) * (num_columns + LANES), 2, 1.0);
                    let right = Right { values: &values_right, k_step: num_columns + LANES };
                    let span = Span {
                        rows: FIRST..FIRST + num_rows,
                        columns: LANES..num_columns + LANES,
                        k: FIRST..FIRST + num_k,
                    };
                    for (row_step, k_step) in [(num_k + FIRST, 1), (1, num_rows + FIRST)] {
                        let left = Left { values: &values_left, row_step, k_step };
                        check(left, right, span.clone(), false);
                        check(left, right, span.clone(), true);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn check(left: Left<'_>, right: Right<'_>, span: Span, add: bool) {
        let out_step = span.columns.end + 5;
        let before = values(span.rows.end * out_step, 3, 1.0);
        let mut expected = before.clone();
        for row in span.rows.clone() {
            for column in span.columns.clone() {
                let out = &mut expected[row * out_step + column];
                *out = span.k.clone().fold(if add { *out } else { 0.0 }, |sum, k| {
                    let left = left.values[row * left.row_step + k * left.k_step];
                    left.mul_add(right.values[k * right.k_step + column], sum)
                });
            }
        }
        for isa in Isa::available() {
            let mut out = before.clone();
            let kernel = if add { multiply_add } else { multiply };
            kernel(isa, left, right, span.clone(), &mut out, out_step);
            assert_same_bits(&out, &expected);
        }
    }
}
