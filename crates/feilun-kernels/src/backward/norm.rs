//! Gradient of RMSNorm. With `r = 1 / sqrt(mean(x^2) + eps)` and n elements:
//!
//! - `d_weight[i] += d_out[i] * x[i] * r`
//! - `d_x[i] += r * (weight[i] * d_out[i] - x[i] * r^2 * dot(weight * d_out, x) / n)`
//!
//! Both sums of a row have one order on every path, as in [`crate::norm`]: 64 partial sums, then
//! a fixed tree.

use crate::pack::SendPointer;
use crate::vector::{LANES, Simd, load_partial, simd_fns, store_partial};
use crate::{Isa, Pool};

/// Independent chains of additions, enough to hide their latency.
const NUM_SUMS: usize = 4;
/// Rows whose `d_weight` is summed by one thread: a fixed number, so that the sum does not depend
/// on the number of threads, and large enough that summing the parts costs little.
const ROWS_PER_PART: usize = 64;

simd_fns! {
    /// Gradient of [`norm::rms_norm`](crate::norm::rms_norm) of one row, added to `d_x` and
    /// `d_weight`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, backward};
    /// let (mut d_x, mut d_weight) = ([0.0; 2], [0.0; 2]);
    /// // The norm of (3, 4) is that of (6, 8): along x nothing changes.
    /// let (x, ones) = ([3.0, 4.0], [1.0, 1.0]);
    /// backward::rms_norm(Isa::best(), &x, &ones, 0.0, &[3.0, 4.0], &mut d_x, &mut d_weight);
    /// assert!(d_x[0].abs() < 1e-6 && d_x[1].abs() < 1e-6);
    /// assert!((d_weight[0] - 9.0 / 12.5f32.sqrt()).abs() < 1e-6);
    /// ```
    pub fn rms_norm(
        x: &[f32], weight: &[f32], eps: f32, d_out: &[f32], d_x: &mut [f32], d_weight: &mut [f32],
    ) = rms_norm_kernel;

    fn add_parts(parts: &[f32], sum: &mut [f32]) = add_parts_kernel;
}

/// [`rms_norm`] of all rows of `x` (each as long as `weight`; heads count as rows), in parallel.
/// `parts` keeps its memory from call to call: a warm call allocates nothing.
///
/// # Panics
/// When the lengths do not fit together.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
pub fn rms_norm_rows(
    pool: &mut Pool,
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    parts: &mut Vec<f32>,
) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "{} values in rows of {width}", x.len());
    assert_eq!((d_out.len(), d_x.len()), (x.len(), x.len()), "lengths of d_out and d_x");
    assert_eq!(d_weight.len(), width, "length of d_weight");
    let part_len = ROWS_PER_PART * width;
    let num_parts = x.len().div_ceil(part_len);
    parts.clear();
    parts.resize(num_parts * width, 0.0);
    let d_x_start = SendPointer(d_x.as_mut_ptr());
    pool.for_each_chunk(parts, width, 1, |index, part| {
        let range = index * part_len..x.len().min((index + 1) * part_len);
        // SAFETY: the range lies within `d_x`, which is as long as `x`; ranges of different
        // parts do not overlap, and each is visited once.
        let d_x = unsafe {
            std::slice::from_raw_parts_mut(d_x_start.get().add(range.start), range.len())
        };
        let rows = x[range.clone()].chunks_exact(width).zip(d_out[range].chunks_exact(width));
        for ((x, d_out), d_x) in rows.zip(d_x.chunks_exact_mut(width)) {
            rms_norm(isa, x, weight, eps, d_out, d_x, part);
        }
    });
    add_parts(isa, parts, d_weight);
}

#[inline(always)]
fn rms_norm_kernel<S: Simd>(
    simd: S,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
) {
    assert_eq!(
        [weight.len(), d_out.len(), d_x.len(), d_weight.len()],
        [x.len(); 4],
        "lengths of weight, d_out, d_x and d_weight"
    );
    let (squares, product) = sums(simd, x, weight, d_out);
    let num = x.len() as f32;
    let inverse_rms = 1.0 / (squares / num + eps).sqrt();
    let along = -(inverse_rms * inverse_rms) * (product / num) * inverse_rms;
    let row = Row { factor: simd.splat(inverse_rms), along: simd.splat(along) };
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (weight_chunks, weight_rest) = weight.as_chunks::<LANES>();
    let (d_out_chunks, d_out_rest) = d_out.as_chunks::<LANES>();
    let (d_x_chunks, d_x_rest) = d_x.as_chunks_mut::<LANES>();
    let (d_weight_chunks, d_weight_rest) = d_weight.as_chunks_mut::<LANES>();
    let inputs = x_chunks.iter().zip(weight_chunks).zip(d_out_chunks);
    let outputs = d_x_chunks.iter_mut().zip(d_weight_chunks);
    for (((x, weight), d_out), (d_x, d_weight)) in inputs.zip(outputs) {
        let load = |chunk| simd.load_array(chunk);
        let old = [load(d_x), load(d_weight)];
        let [new_x, new_weight] = step(simd, &row, load(x), load(weight), load(d_out), old);
        simd.store_array(d_x, new_x);
        simd.store_array(d_weight, new_weight);
    }
    if !x_rest.is_empty() {
        let load = |rest: &[f32]| load_partial(simd, rest, 0.0);
        let old = [load(d_x_rest), load(d_weight_rest)];
        let (x, weight, d_out) = (load(x_rest), load(weight_rest), load(d_out_rest));
        let [new_x, new_weight] = step(simd, &row, x, weight, d_out, old);
        store_partial(simd, d_x_rest, new_x);
        store_partial(simd, d_weight_rest, new_weight);
    }
}

/// What is the same for all elements of a row.
struct Row<F> {
    /// `1 / rms`.
    factor: F,
    /// What is taken from each d_x per x.
    along: F,
}

/// The new `[d_x, d_weight]`. Not a closure: see `Gate` in `activation.rs`.
#[inline(always)]
fn step<S: Simd>(
    simd: S,
    row: &Row<S::F>,
    x: S::F,
    weight: S::F,
    d_out: S::F,
    [d_x, d_weight]: [S::F; 2],
) -> [S::F; 2] {
    let scaled = simd.mul(weight, simd.mul(d_out, row.factor));
    let d_x = simd.add(d_x, simd.fma(x, row.along, scaled));
    [d_x, simd.fma(d_out, simd.mul(x, row.factor), d_weight)]
}

/// `dot(x, x)` and `dot(weight * d_out, x)`.
#[inline(always)]
fn sums<S: Simd>(simd: S, x: &[f32], weight: &[f32], d_out: &[f32]) -> (f32, f32) {
    const GROUP: usize = NUM_SUMS * LANES;
    let mut squares = [simd.splat(0.0); NUM_SUMS];
    let mut products = [simd.splat(0.0); NUM_SUMS];
    let (x_groups, x_rest) = x.as_chunks::<GROUP>();
    let (weight_groups, weight_rest) = weight.as_chunks::<GROUP>();
    let (d_out_groups, d_out_rest) = d_out.as_chunks::<GROUP>();
    for ((x, weight), d_out) in x_groups.iter().zip(weight_groups).zip(d_out_groups) {
        let (x, weight, d_out) =
            (x.as_chunks::<LANES>().0, weight.as_chunks::<LANES>().0, d_out.as_chunks::<LANES>().0);
        for index in 0..NUM_SUMS {
            let value = simd.load_array(&x[index]);
            let scaled = simd.mul(simd.load_array(&weight[index]), simd.load_array(&d_out[index]));
            squares[index] = simd.fma(value, value, squares[index]);
            products[index] = simd.fma(scaled, value, products[index]);
        }
    }
    let rests = x_rest.chunks(LANES).zip(weight_rest.chunks(LANES)).zip(d_out_rest.chunks(LANES));
    for (index, ((x, weight), d_out)) in rests.enumerate() {
        let value = load_partial(simd, x, 0.0);
        let scaled = simd.mul(load_partial(simd, weight, 0.0), load_partial(simd, d_out, 0.0));
        squares[index] = simd.fma(value, value, squares[index]);
        products[index] = simd.fma(scaled, value, products[index]);
    }
    let total = |sums: [S::F; NUM_SUMS]| {
        simd.reduce_add(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
    };
    (total(squares), total(products))
}

#[inline(always)]
fn add_parts_kernel<S: Simd>(simd: S, parts: &[f32], sum: &mut [f32]) {
    for part in parts.chunks_exact(sum.len()) {
        crate::activation::add_assign_kernel(simd, sum, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backward::finite_differences::{gradient, wide};
    use crate::vector::test_rows::{LENGTHS, assert_close, assert_same_bits, values};

    /// `dot(d_out, rms_norm(x))`, of which the kernel computes the gradient.
    fn loss(x: &[f64], weight: &[f64], eps: f64, d_out: &[f64]) -> f64 {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let rms = (mean + eps).sqrt();
        x.iter().zip(weight).zip(d_out).map(|((x, w), d)| x / rms * w * d).sum()
    }

    #[test]
    fn agrees_with_differences_of_the_formula_on_every_path() {
        for len in LENGTHS {
            let (x, weight, d_out) =
                (values(len, 1, 3.0), values(len, 2, 1.0), values(len, 3, 1.0));
            let (before_x, before_weight) = (values(len, 4, 1.0), values(len, 5, 1.0));
            let eps = 0.1f32;
            let loss_of =
                |x: &[f64], weight: &[f64]| loss(x, weight, f64::from(eps), &wide(&d_out));
            let mut expected_x = gradient(&x, |x| loss_of(x, &wide(&weight)));
            let mut expected_weight = gradient(&weight, |weight| loss_of(&wide(&x), weight));
            for i in 0..len {
                expected_x[i] += f64::from(before_x[i]);
                expected_weight[i] += f64::from(before_weight[i]);
            }
            let (mut portable_x, mut portable_weight) = (before_x.clone(), before_weight.clone());
            let isa = Isa::Portable;
            rms_norm(isa, &x, &weight, eps, &d_out, &mut portable_x, &mut portable_weight);
            assert_close(&portable_x, &expected_x, 2e-6);
            assert_close(&portable_weight, &expected_weight, 2e-6);
            for isa in Isa::available() {
                let (mut d_x, mut d_weight) = (before_x.clone(), before_weight.clone());
                rms_norm(isa, &x, &weight, eps, &d_out, &mut d_x, &mut d_weight);
                assert_same_bits(&d_x, &portable_x);
                assert_same_bits(&d_weight, &portable_weight);
            }
        }
    }

    #[test]
    fn rows_are_the_sum_of_each_on_any_number_of_threads() {
        let eps = 1e-5;
        for (num_rows, width) in [(0, 5), (1, 64), (63, 17), (64, 17), (65, 17), (300, 48)] {
            let len = num_rows * width;
            let (x, weight, d_out) =
                (values(len, 1, 3.0), values(width, 2, 1.0), values(len, 3, 1.0));
            let (mut one_x, mut one_weight) = (vec![0.5; len], vec![0.5; width]);
            for row in 0..num_rows {
                let range = row * width..(row + 1) * width;
                let d_x = &mut one_x[range.clone()];
                let (x, d_out) = (&x[range.clone()], &d_out[range]);
                rms_norm(Isa::Portable, x, &weight, eps, d_out, d_x, &mut one_weight);
            }
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                for num_threads in [1, 2, 3] {
                    let mut pool = Pool::new(num_threads).unwrap();
                    let (mut d_x, mut d_weight) = (vec![0.5; len], vec![0.5; width]);
                    let parts = &mut vec![f32::NAN; 3];
                    rms_norm_rows(
                        &mut pool,
                        isa,
                        &x,
                        &weight,
                        eps,
                        &d_out,
                        &mut d_x,
                        &mut d_weight,
                        parts,
                    );
                    assert_same_bits(&d_x, &one_x);
                    assert_close(&d_weight, &wide(&one_weight), 1e-5);
                    assert_same_bits(&d_weight, first.get_or_insert_with(|| d_weight.clone()));
                }
            }
        }
    }
}
