//! Gradients of the gates of the MLP.

use crate::vector::{LANES, Simd, load_partial, sigmoid, simd_fns, store_partial};

simd_fns! {
    /// Gradient of [`activation::silu_mul`](crate::activation::silu_mul): with `s = sigmoid(gate)`,
    /// stores `d_up = d_out * gate * s` and `d_gate = d_out * up * s * (1 + gate * (1 - s))`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, backward};
    /// let (mut d_gate, mut d_up) = ([0.0], [0.0]);
    /// backward::silu_mul(Isa::best(), &[0.0], &[3.0], &[2.0], &mut d_gate, &mut d_up);
    /// assert_eq!((d_gate, d_up), ([3.0], [0.0]));
    /// ```
    pub fn silu_mul(
        gate: &[f32], up: &[f32], d_out: &[f32], d_gate: &mut [f32], d_up: &mut [f32],
    ) = silu_mul_kernel;

    /// Gradient of [`activation::gelu_tanh_mul`](crate::activation::gelu_tanh_mul). With
    /// `z = 2 sqrt(2 / pi) * (gate + 0.044715 gate^3)` and `s = sigmoid(z)` it stores
    /// `d_up = d_out * gate * s` and `d_gate = d_out * up * s * (1 + gate * (1 - s) * dz)`,
    /// where `dz` is the derivative of z.
    pub fn gelu_tanh_mul(
        gate: &[f32], up: &[f32], d_out: &[f32], d_gate: &mut [f32], d_up: &mut [f32],
    ) = gelu_tanh_mul_kernel;
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
fn silu_mul_kernel<S: Simd>(
    simd: S,
    gate: &[f32],
    up: &[f32],
    d_out: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    gate_kernel::<S, Silu>(simd, gate, up, d_out, d_gate, d_up);
}

#[inline(always)]
fn gelu_tanh_mul_kernel<S: Simd>(
    simd: S,
    gate: &[f32],
    up: &[f32],
    d_out: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    gate_kernel::<S, GeluTanh>(simd, gate, up, d_out, d_gate, d_up);
}

#[inline(always)]
fn gate_kernel<S: Simd, G: Gate>(
    simd: S,
    gate: &[f32],
    up: &[f32],
    d_out: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    let len = gate.len();
    assert_eq!(
        [up.len(), d_out.len(), d_gate.len(), d_up.len()],
        [len; 4],
        "lengths of up, d_out, d_gate and d_up"
    );
    let (gate_chunks, gate_rest) = gate.as_chunks::<LANES>();
    let (up_chunks, up_rest) = up.as_chunks::<LANES>();
    let (d_out_chunks, d_out_rest) = d_out.as_chunks::<LANES>();
    let (d_gate_chunks, d_gate_rest) = d_gate.as_chunks_mut::<LANES>();
    let (d_up_chunks, d_up_rest) = d_up.as_chunks_mut::<LANES>();
    let inputs = gate_chunks.iter().zip(up_chunks).zip(d_out_chunks);
    let outputs = d_gate_chunks.iter_mut().zip(d_up_chunks);
    for (((gate, up), d_out), (d_gate, d_up)) in inputs.zip(outputs) {
        let (value, slope) = G::value_and_slope(simd, simd.load_array(gate));
        let d_out = simd.load_array(d_out);
        simd.store_array(d_up, simd.mul(d_out, value));
        simd.store_array(d_gate, simd.mul(simd.mul(d_out, simd.load_array(up)), slope));
    }
    if !gate_rest.is_empty() {
        let (value, slope) = G::value_and_slope(simd, load_partial(simd, gate_rest, 0.0));
        let d_out = load_partial(simd, d_out_rest, 0.0);
        let up = load_partial(simd, up_rest, 0.0);
        store_partial(simd, d_up_rest, simd.mul(d_out, value));
        store_partial(simd, d_gate_rest, simd.mul(simd.mul(d_out, up), slope));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::backward::finite_differences::{gradient, wide};
    use crate::vector::test_rows::{LENGTHS, assert_close, assert_same_bits, values};

    type Backward = fn(Isa, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);

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
                let (mut portable_gate, mut portable_up) = (vec![0.0; len], vec![0.0; len]);
                kernel(Isa::Portable, &gate, &up, &d_out, &mut portable_gate, &mut portable_up);
                assert_close(&portable_gate, &expected_gate, 2e-6);
                assert_close(&portable_up, &expected_up, 2e-6);
                for isa in Isa::available() {
                    let (mut d_gate, mut d_up) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                    kernel(isa, &gate, &up, &d_out, &mut d_gate, &mut d_up);
                    assert_same_bits(&d_gate, &portable_gate);
                    assert_same_bits(&d_up, &portable_up);
                }
            }
        }
    }

    #[test]
    fn far_out_a_gate_is_open_or_shut() {
        for kernel in [silu_mul as Backward, gelu_tanh_mul] {
            for isa in Isa::available() {
                let (mut d_gate, mut d_up) = ([f32::NAN; 2], [f32::NAN; 2]);
                kernel(isa, &[1e4, -1e4], &[5.0; 2], &[2.0; 2], &mut d_gate, &mut d_up);
                assert_eq!((d_gate, d_up), ([10.0, 0.0], [2e4, 0.0]), "{isa:?}");
            }
        }
    }
}
