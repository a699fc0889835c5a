//! RMSNorm of one row: `out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]`.
//!
//! The sum of squares has one order on every path: 64 partial sums (element i goes to sum
//! i mod 64), then a fixed tree.

use crate::vector::{LANES, Simd, load_partial, simd_fns};

/// Independent chains of additions, enough to hide their latency.
const NUM_SUMS: usize = 4;

simd_fns! {
    /// RMSNorm of `x` into `out`; all slices have the same length.
    ///
    /// ```
    /// use feilun_kernels::{Isa, norm};
    /// let mut out = [0.0; 2];
    /// norm::rms_norm(Isa::best(), &[3.0, 4.0], &[1.0, 10.0], 0.0, &mut out);
    /// let rms = 12.5f32.sqrt();
    /// assert!((out[0] - 3.0 / rms).abs() < 1e-6 && (out[1] - 40.0 / rms).abs() < 1e-5);
    /// ```
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_kernel;

    /// RMSNorm of `x` in place, such as of one head of q or k.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rms_norm_in_place_kernel;

    /// `residual += delta`, then RMSNorm of the sum into `out`: the step between two blocks of
    /// a decoder, in one pass less.
    pub fn add_rms_norm(
        residual: &mut [f32], delta: &[f32], weight: &[f32], eps: f32, out: &mut [f32],
    ) = add_rms_norm_kernel;
}

#[inline(always)]
fn rms_norm_kernel<S: Simd>(simd: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((weight.len(), out.len()), (x.len(), x.len()), "lengths of weight and out");
    let factor = inverse_rms(simd, x, eps);
    let factors = simd.splat(factor);
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (weight_chunks, weight_rest) = weight.as_chunks::<LANES>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
    for ((out, x), weight) in out_chunks.iter_mut().zip(x_chunks).zip(weight_chunks) {
        let scaled = simd.mul(simd.load_array(x), factors);
        simd.store_array(out, simd.mul(scaled, simd.load_array(weight)));
    }
    for ((out, x), weight) in out_rest.iter_mut().zip(x_rest).zip(weight_rest) {
        *out = x * factor * weight;
    }
}

#[inline(always)]
fn rms_norm_in_place_kernel<S: Simd>(simd: S, x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(weight.len(), x.len(), "length of weight");
    let factor = inverse_rms(simd, x, eps);
    let factors = simd.splat(factor);
    let (x_chunks, x_rest) = x.as_chunks_mut::<LANES>();
    let (weight_chunks, weight_rest) = weight.as_chunks::<LANES>();
    for (x, weight) in x_chunks.iter_mut().zip(weight_chunks) {
        let scaled = simd.mul(simd.load_array(x), factors);
        simd.store_array(x, simd.mul(scaled, simd.load_array(weight)));
    }
    for (x, weight) in x_rest.iter_mut().zip(weight_rest) {
        *x = *x * factor * weight;
    }
}

#[inline(always)]
fn add_rms_norm_kernel<S: Simd>(
    simd: S,
    residual: &mut [f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    crate::activation::add_assign_kernel(simd, residual, delta);
    rms_norm_kernel(simd, residual, weight, eps, out);
}

/// `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    let mut sums = [simd.splat(0.0); NUM_SUMS];
    let (groups, rest) = x.as_chunks::<{ NUM_SUMS * LANES }>();
    for group in groups {
        let (chunks, _) = group.as_chunks::<LANES>();
        for (sum, chunk) in sums.iter_mut().zip(chunks) {
            let value = simd.load_array(chunk);
            *sum = simd.fma(value, value, *sum);
        }
    }
    for (sum, chunk) in sums.iter_mut().zip(rest.chunks(LANES)) {
        let value = load_partial(simd, chunk, 0.0);
        *sum = simd.fma(value, value, *sum);
    }
    let sum = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    let mean = simd.reduce_add(sum) / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::vector::test_rows::{LENGTHS, assert_close, assert_same_bits, values};

    #[test]
    fn agrees_with_the_formula_on_every_path() {
        for len in LENGTHS {
            let (x, weight) = (values(len, 1, 3.0), values(len, 2, 1.0));
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
            let rms = (mean + 1e-5).sqrt();
            let expected: Vec<f64> =
                x.iter().zip(&weight).map(|(x, w)| f64::from(*x) / rms * f64::from(*w)).collect();
            let mut portable = vec![0.0; len];
            rms_norm(Isa::Portable, &x, &weight, 1e-5, &mut portable);
            assert_close(&portable, &expected, 1e-6);
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; len];
                rms_norm(isa, &x, &weight, 1e-5, &mut out);
                assert_same_bits(&out, &portable);
                let mut in_place = x.clone();
                rms_norm_in_place(isa, &mut in_place, &weight, 1e-5);
                assert_same_bits(&in_place, &portable);
            }
        }
    }

    #[test]
    fn adding_first_is_the_same_in_one_step_or_two() {
        for len in LENGTHS {
            let (x, delta, weight) =
                (values(len, 1, 3.0), values(len, 2, 2.0), values(len, 3, 1.0));
            for isa in Isa::available() {
                let (mut once, mut out_once) = (x.clone(), vec![0.0; len]);
                add_rms_norm(isa, &mut once, &delta, &weight, 1e-6, &mut out_once);
                let (mut twice, mut out_twice) = (x.clone(), vec![0.0; len]);
                crate::activation::add_assign(isa, &mut twice, &delta);
                rms_norm(isa, &twice, &weight, 1e-6, &mut out_twice);
                assert_same_bits(&once, &twice);
                assert_same_bits(&out_once, &out_twice);
            }
        }
    }
}
