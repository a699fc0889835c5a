use super::*;
use crate::Isa;

fn map_exp<S: Simd>(simd: S, values: &mut [f32]) {
    map(simd, values, |x| exp(simd, x));
}

fn map_exp2<S: Simd>(simd: S, values: &mut [f32]) {
    map(simd, values, |x| exp2(simd, x));
}

fn map_tanh<S: Simd>(simd: S, values: &mut [f32]) {
    map(simd, values, |x| tanh(simd, x));
}

fn map_sigmoid<S: Simd>(simd: S, values: &mut [f32]) {
    map(simd, values, |x| sigmoid(simd, x));
}

#[inline(always)]
fn map<S: Simd>(simd: S, values: &mut [f32], f: impl Fn(S::F) -> S::F) {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    assert!(rest.is_empty());
    for chunk in chunks {
        let value = f(simd.load_array(chunk));
        simd.store_array(chunk, value);
    }
}

simd_fns! {
    fn exp_of(values: &mut [f32]) = map_exp;
    fn exp2_of(values: &mut [f32]) = map_exp2;
    fn tanh_of(values: &mut [f32]) = map_tanh;
    fn sigmoid_of(values: &mut [f32]) = map_sigmoid;
}

fn grid(low: f32, high: f32) -> Vec<f32> {
    const NUM: usize = 1 << 18;
    (0..NUM).map(|i| low + (high - low) * i as f32 / (NUM - 1) as f32).collect()
}

/// The values of `f` on the grid on every path, after checking that the paths agree.
fn on_all_paths(f: fn(Isa, &mut [f32]), xs: &[f32]) -> Vec<f32> {
    let mut expected = xs.to_vec();
    f(Isa::Portable, &mut expected);
    for isa in Isa::available() {
        let mut found = xs.to_vec();
        f(isa, &mut found);
        for ((x, found), expected) in xs.iter().zip(&found).zip(&expected) {
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{isa:?}: at {x}: {found:e}, portable {expected:e}"
            );
        }
    }
    expected
}

fn ulps(found: f32, expected: f64) -> f64 {
    let rounded = expected as f32;
    let ulp = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
    (f64::from(found) - expected).abs() / ulp
}

#[test]
fn exp_is_within_two_ulps() {
    for (low, high) in [(-87.3, 88.7), (-1.0, 1.0), (-1e-3, 1e-3)] {
        let xs = grid(low, high);
        for (x, y) in xs.iter().zip(on_all_paths(exp_of, &xs)) {
            let error = ulps(y, f64::from(*x).exp());
            assert!(error <= 2.0, "exp({x}) = {y}: {error} ulps");
        }
    }
}

#[test]
fn exp2_is_within_its_bound_on_the_softmax_range() {
    for (low, high) in [(-126.0, 0.0), (-1.0, 0.0), (0.0, 127.0)] {
        let xs = grid(low, high);
        for (x, y) in xs.iter().zip(on_all_paths(exp2_of, &xs)) {
            let expected = f64::from(*x).exp2();
            let error = (f64::from(y) - expected).abs() / expected;
            assert!(error <= 5e-7, "exp2({x}) = {y}: {error:e}");
        }
    }
}

#[test]
fn tanh_and_sigmoid_are_within_their_bounds() {
    let xs = grid(-100.0, 100.0);
    for (x, y) in xs.iter().zip(on_all_paths(tanh_of, &xs)) {
        assert!((f64::from(y) - f64::from(*x).tanh()).abs() <= 2e-7, "tanh({x}) = {y}");
    }
    for (x, y) in xs.iter().zip(on_all_paths(sigmoid_of, &xs)) {
        let expected = 1.0 / (1.0 + (-f64::from(*x)).exp());
        assert!((f64::from(y) - expected).abs() <= 1.2e-7, "sigmoid({x}) = {y}");
    }
}

#[test]
fn extreme_arguments() {
    let mut xs = [0.0; LANES];
    let special =
        [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, -0.0, -1e30, 1e30, -87.4, 88.8, -126.5];
    xs[..special.len()].copy_from_slice(&special);
    let exps = on_all_paths(exp_of, &xs);
    assert_eq!(exps[0], 0.0);
    assert_eq!(exps[1], f32::INFINITY);
    assert!(exps[2].is_nan());
    assert_eq!(exps[3..7], [1.0, 1.0, 0.0, f32::INFINITY]);
    assert_eq!(exps[7], 0.0);
    assert_eq!(exps[8], f32::INFINITY);
    xs[1] = 0.0;
    xs[6] = 127.0;
    xs[8] = 3.0;
    let powers = on_all_paths(exp2_of, &xs);
    assert_eq!(powers[0], 0.0);
    assert!(powers[2].is_nan());
    assert_eq!(powers[3..6], [1.0, 1.0, 0.0]);
    assert_eq!(powers[9], 0.0);
    xs[1] = f32::INFINITY;
    let tanhs = on_all_paths(tanh_of, &xs);
    assert_eq!(tanhs[..2], [-1.0, 1.0]);
    assert!(tanhs[2].is_nan());
}

fn integer_sums<S: Simd>(simd: S, u: &[u8; 64], s: &[u8; 64], out: &mut [f32; LANES]) {
    // SAFETY: both arrays have 64 bytes.
    let (u, s) = unsafe { (simd.load_i(u.as_ptr()), simd.load_i(s.as_ptr())) };
    let high = simd.dot4(simd.splat_i(3), u, s);
    let joined = simd.join_digits(high, simd.dot4(high, u, s));
    simd.store_array(out, simd.to_float(joined));
}

fn digits<S: Simd>(simd: S, values: &[f32; LANES], out: &mut [u8; 32]) {
    let value = simd.to_int(simd.load_array(values));
    let (high, low) = out.split_at_mut(16);
    // SAFETY: both halves have 16 bytes.
    unsafe { simd.store_digits(high.as_mut_ptr(), low.as_mut_ptr(), value) };
}

fn signed_digits<S: Simd>(simd: S, values: &[f32; LANES], out: &mut [u8; 48]) {
    let value = simd.to_int(simd.load_array(values));
    // SAFETY: four steps of 12 bytes.
    unsafe { simd.store_signed_digits(out.as_mut_ptr(), 12, value) };
}

fn reductions<S: Simd>(simd: S, values: &[f32; LANES], out: &mut [f32; 3]) {
    let value = simd.load_array(values);
    let ties = simd.at_least(value, simd.splat(0.25)) as f32;
    *out = [simd.reduce_add(value), simd.reduce_max(value), ties];
}

simd_fns! {
    fn integer_sums_of(u: &[u8; 64], s: &[u8; 64], out: &mut [f32; LANES]) = integer_sums;
    fn digits_of(values: &[f32; LANES], out: &mut [u8; 32]) = digits;
    fn signed_digits_of(values: &[f32; LANES], out: &mut [u8; 48]) = signed_digits;
    fn reductions_of(values: &[f32; LANES], out: &mut [f32; 3]) = reductions;
}

#[test]
fn byte_products_are_exact_at_the_extremes() {
    for (u_byte, s_byte) in [(255, 127u8), (255, 128), (0, 128), (1, 255), (200, 77)] {
        let (u, s) = ([u_byte; 64], [s_byte; 64]);
        let dot = 4 * i32::from(u_byte) * i32::from(s_byte as i8);
        let expected = 256 * (3 + dot) + (3 + 2 * dot);
        for isa in Isa::available() {
            let mut out = [0.0; LANES];
            integer_sums_of(isa, &u, &s, &mut out);
            assert_eq!(out, [expected as f32; LANES], "{isa:?}");
        }
    }
}

#[test]
fn lanes_keep_their_places() {
    let values: [f32; LANES] = std::array::from_fn(|lane| 4099.0 * lane as f32 + 0.5);
    let mut expected = [0; 32];
    for (lane, value) in values.iter().enumerate() {
        let value = value.round_ties_even() as u32;
        expected[lane] = (value >> 8) as u8;
        expected[16 + lane] = value as u8;
    }
    for isa in Isa::available() {
        let mut out = [0; 32];
        digits_of(isa, &values, &mut out);
        assert_eq!(out, expected, "{isa:?}");
    }
}

#[test]
fn signed_digits_make_the_number_again() {
    let values: [f32; LANES] = [
        0.0, 1.0, -1.0, 127.0, 128.0, 129.0, -127.0, -128.0, -129.0, 255.0, 256.0, -256.0, 32639.0,
        -32639.0, 5000.0, -12345.0,
    ];
    for isa in Isa::available() {
        let mut out = [0xaa; 48];
        signed_digits_of(isa, &values, &mut out);
        for (lane, value) in values.iter().enumerate() {
            let at = lane / 4 * 12 + lane % 4;
            let (high, low) = (out[at] as i8, out[at + 4] as i8);
            assert_eq!(256 * i32::from(high) + i32::from(low), *value as i32, "{isa:?}");
        }
        assert!(out.chunks(12).all(|step| step[8..] == [0xaa; 4]), "{isa:?}");
    }
}

#[test]
fn reductions_agree_on_every_path() {
    let values: [f32; LANES] = std::array::from_fn(|lane| (lane as f32 * 1.7).sin() * 3.0);
    let mut expected = [0.0; 3];
    reductions_of(Isa::Portable, &values, &mut expected);
    assert_eq!(expected[1], values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    for isa in Isa::available() {
        let mut out = [0.0; 3];
        reductions_of(isa, &values, &mut out);
        assert_eq!(out, expected, "{isa:?}");
    }
}
