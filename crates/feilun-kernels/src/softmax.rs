//! What sampling asks of a row of logits: the largest, the sum of exponentials, the candidates.
//!
//! Rows are as long as a vocabulary. NaN logits are never chosen; a row of nothing else is the
//! caller's to refuse.

use crate::vector::{LANES, Simd, exp, load_partial, simd_fns};

/// Logits whose exponentials are added in f32 before the sum goes on in f64, so that the error
/// does not grow with the vocabulary.
const SUM_LEN: usize = 1024;
/// Logits per maximum in the search for the largest k.
const GROUP_LEN: usize = 64;

simd_fns! {
    /// Index of the largest value, the lowest such index; 0 where there is none.
    ///
    /// ```
    /// use feilun_kernels::{Isa, softmax};
    /// assert_eq!(softmax::argmax(Isa::best(), &[1.0, 3.0, 3.0]), 1);
    /// ```
    pub fn argmax(values: &[f32]) -> usize = argmax_kernel;

    /// The largest value; minus infinity where there is none.
    pub fn max(values: &[f32]) -> f32 = max_kernel;

    /// `ln(sum(e^x))`, shifted by the maximum, in a fixed order. Minus infinity for an empty row.
    ///
    /// ```
    /// use feilun_kernels::{Isa, softmax};
    /// let sum = softmax::log_sum_exp(Isa::best(), &[1.0, 1.0]);
    /// assert!((sum - 1.693_147_2).abs() < 1e-6);
    /// ```
    pub fn log_sum_exp(values: &[f32]) -> f32 = log_sum_exp_kernel;

    /// Softmax in place: `x = e^(x - max) / sum`.
    pub fn softmax(values: &mut [f32]) = softmax_kernel;

    /// Appends the indices of all values >= `threshold` to `indices`, in order.
    pub fn collect_at_least(values: &[f32], threshold: f32, indices: &mut Vec<u32>) =
        collect_at_least_kernel;

    fn group_maxima(values: &[f32], maxima: &mut [f32]) = group_maxima_kernel;
}

/// Fills `indices` with the `k` largest of `values`, largest first, ties by lowest index; fewer
/// where the row has not so many numbers. `scratch` keeps its capacity from call to call.
///
/// ```
/// use feilun_kernels::{Isa, softmax};
/// let (mut scratch, mut indices) = (Vec::new(), Vec::new());
/// softmax::top_k(Isa::best(), &[1.0, 9.0, 4.0, 9.0], 3, &mut scratch, &mut indices);
/// assert_eq!(indices, [1, 3, 2]);
/// ```
pub fn top_k(
    isa: crate::Isa,
    values: &[f32],
    k: usize,
    scratch: &mut Vec<f32>,
    indices: &mut Vec<u32>,
) {
    indices.clear();
    if k == 0 {
        return;
    }
    // The k-th largest of the groups' maxima is a bound: at least k values reach it, and few
    // more. With fewer groups than k everything is a candidate.
    let num_groups = values.len().div_ceil(GROUP_LEN);
    let mut threshold = f32::NEG_INFINITY;
    if k <= num_groups {
        scratch.clear();
        scratch.resize(num_groups, f32::NEG_INFINITY);
        group_maxima(isa, values, scratch);
        let (_, bound, _) = scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        threshold = *bound;
    }
    collect_at_least(isa, values, threshold, indices);
    let larger_first = |a: &u32, b: &u32| {
        values[*b as usize].total_cmp(&values[*a as usize]).then_with(|| a.cmp(b))
    };
    if indices.len() > k {
        indices.select_nth_unstable_by(k - 1, larger_first);
        indices.truncate(k);
    }
    indices.sort_unstable_by(larger_first);
}

#[inline(always)]
pub(crate) fn max_kernel<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let mut maxima = [simd.splat(f32::NEG_INFINITY); 4];
    let (groups, rest) = values.as_chunks::<{ 4 * LANES }>();
    for group in groups {
        let (chunks, _) = group.as_chunks::<LANES>();
        for (max, chunk) in maxima.iter_mut().zip(chunks) {
            // A NaN in the second argument would win, so the values are the first.
            *max = simd.max(simd.load_array(chunk), *max);
        }
    }
    for (max, chunk) in maxima.iter_mut().zip(rest.chunks(LANES)) {
        *max = simd.max(load_partial(simd, chunk, f32::NEG_INFINITY), *max);
    }
    let max = simd.max(simd.max(maxima[0], maxima[1]), simd.max(maxima[2], maxima[3]));
    simd.reduce_max(max)
}

#[inline(always)]
fn argmax_kernel<S: Simd>(simd: S, values: &[f32]) -> usize {
    // Two fast passes: what is the maximum, then where is it first.
    let max = max_kernel(simd, values);
    let bound = simd.splat(max);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bits = simd.at_least(simd.load_array(chunk), bound);
        if bits != 0 {
            return index * LANES + bits.trailing_zeros() as usize;
        }
    }
    let start = values.len() - rest.len();
    rest.iter().position(|value| *value >= max).map_or(0, |index| start + index)
}

#[inline(always)]
fn log_sum_exp_kernel<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let max = max_kernel(simd, values);
    if max == f32::NEG_INFINITY {
        return max;
    }
    let shift = simd.splat(max);
    let mut sum = 0.0f64;
    for part in values.chunks(SUM_LEN) {
        let mut lanes = simd.splat(0.0);
        let (chunks, rest) = part.as_chunks::<LANES>();
        for chunk in chunks {
            lanes = simd.add(lanes, exp(simd, simd.sub(simd.load_array(chunk), shift)));
        }
        if !rest.is_empty() {
            let chunk = load_partial(simd, rest, f32::NEG_INFINITY);
            lanes = simd.add(lanes, exp(simd, simd.sub(chunk, shift)));
        }
        sum += f64::from(simd.reduce_add(lanes));
    }
    (f64::from(max) + sum.ln()) as f32
}

#[inline(always)]
fn softmax_kernel<S: Simd>(simd: S, values: &mut [f32]) {
    let shift = simd.splat(max_kernel(simd, values));
    let mut sum = 0.0f64;
    for part in values.chunks_mut(SUM_LEN) {
        let mut lanes = simd.splat(0.0);
        let (chunks, rest) = part.as_chunks_mut::<LANES>();
        for chunk in chunks {
            let power = exp(simd, simd.sub(simd.load_array(chunk), shift));
            lanes = simd.add(lanes, power);
            simd.store_array(chunk, power);
        }
        if !rest.is_empty() {
            let power = exp(simd, simd.sub(load_partial(simd, rest, f32::NEG_INFINITY), shift));
            lanes = simd.add(lanes, power);
            let mut last = [0.0; LANES];
            simd.store_array(&mut last, power);
            rest.copy_from_slice(&last[..rest.len()]);
        }
        sum += f64::from(simd.reduce_add(lanes));
    }
    let factor = (1.0 / sum) as f32;
    for value in values {
        *value *= factor;
    }
}

#[inline(always)]
fn collect_at_least_kernel<S: Simd>(
    simd: S,
    values: &[f32],
    threshold: f32,
    indices: &mut Vec<u32>,
) {
    let bound = simd.splat(threshold);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut bits = simd.at_least(simd.load_array(chunk), bound);
        while bits != 0 {
            indices.push((index * LANES) as u32 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
    let start = values.len() - rest.len();
    for (index, value) in rest.iter().enumerate() {
        if *value >= threshold {
            indices.push((start + index) as u32);
        }
    }
}

#[inline(always)]
fn group_maxima_kernel<S: Simd>(simd: S, values: &[f32], maxima: &mut [f32]) {
    for (max, group) in maxima.iter_mut().zip(values.chunks(GROUP_LEN)) {
        *max = max_kernel(simd, group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::vector::test_rows::{assert_close, values};

    const LENGTHS: [usize; 10] = [1, 2, 15, 16, 17, 63, 65, 1023, 1025, 49_152];

    #[test]
    fn argmax_is_the_first_of_the_largest() {
        for isa in Isa::available() {
            for len in LENGTHS {
                let mut row = values(len, len as u64, 4.0);
                row[len / 2] = 5.0;
                row[len - 1] = 5.0;
                assert_eq!(argmax(isa, &row), len / 2, "{isa:?} {len}");
                assert_eq!(max(isa, &row), 5.0);
                row[len / 2] = f32::NAN;
                row[len - 1] = 6.0;
                assert_eq!(argmax(isa, &row), len - 1, "{isa:?} {len}");
            }
            assert_eq!(argmax(isa, &[]), 0);
            assert_eq!(argmax(isa, &[f32::NAN; 20]), 0);
            assert_eq!(argmax(isa, &[f32::NEG_INFINITY; 20]), 0);
        }
    }

    #[test]
    fn log_sum_exp_and_softmax_agree_with_f64_on_every_path() {
        for len in LENGTHS {
            for spread in [0.01, 10.0, 300.0] {
                let row = values(len, len as u64, spread);
                let sum: f64 = row.iter().map(|x| (f64::from(*x) - 300.0).exp()).sum();
                let expected = sum.ln() + 300.0;
                let shares: Vec<f64> =
                    row.iter().map(|x| (f64::from(*x) - expected).exp()).collect();
                let portable = log_sum_exp(Isa::Portable, &row);
                for isa in Isa::available() {
                    let found = log_sum_exp(isa, &row);
                    assert_eq!(found.to_bits(), portable.to_bits());
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= 3e-7 * expected.abs().max(1.0), "{len} {spread}: {error:e}");
                    let mut soft = row.clone();
                    softmax(isa, &mut soft);
                    assert_close(&soft, &shares, 1e-5);
                }
            }
        }
    }

    #[test]
    fn minus_infinity_counts_for_nothing() {
        for isa in Isa::available() {
            let row = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY];
            assert_eq!(log_sum_exp(isa, &row), 2.0);
            assert_eq!(log_sum_exp(isa, &row[..1]), f32::NEG_INFINITY);
            assert_eq!(log_sum_exp(isa, &[]), f32::NEG_INFINITY);
        }
    }

    #[test]
    fn top_k_agrees_with_a_full_sort() {
        let (mut scratch, mut indices) = (Vec::new(), Vec::new());
        for len in LENGTHS {
            // Few distinct values, so that there are many ties.
            let mut row = values(len, 9, 50.0);
            row.iter_mut().for_each(|x| *x = x.round());
            row[len / 3] = f32::NEG_INFINITY;
            let mut sorted: Vec<u32> = (0..len as u32).collect();
            sorted.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
            for isa in Isa::available() {
                for k in [0, 1, 2, 40, 1000, len, len + 5] {
                    top_k(isa, &row, k, &mut scratch, &mut indices);
                    assert_eq!(indices, sorted[..k.min(len)], "{isa:?} {len} {k}");
                }
            }
        }
    }

    #[test]
    fn top_k_never_chooses_nan() {
        let (mut scratch, mut indices) = (Vec::new(), Vec::new());
        let mut row = values(300, 1, 1.0);
        row[7] = f32::NAN;
        for isa in Isa::available() {
            for k in [1, 3, 300] {
                top_k(isa, &row, k, &mut scratch, &mut indices);
                assert_eq!(indices.len(), k.min(299));
                assert!(!indices.contains(&7));
            }
        }
    }
}
