//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it. With the gradient g times
//! `gradient_scale`, at step t from 1 on:
//!
//! - `m = beta1 * m + (1 - beta1) * g`
//! - `v = beta2 * v + (1 - beta2) * g^2`
//! - `value = (1 - lr * weight_decay) * value
//!    - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`

use crate::pack::SendPointer;
use crate::vector::{LANES, Simd, load_partial, simd_fns, store_partial};
use crate::{Isa, Pool};

/// Values that a thread takes at a time.
const PART_LEN: usize = 1 << 14;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// How much of the mean gradient is kept from step to step.
    pub beta1: f64,
    /// How much of the mean square is kept.
    pub beta2: f64,
    /// Keeps the divisor from zero.
    pub eps: f64,
    /// The share of a value that a step at learning rate 1 would take away.
    pub weight_decay: f64,
    /// Number of the step, 1 for the first.
    pub step: u64,
    /// Factor on the gradients: what clipping and the number of tokens make of them.
    pub gradient_scale: f64,
}

/// The step's numbers as the kernel wants them, computed in f64 once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient_scale: f32,
    /// `1 - beta1`.
    new_share: f32,
    beta2: f32,
    /// `1 - beta2`.
    new_square_share: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    root_correction: f32,
    eps: f32,
    /// `-lr * weight_decay`: a small number has all its digits, one near 1 loses most of them.
    decay: f32,
    /// `-lr / (1 - beta1^t)`.
    step_size: f32,
}

impl Factors {
    fn new(step: &AdamW) -> Factors {
        // A run has fewer steps than an i32 can count; far before, both powers are 0.
        let t = i32::try_from(step.step).unwrap_or(i32::MAX);
        Factors {
            gradient_scale: step.gradient_scale as f32,
            new_share: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            new_square_share: (1.0 - step.beta2) as f32,
            root_correction: (1.0 / (1.0 - step.beta2.powi(t)).sqrt()) as f32,
            eps: step.eps as f32,
            decay: (-step.lr * step.weight_decay) as f32,
            step_size: (-step.lr / (1.0 - step.beta1.powi(t))) as f32,
        }
    }
}

/// Applies one step of AdamW to `values` and to the moments `m` and `v`.
///
/// ```
/// use feilun_kernels::{Isa, Pool, optimizer};
/// let step = optimizer::AdamW {
///     lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 0.0, weight_decay: 0.5, step: 1,
///     gradient_scale: 1.0,
/// };
/// let (mut values, mut m, mut v) = ([2.0], [0.0], [0.0]);
/// let pool = &mut Pool::new(1)?;
/// // The first step goes by the learning rate, whatever the gradient's size.
/// optimizer::adamw(pool, Isa::best(), &mut values, &[7.0], &mut m, &mut v, &step);
/// assert!((values[0] - (0.95 * 2.0 - 0.1)).abs() < 1e-6 && (m[0] - 0.7).abs() < 1e-6);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// When lengths differ, or the step is 0.
pub fn adamw(
    pool: &mut Pool,
    isa: Isa,
    values: &mut [f32],
    gradients: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamW,
) {
    let factors = check(values, gradients, m, v, step);
    in_parts(pool, values, m, v, |first, values, m, v| {
        update(isa, values, &gradients[first..first + values.len()], m, v, &factors);
    });
}

/// [`adamw`], which also sets the gradients to zero while they are at hand.
///
/// # Panics
/// As [`adamw`].
pub fn adamw_and_zero(
    pool: &mut Pool,
    isa: Isa,
    values: &mut [f32],
    gradients: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamW,
) {
    let factors = check(values, gradients, m, v, step);
    let start = SendPointer(gradients.as_mut_ptr());
    in_parts(pool, values, m, v, |first, values, m, v| {
        // SAFETY: the part lies within the gradients, which are as long as the values; parts do
        // not overlap, and each is visited once.
        let gradients =
            unsafe { std::slice::from_raw_parts_mut(start.get().add(first), values.len()) };
        update(isa, values, gradients, m, v, &factors);
        gradients.fill(0.0);
    });
}

fn check(values: &[f32], gradients: &[f32], m: &[f32], v: &[f32], step: &AdamW) -> Factors {
    assert_eq!(
        [gradients.len(), m.len(), v.len()],
        [values.len(); 3],
        "lengths of gradients, m and v"
    );
    assert!(step.step > 0, "steps count from 1");
    Factors::new(step)
}

/// Calls `body` with the index of the first value and the three slices of each part.
fn in_parts(
    pool: &mut Pool,
    values: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    body: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    let len = values.len();
    let starts = [values, m, v].map(|slice| SendPointer(slice.as_mut_ptr()));
    pool.for_each_range(len.div_ceil(PART_LEN), 1, |range| {
        for index in range {
            let first = index * PART_LEN;
            let part_len = PART_LEN.min(len - first);
            // SAFETY: the part lies within the slices, which `check` found equally long; parts
            // do not overlap, and each is visited once.
            let part = |start: &SendPointer<f32>| unsafe {
                std::slice::from_raw_parts_mut(start.get().add(first), part_len)
            };
            let [values, m, v] = &starts;
            body(first, part(values), part(m), part(v));
        }
    });
}

simd_fns! {
    fn update(
        values: &mut [f32], gradients: &[f32], m: &mut [f32], v: &mut [f32], factors: &Factors,
    ) = update_kernel;
}

#[inline(always)]
fn update_kernel<S: Simd>(
    simd: S,
    values: &mut [f32],
    gradients: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    factors: &Factors,
) {
    let (value_chunks, value_rest) = values.as_chunks_mut::<LANES>();
    let (gradient_chunks, gradient_rest) = gradients.as_chunks::<LANES>();
    let (m_chunks, m_rest) = m.as_chunks_mut::<LANES>();
    let (v_chunks, v_rest) = v.as_chunks_mut::<LANES>();
    let moments = m_chunks.iter_mut().zip(v_chunks);
    for ((value, gradient), (m, v)) in value_chunks.iter_mut().zip(gradient_chunks).zip(moments) {
        let load = |chunk| simd.load_array(chunk);
        let new = update_vector(simd, factors, load(value), load(gradient), load(m), load(v));
        simd.store_array(value, new[0]);
        simd.store_array(m, new[1]);
        simd.store_array(v, new[2]);
    }
    if !value_rest.is_empty() {
        let load = |rest: &[f32]| load_partial(simd, rest, 0.0);
        let (value, gradient) = (load(value_rest), load(gradient_rest));
        let new = update_vector(simd, factors, value, gradient, load(m_rest), load(v_rest));
        store_partial(simd, value_rest, new[0]);
        store_partial(simd, m_rest, new[1]);
        store_partial(simd, v_rest, new[2]);
    }
}

/// The new value, m and v.
#[inline(always)]
fn update_vector<S: Simd>(
    simd: S,
    factors: &Factors,
    value: S::F,
    gradient: S::F,
    m: S::F,
    v: S::F,
) -> [S::F; 3] {
    let splat = |factor| simd.splat(factor);
    let gradient = simd.mul(gradient, splat(factors.gradient_scale));
    let m = simd.fma(simd.sub(gradient, m), splat(factors.new_share), m);
    let square = simd.mul(simd.mul(gradient, gradient), splat(factors.new_square_share));
    let v = simd.fma(v, splat(factors.beta2), square);
    let divisor = simd.fma(simd.sqrt(v), splat(factors.root_correction), splat(factors.eps));
    let step = simd.mul(simd.div(m, divisor), splat(factors.step_size));
    [simd.add(value, simd.fma(value, splat(factors.decay), step)), m, v]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::test_rows::{assert_close, assert_same_bits, values};

    const STEP: AdamW = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 0.5,
    };

    /// The formula at the top, in f64.
    fn reference(step: &AdamW, state: &mut [f64; 3], gradient: f64) {
        let [value, m, v] = state;
        let g = gradient * step.gradient_scale;
        *m = step.beta1 * *m + (1.0 - step.beta1) * g;
        *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
        let t = step.step as f64;
        let mean = *m / (1.0 - step.beta1.powf(t));
        let root = (*v / (1.0 - step.beta2.powf(t))).sqrt();
        *value = (1.0 - step.lr * step.weight_decay) * *value - step.lr * mean / (root + step.eps);
    }

    #[test]
    fn agrees_with_the_formula_on_every_path_and_number_of_threads() {
        for len in [0, 1, 15, 16, 17, 1000, PART_LEN, PART_LEN + 1, 3 * PART_LEN + 33] {
            let start = values(len, 1, 1.0);
            let mut expected: Vec<[f64; 3]> =
                start.iter().map(|value| [f64::from(*value), 0.0, 0.0]).collect();
            let gradients: Vec<Vec<f32>> = (0..4).map(|t| values(len, 10 + t, 3.0)).collect();
            for (t, gradients) in gradients.iter().enumerate() {
                let step = AdamW { step: t as u64 + 1, ..STEP };
                for (state, gradient) in expected.iter_mut().zip(gradients) {
                    reference(&step, state, f64::from(*gradient));
                }
            }
            let mut first: Option<[Vec<f32>; 3]> = None;
            for isa in Isa::available() {
                for num_threads in [1, 2] {
                    let pool = &mut Pool::new(num_threads).unwrap();
                    let [mut x, mut m, mut v] = [start.clone(), vec![0.0; len], vec![0.0; len]];
                    for (t, gradients) in gradients.iter().enumerate() {
                        let step = AdamW { step: t as u64 + 1, ..STEP };
                        // Both functions in turn: they are the same but for the zeros.
                        if t % 2 == 0 {
                            adamw(pool, isa, &mut x, gradients, &mut m, &mut v, &step);
                        } else {
                            let mut spent = gradients.clone();
                            adamw_and_zero(pool, isa, &mut x, &mut spent, &mut m, &mut v, &step);
                            assert_same_bits(&spent, &vec![0.0; len]);
                        }
                    }
                    let found = [x, m, v];
                    for (index, found) in found.iter().enumerate() {
                        let expected: Vec<f64> =
                            expected.iter().map(|state| state[index]).collect();
                        assert_close(found, &expected, 1e-6);
                    }
                    let first = first.get_or_insert_with(|| found.clone());
                    for (found, first) in found.iter().zip(first) {
                        assert_same_bits(found, first);
                    }
                }
            }
        }
    }

    #[test]
    fn no_gradient_and_no_decay_changes_nothing() {
        let start = values(100, 1, 1.0);
        let (mut x, mut m, mut v) = (start.clone(), vec![0.0; 100], vec![0.0; 100]);
        let step = AdamW { weight_decay: 0.0, ..STEP };
        let pool = &mut Pool::new(1).unwrap();
        adamw(pool, Isa::best(), &mut x, &[0.0; 100], &mut m, &mut v, &step);
        assert_same_bits(&x, &start);
    }

    #[test]
    #[should_panic(expected = "steps count from 1")]
    fn step_0_is_refused() {
        let step = AdamW { step: 0, ..STEP };
        let pool = &mut Pool::new(1).unwrap();
        adamw(pool, Isa::Portable, &mut [0.0], &[0.0], &mut [0.0], &mut [0.0], &step);
    }
}
