//! The end of the forward pass and the start of the backward one: from a row of logits to the
//! log-probability of the next token, and from a coefficient on it back to the logits.
//!
//! With `y = z`, or `y = cap * tanh(z / cap)` where the model caps its logits, `p = softmax(y)`
//! and V tokens, a row contributes `coefficient * ((1 - e) * ln p[target] + e * mean(ln p))` to
//! the loss, e being the label smoothing; its gradient is
//! `d_z[j] = coefficient * ((1 - e) * [j = target] + e / V - p[j]) * dy/dz[j]`.
//!
//! Exponentials are shifted by the maximum, and added in f32 per 1,024 logits, then in f64, in
//! a fixed order.

use crate::softmax::max_kernel;
use crate::vector::{LANES, Simd, exp, load_partial, simd_fns, store_partial, tanh};

/// Logits whose exponentials are added in f32 before the sum goes on in f64, so that the error
/// does not grow with the vocabulary.
const SUM_LEN: usize = 1024;

/// What lies between the logits and the log-probabilities, other than softmax.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Head {
    /// The model caps its logits: `cap * tanh(z / cap)`.
    pub softcap: Option<f32>,
    /// Share of the target's weight that is spread evenly over all tokens. It changes the
    /// gradient, not the log-probability that is returned.
    pub label_smoothing: f32,
}

simd_fns! {
    /// The natural logarithm of the probability of `target`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, backward};
    /// let logprob = backward::token_logprob(Isa::best(), &[0.0, 0.0], 1, &Default::default());
    /// assert!((logprob + 2f32.ln()).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// When there is no such logit.
    pub fn token_logprob(logits: &[f32], target: usize, head: &Head) -> f32 = token_logprob_kernel;

    /// Replaces `logits` by the gradient of the row's loss for the given coefficient (the
    /// derivative of the loss with respect to the target's log-probability), and returns that
    /// log-probability. With the default head that is `coefficient * ([j = target] - p[j])`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, backward};
    /// let mut logits = [0.0, 0.0];
    /// // Cross-entropy of one token: the loss is minus its log-probability.
    /// backward::cross_entropy(Isa::best(), &mut logits, 1, -1.0, &Default::default());
    /// assert_eq!(logits, [0.5, -0.5]);
    /// ```
    ///
    /// # Panics
    /// When there is no such logit.
    pub fn cross_entropy(
        logits: &mut [f32], target: usize, coefficient: f32, head: &Head,
    ) -> f32 = cross_entropy_kernel;
}

/// A logit as softmax sees it, and its derivative by the one before the cap.
#[inline(always)]
fn capped<S: Simd>(simd: S, z: S::F, cap: S::F) -> S::F {
    simd.mul(tanh(simd, simd.div(z, cap)), cap)
}

/// One capped logit, computed as [`capped`] does.
#[inline(always)]
fn capped_one<S: Simd>(simd: S, z: f32, softcap: Option<f32>) -> f32 {
    let Some(cap) = softcap else {
        return z;
    };
    let mut lanes = [0.0; LANES];
    simd.store_array(&mut lanes, capped(simd, simd.splat(z), simd.splat(cap)));
    lanes[0]
}

#[inline(always)]
fn token_logprob_kernel<S: Simd>(simd: S, logits: &[f32], target: usize, head: &Head) -> f32 {
    assert!(target < logits.len(), "target {target} of {} logits", logits.len());
    // The cap grows with the logit, so the largest stays the largest.
    let max = capped_one(simd, max_kernel(simd, logits), head.softcap);
    let shift = simd.splat(max);
    let sum = match head.softcap {
        None => sum_of(simd, logits, |z| exp(simd, simd.sub(z, shift))),
        Some(cap) => {
            let cap = simd.splat(cap);
            sum_of(simd, logits, |z| exp(simd, simd.sub(capped(simd, z, cap), shift)))
        }
    };
    logprob(capped_one(simd, logits[target], head.softcap), max, sum)
}

#[inline(always)]
fn logprob(logit: f32, max: f32, sum: f64) -> f32 {
    (f64::from(logit) - f64::from(max) - sum.ln()) as f32
}

// In the loops below a function is called in one place only, for whole vectors and for the rest
// alike: a closure with two callers is left out of line, without the features of its path, and
// every intrinsic in it becomes a call.

/// The sum of `f` over all values; f(-inf) is 0.
#[inline(always)]
fn sum_of<S: Simd>(simd: S, values: &[f32], f: impl Fn(S::F) -> S::F) -> f64 {
    let mut sum = 0.0;
    for part in values.chunks(SUM_LEN) {
        let mut lanes = simd.splat(0.0);
        let mut rest_sum = 0.0;
        let (chunks, rest) = part.as_chunks::<LANES>();
        for index in 0..part.len().div_ceil(LANES) {
            let chunk = chunks.get(index);
            let term = f(match chunk {
                Some(chunk) => simd.load_array(chunk),
                None => load_partial(simd, rest, 0.0),
            });
            if chunk.is_some() {
                lanes = simd.add(lanes, term);
            } else {
                rest_sum = first_lanes(simd, term, rest.len());
            }
        }
        sum += f64::from(simd.reduce_add(lanes) + rest_sum);
    }
    sum
}

/// `x[i] = f(x[i])`, and the sum of the second values of `f`.
#[inline(always)]
fn map_and_sum<S: Simd>(simd: S, values: &mut [f32], f: impl Fn(S::F) -> (S::F, S::F)) -> f64 {
    let mut sum = 0.0;
    for part in values.chunks_mut(SUM_LEN) {
        let mut lanes = simd.splat(0.0);
        let mut rest_sum = 0.0;
        let num_chunks = part.len().div_ceil(LANES);
        let (chunks, rest) = part.as_chunks_mut::<LANES>();
        for index in 0..num_chunks {
            let chunk = chunks.get_mut(index);
            let (value, term) = f(match &chunk {
                Some(chunk) => simd.load_array(chunk),
                None => load_partial(simd, rest, 0.0),
            });
            if let Some(chunk) = chunk {
                lanes = simd.add(lanes, term);
                simd.store_array(chunk, value);
            } else {
                rest_sum = first_lanes(simd, term, rest.len());
                store_partial(simd, rest, value);
            }
        }
        sum += f64::from(simd.reduce_add(lanes) + rest_sum);
    }
    sum
}

/// The sum of the first lanes, in order.
#[inline(always)]
fn first_lanes<S: Simd>(simd: S, value: S::F, count: usize) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store_array(&mut lanes, value);
    lanes[..count].iter().sum()
}

/// `x[i] = f(x[i])`.
#[inline(always)]
fn map<S: Simd>(simd: S, values: &mut [f32], f: impl Fn(S::F) -> S::F) {
    let num_chunks = values.len().div_ceil(LANES);
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for index in 0..num_chunks {
        let chunk = chunks.get_mut(index);
        let value = f(match &chunk {
            Some(chunk) => simd.load_array(chunk),
            None => load_partial(simd, rest, 0.0),
        });
        match chunk {
            Some(chunk) => simd.store_array(chunk, value),
            None => store_partial(simd, rest, value),
        }
    }
}

#[inline(always)]
fn cross_entropy_kernel<S: Simd>(
    simd: S,
    logits: &mut [f32],
    target: usize,
    coefficient: f32,
    head: &Head,
) -> f32 {
    assert!(target < logits.len(), "target {target} of {} logits", logits.len());
    let max = capped_one(simd, max_kernel(simd, logits), head.softcap);
    let target_logit = capped_one(simd, logits[target], head.softcap);
    let shift = simd.splat(max);
    let even = simd.splat(coefficient * head.label_smoothing / logits.len() as f32);
    let extra = coefficient * (1.0 - head.label_smoothing);
    match head.softcap {
        None => {
            let sum = map_and_sum(simd, logits, |z| {
                let power = exp(simd, simd.sub(z, shift));
                (power, power)
            });
            let factor = simd.splat((-f64::from(coefficient) / sum) as f32);
            map(simd, logits, |power| simd.fma(power, factor, even));
            logits[target] += extra;
            logprob(target_logit, max, sum)
        }
        Some(cap) => {
            let (cap, one) = (simd.splat(cap), simd.splat(1.0));
            let sum = map_and_sum(simd, logits, |z| {
                let bent = tanh(simd, simd.div(z, cap));
                (bent, exp(simd, simd.sub(simd.mul(bent, cap), shift)))
            });
            let slope_at_target = 1.0 - logits[target] * logits[target];
            let factor = simd.splat((-f64::from(coefficient) / sum) as f32);
            map(simd, logits, |bent| {
                let power = exp(simd, simd.sub(simd.mul(bent, cap), shift));
                let slope = simd.sub(one, simd.mul(bent, bent));
                simd.mul(simd.fma(power, factor, even), slope)
            });
            logits[target] += extra * slope_at_target;
            logprob(target_logit, max, sum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::backward::finite_differences::{gradient, wide};
    use crate::vector::test_rows::{assert_same_bits, values};

    const HEADS: [Head; 4] = [
        Head { softcap: None, label_smoothing: 0.0 },
        Head { softcap: None, label_smoothing: 0.1 },
        Head { softcap: Some(3.0), label_smoothing: 0.0 },
        Head { softcap: Some(3.0), label_smoothing: 0.1 },
    ];

    fn logprobs(logits: &[f64], head: &Head) -> Vec<f64> {
        let capped: Vec<f64> = match head.softcap.map(f64::from) {
            None => logits.to_vec(),
            Some(cap) => logits.iter().map(|z| cap * (z / cap).tanh()).collect(),
        };
        let max = capped.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = max + capped.iter().map(|y| (y - max).exp()).sum::<f64>().ln();
        capped.iter().map(|y| y - sum).collect()
    }

    fn loss(logits: &[f64], target: usize, coefficient: f64, head: &Head) -> f64 {
        let logprobs = logprobs(logits, head);
        let smoothing = f64::from(head.label_smoothing);
        let mean = logprobs.iter().sum::<f64>() / logits.len() as f64;
        coefficient * ((1.0 - smoothing) * logprobs[target] + smoothing * mean)
    }

    #[test]
    fn agrees_with_differences_of_the_formula_on_every_path() {
        for len in [1, 2, 15, 16, 17, 100, 1023, 1025] {
            for (head, coefficient) in HEADS.into_iter().zip([-1.0f32, 0.25, -0.01, 2.0]) {
                for spread in [0.1, 8.0] {
                    let logits = values(len, len as u64, spread);
                    let target = len * 2 / 3;
                    let expected = gradient(&logits, |logits| {
                        loss(logits, target, f64::from(coefficient), &head)
                    });
                    let mut portable = logits.clone();
                    cross_entropy(Isa::Portable, &mut portable, target, coefficient, &head);
                    for (index, (found, expected)) in portable.iter().zip(&expected).enumerate() {
                        let error = (f64::from(*found) - expected).abs();
                        let bound = 2e-6 * f64::from(coefficient.abs());
                        assert!(error <= bound, "{head:?} {len} {index}: {found} {expected}");
                    }
                    let logprob = token_logprob(Isa::Portable, &logits, target, &head);
                    let expected = logprobs(&wide(&logits), &head)[target];
                    let error = (f64::from(logprob) - expected).abs();
                    assert!(error <= 1e-6 * expected.abs().max(1.0), "{head:?}: {error:e}");
                    for isa in Isa::available() {
                        let mut found = logits.clone();
                        let same = cross_entropy(isa, &mut found, target, coefficient, &head);
                        assert_same_bits(&found, &portable);
                        let alone = token_logprob(isa, &logits, target, &head);
                        assert_same_bits(&[same, alone], &[logprob; 2]);
                    }
                }
            }
        }
    }

    #[test]
    fn real_vocabularies_and_far_logits() {
        for len in [49_152, 262_144] {
            for spread in [1.0, 20.0, 1000.0] {
                let logits = values(len, 3, spread);
                let target = 12_345;
                let expected = logprobs(&wide(&logits), &Head::default());
                for isa in Isa::available() {
                    let mut found = logits.clone();
                    let logprob = cross_entropy(isa, &mut found, target, -1.0, &Head::default());
                    let error = (f64::from(logprob) - expected[target]).abs();
                    assert!(error <= 2e-7 * expected[target].abs(), "{len} {spread}: {error:e}");
                    let total: f64 = found.iter().map(|x| f64::from(*x)).sum();
                    assert!(total.abs() < 1e-6, "{len} {spread}: the gradient sums to {total:e}");
                    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let expected = expected.exp() - f64::from(u8::from(index == target));
                        // The exponential of a difference near 1000 is right to 1000 roundings.
                        let bound = 1e-9 + 1e-4 * expected.abs();
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error <= bound, "{len} {spread} {index}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn forbidden_tokens_get_no_gradient_and_nan_is_not_hidden() {
        for isa in Isa::available() {
            let mut logits = [f32::NEG_INFINITY, 1.0, 1.0];
            let logprob = cross_entropy(isa, &mut logits, 1, 2.0, &Head::default());
            assert!((logprob + 2f32.ln()).abs() < 1e-6);
            assert_eq!(logits, [-0.0, 1.0, -1.0]);
            for head in HEADS {
                let mut logits = values(40, 1, 1.0);
                logits[5] = f32::NAN;
                assert!(token_logprob(isa, &logits, 1, &head).is_nan());
                assert!(cross_entropy(isa, &mut logits, 1, 1.0, &head).is_nan());
                assert!(logits.iter().all(|value| value.is_nan()));
            }
        }
    }
}
