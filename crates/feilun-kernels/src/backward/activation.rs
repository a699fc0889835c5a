//! Gradients of the gates of the MLP.

use crate::vector::{LANES, Simd, load_partial, sigmoid, simd_fns, store_partial};

simd_fns! {
    /// Gradient of [`activation::silu_mul`](crate::activation::silu_mul), in place: with
    /// `s = sigmoid(gate)`, replaces `up` by `d_up = d_out * gate * s` and `gate` by
    /// `d_gate = d_out * up * s * (1 + gate * (1 - s))`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, backward};
    /// let (mut gate, mut up) = ([0.0], [3.0]);
    /// backward::silu_mul(Isa::best(), &mut gate, &mut up, &[2.0]);
    /// assert_eq!((gate, up), ([3.0], [0.0]));
    /// ```
    pub fn silu_mul(gate: &mut [f32], up: &mut [f32], d_out: &[f32]) = gate_kernel::<_, Silu>;

    /// Gradient of [`activation::gelu_tanh_mul`](crate::activation::gelu_tanh_mul), in place. With
    /// `z = 2 sqrt(2 / pi) * (gate + 0.044715 gate^3)` and `s = sigmoid(z)` it replaces `up` by
    /// `d_up = d_out * gate * s` and `gate` by
    /// `d_gate = d_out * up * s * (1 + gate * (1 - s) * dz)`, where `dz` is the derivative of z.
    pub fn gelu_tanh_mul(gate: &mut [f32], up: &mut [f32], d_out: &[f32])
        = gate_kernel::<_, GeluTanh>;
}

/// An activation: a trait and no closure, since only a direct call is inlined whatever its size,
/// and what is not inlined lacks the features of its path.
trait Gate {
    /// The activation of `x`, and its derivative.
    fn value_and_slope<S: Simd>(simd: S, x: S::F) -> (S::F, S::F);
}

struct Silu;
struct GeluTanh;

impl Gate for Silu {
    #[inline(always)]
    fn value_and_slope<S: Simd>(simd: S, x: S::F) -> (S::F, S::F) {
        gated(simd, x, x, simd.splat(1.0))
    }
}

impl Gate for GeluTanh {
    #[inline(always)]
    fn value_and_slope<S: Simd>(simd: S, x: S::F) -> (S::F, S::F) {
        /// `2 sqrt(2 / pi)`.
        const OUTER: f32 = 1.595_769_2;
        const INNER: f32 = OUTER * 0.044_715;
        let square = simd.mul(x, x);
        let z = simd.mul(x, simd.fma(square, simd.splat(INNER), simd.splat(OUTER)));
        let dz = simd.fma(square, simd.splat(3.0 * INNER), simd.splat(OUTER));
        gated(simd, x, z, dz)
    }
}

/// `x * s` and its derivative, for `s = sigmoid(z)` and dz by dx.
#[inline(always)]
fn gated<S: Simd>(simd: S, x: S::F, z: S::F, dz: S::F) -> (S::F, S::F) {
    let one = simd.splat(1.0);
    let share = sigmoid(simd, z);
    let bend = simd.mul(simd.mul(x, simd.sub(one, share)), dz);
    (simd.mul(x, share), simd.mul(share, simd.add(one, bend)))
}

#[inline(always)]
fn gate_kernel<S: Simd, G: Gate>(simd: S, gate: &mut [f32], up: &mut [f32], d_out: &[f32]) {
    assert_eq!([up.len(), d_out.len()], [gate.len(); 2], "lengths of up and d_out");
    let (gate_chunks, gate_rest) = gate.as_chunks_mut::<LANES>();
    let (up_chunks, up_rest) = up.as_chunks_mut::<LANES>();
    let (d_out_chunks, d_out_rest) = d_out.as_chunks::<LANES>();
    for ((gate, up), d_out) in gate_chunks.iter_mut().zip(up_chunks).zip(d_out_chunks) {
        let (value, slope) = G::value_and_slope(simd, simd.load_array(gate));
        let (d_out, old_up) = (simd.load_array(d_out), simd.load_array(up));
        simd.store_array(up, simd.mul(d_out, value));
        simd.store_array(gate, simd.mul(simd.mul(d_out, old_up), slope));
    }
    if !gate_rest.is_empty() {
        let (value, slope) = G::value_and_slope(simd, load_partial(simd, gate_rest, 0.0));
        let d_out = load_partial(simd, d_out_rest, 0.0);
        let old_up = load_partial(simd, up_rest, 0.0);
        store_partial(simd, up_rest, simd.mul(d_out, value));
        store_partial(simd, gate_rest, simd.mul(simd.mul(d_out, old_up), slope));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::backward::finite_differences::{gradient, wide};
    use crate::vector::test_rows::{LENGTHS, assert_close, assert_same_bits, values};

    type Backward = fn(Isa, &mut [f32], &mut [f32], &[f32]);

    fn silu(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    fn gelu_tanh(x: f64) -> f64 {
        x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }

    #[test]
    fn agrees_with_differences_of_the_formulas_on_every_path() {
        type Gate = (Backward, fn(f64) -> f64);
        let gates: [Gate; 2] = [(silu_mul, silu), (gelu_tanh_mul, gelu_tanh)];
        for (kernel, formula) in gates {
            for len in LENGTHS {
                let (gate, up) = (values(len, 1, 8.0), values(len, 2, 2.0));
                let d_out = values(len, 3, 1.0);
                let (wide_gate, wide_up, wide_d_out) = (wide(&gate), wide(&up), wide(&d_out));
                let expected_up: Vec<f64> =
                    (0..len).map(|i| wide_d_out[i] * formula(wide_gate[i])).collect();
                let expected_gate: Vec<f64> = (0..len)
                    .map(|i| gradient(&gate[i..=i], |g| formula(g[0]))[0])
                    .enumerate()
                    .map(|(i, slope)| wide_d_out[i] * wide_up[i] * slope)
                    .collect();
                let (mut portable_gate, mut portable_up) = (gate.clone(), up.clone());
                kernel(Isa::Portable, &mut portable_gate, &mut portable_up, &d_out);
                assert_close(&portable_gate, &expected_gate, 2e-6);
                assert_close(&portable_up, &expected_up, 2e-6);
                for isa in Isa::available() {
                    let (mut gate, mut up) = (gate.clone(), up.clone());
                    kernel(isa, &mut gate, &mut up, &d_out);
                    assert_same_bits(&gate, &portable_gate);
                    assert_same_bits(&up, &portable_up);
                }
            }
        }
    }

    #[test]
    fn far_out_a_gate_is_open_or_shut() {
        for kernel in [silu_mul as Backward, gelu_tanh_mul] {
            for isa in Isa::available() {
                let (mut gate, mut up) = ([1e4, -1e4], [5.0; 2]);
                kernel(isa, &mut gate, &mut up, &[2.0; 2]);
                assert_eq!((gate, up), ([10.0, 0.0], [2e4, 0.0]), "{isa:?}");
            }
        }
    }
}
