//! Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): momentum
//! whose matrix is made nearly orthogonal before it is applied. For a matrix of weights, with the
//! gradient g times `gradient_scale`:
//!
//! - `m = momentum * m + (1 - momentum) * g`
//! - `x = momentum * m + (1 - momentum) * g` (Nesterov)
//! - `x /= |x| + 1e-7`, then five times `x = a x + (b s + c s^2) x` with `s = x x^T`
//! - `value = (1 - lr * weight_decay) * value - lr * sqrt(max(1, rows / cols)) * x`
//!
//! The iteration (Newton-Schulz, of fifth order) takes singular values from near 0 to near 1; a,
//! b and c are Jordan's, who chose them for a steep slope at 0 instead of convergence to 1, so
//! that they end between 0.7 and 1.2. `s` is taken on the shorter side.

use crate::gemm::{GemmScratch, Matrix, Output, Precision, Write, gemm};
use crate::memory::{AlignedBytes, OutOfMemory};
use crate::vector::{LANES, Simd, load_partial, simd_fns, store_partial};
use crate::{Isa, Pool};

use super::sum_of_squares;

/// Jordan's coefficients of x, x^3 and x^5.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const NUM_ITERATIONS: usize = 5;
/// Keeps the norm of a gradient of zeros from zero.
const NORM_MIN: f64 = 1e-7;
/// Values that a thread takes at a time.
const PART_LEN: usize = 1 << 13;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub lr: f64,
    /// How much of the mean gradient is kept from step to step.
    pub momentum: f64,
    /// The share of a value that a step at learning rate 1 would take away.
    pub weight_decay: f64,
    /// Factor on the gradients. Only its sign and its changes matter: the update's length does
    /// not depend on the gradient's.
    pub gradient_scale: f64,
    /// What the products' operands are rounded to; bf16 is what the authors use.
    pub precision: Precision,
}

/// Working memory. It grows to what the largest matrix needs and stays.
#[derive(Debug, Default)]
pub struct MuonScratch {
    update: Option<AlignedBytes>,
    next_update: Option<AlignedBytes>,
    square: Option<AlignedBytes>,
    fourth: Option<AlignedBytes>,
    gemm: GemmScratch,
}

impl MuonScratch {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let buffers = [&self.update, &self.next_update, &self.square, &self.fourth];
        buffers.into_iter().flatten().map(|buffer| buffer.len()).sum::<usize>() + self.gemm.bytes()
    }
}

/// At least `len` floats, with whatever is in them.
fn grown(buffer: &mut Option<AlignedBytes>, len: usize) -> Result<&mut [f32], OutOfMemory> {
    let bytes = len.saturating_mul(size_of::<f32>());
    let kept = buffer.take().filter(|buffer| buffer.len() >= bytes);
    let buffer = buffer.insert(match kept {
        Some(kept) => kept,
        None => AlignedBytes::zeroed(bytes)?,
    });
    Ok(&mut buffer.as_f32_mut()[..len])
}

/// Applies one step of Muon to a matrix of `shape` (rows, columns) and to its momentum `m`.
///
/// # Errors
/// When the scratch cannot grow.
///
/// # Panics
/// When lengths differ.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
pub fn muon(
    pool: &mut Pool,
    isa: Isa,
    values: &mut [f32],
    shape: (usize, usize),
    gradients: &[f32],
    m: &mut [f32],
    step: &Muon,
    scratch: &mut MuonScratch,
) -> Result<(), OutOfMemory> {
    let (rows, cols) = shape;
    assert_eq!(Some(values.len()), rows.checked_mul(cols), "values of {rows} x {cols}");
    assert_eq!((gradients.len(), m.len()), (values.len(), values.len()), "gradients and m");
    if values.is_empty() {
        return Ok(());
    }
    let update = grown(&mut scratch.update, values.len())?;
    let gradient_scale = step.gradient_scale as f32;
    let momentum = step.momentum as f32;
    in_parts(pool, m, update, |range, m, update| {
        nesterov(isa, &gradients[range], m, update, gradient_scale, momentum);
    });
    orthogonalize(pool, isa, shape, step.precision, scratch)?;
    let update = grown(&mut scratch.update, values.len())?;
    let decay = (-step.lr * step.weight_decay) as f32;
    let size = (-step.lr * (rows as f64 / cols as f64).max(1.0).sqrt()) as f32;
    in_parts(pool, values, update, |_, values, update| {
        apply(isa, values, update, decay, size);
    });
    Ok(())
}

/// Makes the singular values of `scratch.update` nearly 1.
fn orthogonalize(
    pool: &mut Pool,
    isa: Isa,
    (rows, cols): (usize, usize),
    precision: Precision,
    scratch: &mut MuonScratch,
) -> Result<(), OutOfMemory> {
    let (len, side) = (rows * cols, rows.min(cols));
    let [a, b, c] = COEFFICIENTS;
    let gemm_scratch = &mut scratch.gemm;
    let mut x = grown(&mut scratch.update, len)?;
    let mut next = grown(&mut scratch.next_update, len)?;
    let square = grown(&mut scratch.square, side * side)?;
    let fourth = grown(&mut scratch.fourth, side * side)?;
    let norm = sum_of_squares(pool, isa, x).sqrt() + NORM_MIN;
    in_parts(pool, next, x, |_, next, x| combine(isa, next, x, 0.0, (1.0 / norm) as f32));
    (x, next) = (next, x);
    for _ in 0..NUM_ITERATIONS {
        let matrix = Matrix::new(&*x, rows, cols);
        let (left, right) = match rows <= cols {
            true => (matrix, matrix.transposed()),
            false => (matrix.transposed(), matrix),
        };
        let out = Output::F32(square);
        gemm(pool, isa, precision, gemm_scratch, left, right, out, Write::Store);
        let squared = Matrix::new(&*square, side, side);
        let out = Output::F32(fourth);
        gemm(pool, isa, precision, gemm_scratch, squared, squared, out, Write::Store);
        in_parts(pool, fourth, square, |_, fourth, square| combine(isa, fourth, square, c, b));
        in_parts(pool, next, x, |_, next, x| combine(isa, next, x, 0.0, a));
        let (matrix, factor) = (Matrix::new(&*x, rows, cols), Matrix::new(&*fourth, side, side));
        let (left, right) = if rows <= cols { (factor, matrix) } else { (matrix, factor) };
        gemm(pool, isa, precision, gemm_scratch, left, right, Output::F32(next), Write::Add);
        (x, next) = (next, x);
    }
    // Normalising and an odd number of iterations swapped an even number of times.
    const { assert!(NUM_ITERATIONS % 2 == 1) };
    Ok(())
}

/// Calls `body` with the range of each part, and the parts of both slices.
fn in_parts(
    pool: &mut Pool,
    a: &mut [f32],
    b: &mut [f32],
    body: impl Fn(std::ops::Range<usize>, &mut [f32], &mut [f32]) + Sync,
) {
    let len = a.len();
    assert_eq!(b.len(), len, "lengths");
    let whole = len / PART_LEN * PART_LEN;
    let (a, a_rest) = a.split_at_mut(whole);
    let (b, b_rest) = b.split_at_mut(whole);
    pool.for_each_chunk_pair((a, PART_LEN), (b, PART_LEN), 1, |index, a, b| {
        body(index * PART_LEN..(index + 1) * PART_LEN, a, b);
    });
    body(whole..len, a_rest, b_rest);
}

simd_fns! {
    /// `m += (1 - momentum) * (scale * g - m)`, and `update` is the same mean of `scale * g` and
    /// the new m.
    fn nesterov(
        gradients: &[f32], m: &mut [f32], update: &mut [f32], scale: f32, momentum: f32,
    ) = nesterov_kernel;

    /// `out = out_factor * out + factor * x`; what was in `out` does not matter where its factor
    /// is 0.
    fn combine(out: &mut [f32], x: &[f32], out_factor: f32, factor: f32) = combine_kernel;

    /// `values += decay * values + size * update`.
    fn apply(values: &mut [f32], update: &[f32], decay: f32, size: f32) = apply_kernel;
}

#[inline(always)]
fn nesterov_kernel<S: Simd>(
    simd: S,
    gradients: &[f32],
    m: &mut [f32],
    update: &mut [f32],
    scale: f32,
    momentum: f32,
) {
    let (scale, kept) = (simd.splat(scale), simd.splat(momentum));
    let (gradient_chunks, gradient_rest) = gradients.as_chunks::<LANES>();
    let (m_chunks, m_rest) = m.as_chunks_mut::<LANES>();
    let (update_chunks, update_rest) = update.as_chunks_mut::<LANES>();
    for ((gradient, m), update) in gradient_chunks.iter().zip(m_chunks).zip(update_chunks) {
        let (gradient, old) = (simd.load_array(gradient), simd.load_array(m));
        let (new_m, new_update) = nesterov_step(simd, gradient, old, scale, kept);
        simd.store_array(m, new_m);
        simd.store_array(update, new_update);
    }
    if !m_rest.is_empty() {
        let load = |rest: &[f32]| load_partial(simd, rest, 0.0);
        let (gradient, old) = (load(gradient_rest), load(m_rest));
        let (new_m, new_update) = nesterov_step(simd, gradient, old, scale, kept);
        store_partial(simd, m_rest, new_m);
        store_partial(simd, update_rest, new_update);
    }
}

/// The new momentum and the update. Not a closure: what is called in two places must be inlined
/// by force to have the features of its path.
#[inline(always)]
fn nesterov_step<S: Simd>(
    simd: S,
    gradient: S::F,
    m: S::F,
    scale: S::F,
    kept: S::F,
) -> (S::F, S::F) {
    let gradient = simd.mul(gradient, scale);
    let m = simd.fma(simd.sub(m, gradient), kept, gradient);
    (m, simd.fma(simd.sub(m, gradient), kept, gradient))
}

#[inline(always)]
fn combine_kernel<S: Simd>(simd: S, out: &mut [f32], x: &[f32], out_factor: f32, factor: f32) {
    if out_factor == 0.0 {
        // Old memory may hold anything, and 0 times infinity is no number.
        out.fill(0.0);
    }
    let (out_factor, factor) = (simd.splat(out_factor), simd.splat(factor));
    map(simd, out, x, |out, x| simd.fma(out, out_factor, simd.mul(x, factor)));
}

#[inline(always)]
fn apply_kernel<S: Simd>(simd: S, values: &mut [f32], update: &[f32], decay: f32, size: f32) {
    let (decay, size) = (simd.splat(decay), simd.splat(size));
    map(simd, values, update, |value, update| {
        simd.add(value, simd.fma(value, decay, simd.mul(update, size)))
    });
}

/// `out[i] = f(out[i], x[i])`.
#[inline(always)]
fn map<S: Simd>(simd: S, out: &mut [f32], x: &[f32], f: impl Fn(S::F, S::F) -> S::F) {
    let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    for (out, x) in out_chunks.iter_mut().zip(x_chunks) {
        let new = f(simd.load_array(out), simd.load_array(x));
        simd.store_array(out, new);
    }
    if !out_rest.is_empty() {
        let new = f(load_partial(simd, out_rest, 0.0), load_partial(simd, x_rest, 0.0));
        store_partial(simd, out_rest, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::test_rows::{assert_close, assert_same_bits, values};

    const STEP: Muon = Muon {
        lr: 0.02,
        momentum: 0.95,
        weight_decay: 0.1,
        gradient_scale: 0.25,
        precision: Precision::F32,
    };

    /// Small, odd, wide, tall, and several parts.
    const SHAPES: [(usize, usize); 7] =
        [(1, 1), (1, 20), (7, 3), (16, 48), (48, 16), (33, 65), (70, 300)];

    fn product(a: &[f64], b: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        let element = |at: usize| (0..k).map(|i| a[at / n * k + i] * b[i * n + at % n]).sum();
        (0..m * n).map(element).collect()
    }

    fn transposed(a: &[f64], (rows, cols): (usize, usize)) -> Vec<f64> {
        (0..rows * cols).map(|at| a[at % rows * cols + at / rows]).collect()
    }

    /// The formula at the top, in f64, always with x x^T.
    fn reference_update(x: &[f64], (rows, cols): (usize, usize)) -> Vec<f64> {
        let [a, b, c] = COEFFICIENTS.map(f64::from);
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + NORM_MIN;
        let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
        for _ in 0..NUM_ITERATIONS {
            let s = product(&x, &transposed(&x, (rows, cols)), (rows, cols, rows));
            let s_squared = product(&s, &s, (rows, rows, rows));
            let factor: Vec<f64> = s.iter().zip(&s_squared).map(|(s, t)| b * s + c * t).collect();
            let change = product(&factor, &x, (rows, rows, cols));
            x.iter_mut().zip(change).for_each(|(x, change)| *x = a * *x + change);
        }
        x
    }

    /// Values and momentum after two steps.
    fn two_steps(
        isa: Isa,
        num_threads: usize,
        shape: (usize, usize),
        precision: Precision,
    ) -> [Vec<f32>; 2] {
        let len = shape.0 * shape.1;
        let (mut x, mut m) = (values(len, 1, 1.0), vec![0.0; len]);
        let pool = &mut Pool::new(num_threads).unwrap();
        let mut scratch = MuonScratch::default();
        let step = Muon { precision, ..STEP };
        for seed in [2, 3] {
            let gradients = values(len, seed, 1.0);
            muon(pool, isa, &mut x, shape, &gradients, &mut m, &step, &mut scratch).unwrap();
        }
        [x, m]
    }

    #[test]
    fn agrees_with_the_formula_on_every_path_and_number_of_threads() {
        for shape in SHAPES {
            let len = shape.0 * shape.1;
            let wide =
                |seed| -> Vec<f64> { values(len, seed, 1.0).into_iter().map(f64::from).collect() };
            let (mut x, mut m) = (wide(1), vec![0.0; len]);
            for seed in [2, 3] {
                let gradients: Vec<f64> =
                    wide(seed).iter().map(|g| g * STEP.gradient_scale).collect();
                for (m, g) in m.iter_mut().zip(&gradients) {
                    *m = STEP.momentum * *m + (1.0 - STEP.momentum) * g;
                }
                let mean = |(m, g): (&f64, &f64)| STEP.momentum * m + (1.0 - STEP.momentum) * g;
                let update: Vec<f64> = m.iter().zip(&gradients).map(mean).collect();
                let update = reference_update(&update, shape);
                let size = STEP.lr * (shape.0 as f64 / shape.1 as f64).max(1.0).sqrt();
                for (x, update) in x.iter_mut().zip(update) {
                    *x = (1.0 - STEP.lr * STEP.weight_decay) * *x - size * update;
                }
            }
            let first = two_steps(Isa::Portable, 1, shape, Precision::F32);
            assert_close(&first[0], &x, 5e-6);
            assert_close(&first[1], &m, 1e-6);
            for isa in Isa::available() {
                for num_threads in [1, 2] {
                    let found = two_steps(isa, num_threads, shape, Precision::F32);
                    assert_same_bits(&found[0], &first[0]);
                    assert_same_bits(&found[1], &first[1]);
                }
                // Rounded to bf16, the way that values went is right to some percent.
                let found = two_steps(isa, 2, shape, Precision::Bf16);
                let (mut error, mut way) = (0.0, 0.0);
                for ((found, expected), start) in found[0].iter().zip(&x).zip(wide(1)) {
                    error += (f64::from(*found) - expected).powi(2);
                    way += (expected - start).powi(2);
                }
                let share = (error / way).sqrt();
                assert!(share < 0.1, "{isa:?} {shape:?}: {share}");
            }
        }
    }

    /// Eigenvalues of a symmetric matrix, by Jacobi's rotations.
    fn eigenvalues(mut s: Vec<f64>, n: usize) -> Vec<f64> {
        for _ in 0..30 {
            for p in 0..n {
                for q in p + 1..n {
                    let turn = 0.5 * (2.0 * s[p * n + q]).atan2(s[p * n + p] - s[q * n + q]);
                    let (sin, cos) = turn.sin_cos();
                    for i in 0..n {
                        let (a, b) = (s[i * n + p], s[i * n + q]);
                        (s[i * n + p], s[i * n + q]) = (cos * a + sin * b, cos * b - sin * a);
                    }
                    for i in 0..n {
                        let (a, b) = (s[p * n + i], s[q * n + i]);
                        (s[p * n + i], s[q * n + i]) = (cos * a + sin * b, cos * b - sin * a);
                    }
                }
            }
        }
        (0..n).map(|i| s[i * n + i]).collect()
    }

    #[test]
    fn singular_values_of_the_update_are_near_one() {
        for (shape, precision) in
            [((16, 48), Precision::F32), ((48, 16), Precision::F32), ((24, 40), Precision::Bf16)]
        {
            let len = shape.0 * shape.1;
            let step = Muon { lr: 1.0, weight_decay: 1.0, precision, ..STEP };
            let (mut x, mut m) = (vec![1.0; len], vec![0.0; len]);
            let pool = &mut Pool::new(2).unwrap();
            let scratch = &mut MuonScratch::default();
            let gradients = values(len, 5, 1e-3);
            // With all of the old value decayed, what is left is the update.
            muon(pool, Isa::best(), &mut x, shape, &gradients, &mut m, &step, scratch).unwrap();
            let size = (shape.0 as f64 / shape.1 as f64).max(1.0).sqrt();
            let update: Vec<f64> = x.iter().map(|x| -f64::from(*x) / size).collect();
            let squares =
                product(&update, &transposed(&update, shape), (shape.0, shape.1, shape.0));
            let mut found: Vec<f64> =
                eigenvalues(squares, shape.0).iter().map(|value| value.max(0.0).sqrt()).collect();
            found.sort_by(|a, b| b.total_cmp(a));
            for value in &found[..shape.0.min(shape.1)] {
                assert!((0.65..1.25).contains(value), "{shape:?}: {found:?}");
            }
        }
    }

    #[test]
    fn a_gradient_of_zeros_only_decays() {
        let (mut x, mut m) = (vec![1.0; 12], vec![0.0; 12]);
        let pool = &mut Pool::new(1).unwrap();
        let scratch = &mut MuonScratch::default();
        muon(pool, Isa::best(), &mut x, (3, 4), &[0.0; 12], &mut m, &STEP, scratch).unwrap();
        assert_same_bits(&x, &[0.998; 12]);
        let bytes = scratch.bytes();
        muon(pool, Isa::best(), &mut x, (3, 4), &[0.0; 12], &mut m, &STEP, scratch).unwrap();
        assert_eq!(scratch.bytes(), bytes);
    }
}
