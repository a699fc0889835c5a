//! Gates of the MLP and other elementwise maps over one row.

use crate::vector::{LANES, Simd, load_partial, sigmoid, simd_fns, tanh};

simd_fns! {
    /// `out = silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`.
    ///
    /// ```
    /// use feilun_kernels::{Isa, activation};
    /// let mut out = [0.0; 2];
    /// activation::silu_mul(Isa::best(), &[1.0, 0.0], &[2.0, 5.0], &mut out);
    /// assert!((out[0] - 1.462_117).abs() < 1e-6 && out[1] == 0.0);
    /// ```
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_kernel;

    /// `out = gelu(gate) * up`, with GELU in its tanh approximation,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    pub fn gelu_tanh_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_tanh_mul_kernel;

    /// `x += delta`.
    pub fn add_assign(x: &mut [f32], delta: &[f32]) = add_assign_kernel;

    /// `x *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) = scale_kernel;

    /// `x = cap * tanh(x / cap)`, with an absolute error below `2e-7 * cap`.
    pub fn softcap(x: &mut [f32], cap: f32) = softcap_kernel;
}

/// `out[i] = f(a[i], b[i])`, the rest that fills no vector padded with zeros.
macro_rules! map2 {
    ($simd:ident, $a:ident, $b:ident, $out:ident, $f:expr) => {{
        assert_eq!(($b.len(), $out.len()), ($a.len(), $a.len()), "lengths of the rows");
        let (a_chunks, a_rest) = $a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = $b.as_chunks::<LANES>();
        let (out_chunks, out_rest) = $out.as_chunks_mut::<LANES>();
        for ((out, a), b) in out_chunks.iter_mut().zip(a_chunks).zip(b_chunks) {
            $simd.store_array(out, $f($simd, $simd.load_array(a), $simd.load_array(b)));
        }
        if !a_rest.is_empty() {
            let a = load_partial($simd, a_rest, 0.0);
            let b = load_partial($simd, b_rest, 0.0);
            let mut lanes = [0.0; LANES];
            $simd.store_array(&mut lanes, $f($simd, a, b));
            out_rest.copy_from_slice(&lanes[..out_rest.len()]);
        }
    }};
}

/// `x[i] = f(x[i])`, likewise.
macro_rules! map1 {
    ($simd:ident, $x:ident, $f:expr) => {{
        let (chunks, rest) = $x.as_chunks_mut::<LANES>();
        for x in chunks {
            let value = $f($simd.load_array(x));
            $simd.store_array(x, value);
        }
        if !rest.is_empty() {
            let mut lanes = [0.0; LANES];
            $simd.store_array(&mut lanes, $f(load_partial($simd, rest, 0.0)));
            rest.copy_from_slice(&lanes[..rest.len()]);
        }
    }};
}

#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::F, up: S::F) -> S::F {
    simd.mul(simd.mul(gate, sigmoid(simd, gate)), up)
}

#[inline(always)]
fn gelu_tanh_times<S: Simd>(simd: S, gate: S::F, up: S::F) -> S::F {
    /// `2 sqrt(2 / pi)`.
    const OUTER: f32 = 1.595_769_2;
    /// (1 + tanh y) / 2 = sigmoid(2 y), which loses nothing where tanh y is near -1.
    const INNER: f32 = OUTER * 0.044_715;
    let square = simd.mul(gate, gate);
    let slope = simd.fma(square, simd.splat(INNER), simd.splat(OUTER));
    simd.mul(simd.mul(gate, sigmoid(simd, simd.mul(gate, slope))), up)
}

#[inline(always)]
fn silu_mul_kernel<S: Simd>(simd: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    map2!(simd, gate, up, out, silu_times);
}

#[inline(always)]
fn gelu_tanh_mul_kernel<S: Simd>(simd: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    map2!(simd, gate, up, out, gelu_tanh_times);
}

#[inline(always)]
pub(crate) fn add_assign_kernel<S: Simd>(simd: S, x: &mut [f32], delta: &[f32]) {
    assert_eq!(delta.len(), x.len(), "length of delta");
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    let (delta_chunks, delta_rest) = delta.as_chunks::<LANES>();
    for (x, delta) in chunks.iter_mut().zip(delta_chunks) {
        let sum = simd.add(simd.load_array(x), simd.load_array(delta));
        simd.store_array(x, sum);
    }
    for (x, delta) in rest.iter_mut().zip(delta_rest) {
        *x += delta;
    }
}

#[inline(always)]
fn scale_kernel<S: Simd>(simd: S, x: &mut [f32], factor: f32) {
    let factors = simd.splat(factor);
    map1!(simd, x, |value| simd.mul(value, factors));
}

#[inline(always)]
fn softcap_kernel<S: Simd>(simd: S, x: &mut [f32], cap: f32) {
    let caps = simd.splat(cap);
    map1!(simd, x, |value| simd.mul(tanh(simd, simd.div(value, caps)), caps));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::vector::test_rows::{LENGTHS, assert_close, assert_same_bits, values};

    fn silu(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    fn gelu_tanh(x: f64) -> f64 {
        x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }

    #[test]
    fn gates_agree_with_their_formulas_on_every_path() {
        type Gate = (fn(Isa, &[f32], &[f32], &mut [f32]), fn(f64) -> f64);
        let gates: [Gate; 2] = [(silu_mul, silu), (gelu_tanh_mul, gelu_tanh)];
        for (kernel, formula) in gates {
            for len in LENGTHS {
                let (gate, up) = (values(len, 1, 8.0), values(len, 2, 2.0));
                let expected: Vec<f64> = gate
                    .iter()
                    .zip(&up)
                    .map(|(g, u)| formula(f64::from(*g)) * f64::from(*u))
                    .collect();
                let mut portable = vec![0.0; len];
                kernel(Isa::Portable, &gate, &up, &mut portable);
                assert_close(&portable, &expected, 2e-6);
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; len];
                    kernel(isa, &gate, &up, &mut out);
                    assert_same_bits(&out, &portable);
                }
            }
        }
    }

    #[test]
    fn gates_are_finite_far_out() {
        for kernel in [silu_mul, gelu_tanh_mul] {
            for isa in Isa::available() {
                let mut out = [f32::NAN; 3];
                kernel(isa, &[-1e4, 1e4, -200.0], &[1.0; 3], &mut out);
                assert_eq!(out, [-0.0, 1e4, -0.0], "{isa:?}");
            }
        }
    }

    #[test]
    fn maps_agree_with_their_formulas_on_every_path() {
        for len in LENGTHS {
            let (x, delta) = (values(len, 1, 60.0), values(len, 2, 2.0));
            for isa in Isa::available() {
                let mut out = x.clone();
                add_assign(isa, &mut out, &delta);
                let sums: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + d).collect();
                assert_same_bits(&out, &sums);
                let mut out = x.clone();
                scale(isa, &mut out, 0.3);
                let products: Vec<f32> = x.iter().map(|x| x * 0.3).collect();
                assert_same_bits(&out, &products);
                let mut out = x.clone();
                softcap(isa, &mut out, 30.0);
                let capped: Vec<f64> =
                    x.iter().map(|x| 30.0 * (f64::from(*x) / 30.0).tanh()).collect();
                assert_close(&out, &capped, 6e-6);
            }
        }
    }
}
