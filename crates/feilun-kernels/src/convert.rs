//! bf16 from f32 and back, a row at a time.

use half::bf16;

use crate::vector::{LANES, Simd, load_partial, simd_fns, store_partial};

simd_fns! {
    /// Rounds each value to the nearest bf16, ties to even, as `bf16::from_f32` does: overflow
    /// goes to infinity, subnormal numbers are kept, and NaN stays NaN.
    ///
    /// ```
    /// use feilun_kernels::{Isa, convert};
    /// use half::bf16;
    /// let mut halves = [bf16::ZERO; 2];
    /// convert::to_bf16(Isa::best(), &[1.0, 1.003], &mut halves);
    /// assert_eq!(halves.map(f32::from), [1.0, 1.0]);
    /// ```
    pub fn to_bf16(values: &[f32], out: &mut [bf16]) = to_bf16_kernel;

    /// Widens each value, exactly.
    pub fn from_bf16(values: &[bf16], out: &mut [f32]) = from_bf16_kernel;
}

#[inline(always)]
fn to_bf16_kernel<S: Simd>(simd: S, values: &[f32], out: &mut [bf16]) {
    assert_eq!(out.len(), values.len(), "length of out");
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
    for (out, chunk) in out_chunks.iter_mut().zip(chunks) {
        // SAFETY: a chunk has sixteen bf16, each a `u16` in memory.
        unsafe { simd.store_bf16(out.as_mut_ptr().cast(), simd.load_array(chunk)) };
    }
    let mut last = [bf16::ZERO; LANES];
    // SAFETY: the array has sixteen bf16.
    unsafe { simd.store_bf16(last.as_mut_ptr().cast(), load_partial(simd, rest, 0.0)) };
    out_rest.copy_from_slice(&last[..rest.len()]);
}

#[inline(always)]
fn from_bf16_kernel<S: Simd>(simd: S, values: &[bf16], out: &mut [f32]) {
    assert_eq!(out.len(), values.len(), "length of out");
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
    for (out, chunk) in out_chunks.iter_mut().zip(chunks) {
        // SAFETY: a chunk has sixteen bf16, each a `u16` in memory.
        simd.store_array(out, unsafe { simd.load_bf16(chunk.as_ptr().cast()) });
    }
    let mut last = [bf16::ZERO; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // SAFETY: the array has sixteen bf16.
    store_partial(simd, out_rest, unsafe { simd.load_bf16(last.as_ptr().cast()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::test_support::Random;
    use crate::vector::test_rows::LENGTHS;

    fn check(values: &[f32]) {
        let expected: Vec<u16> = values.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
        for isa in Isa::available() {
            let mut halves = vec![bf16::ONE; values.len()];
            to_bf16(isa, values, &mut halves);
            let found: Vec<u16> = halves.iter().map(|half| half.to_bits()).collect();
            assert_eq!(found, expected, "{isa:?}");
            let mut wide = vec![7.0; values.len()];
            from_bf16(isa, &halves, &mut wide);
            let expected: Vec<u32> = halves.iter().map(|x| x.to_f32().to_bits()).collect();
            let found: Vec<u32> = wide.iter().map(|x| x.to_bits()).collect();
            assert_eq!(found, expected, "{isa:?}");
        }
    }

    #[test]
    fn agrees_with_half_on_random_bits() {
        let mut random = Random(1);
        for len in LENGTHS {
            // Any bits: subnormal numbers, infinities and all kinds of NaN among them.
            let values: Vec<f32> = (0..len).map(|_| f32::from_bits(random.next() as u32)).collect();
            check(&values);
        }
    }

    #[test]
    fn ties_extremes_and_nan() {
        let bits = [
            0x3f80_8000,
            0x3f81_8000,
            0x3f80_8001,
            0x3f80_7fff,
            0x7f7f_ffff,
            0xff7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0xffff_ffff,
            0x0000_0001,
            0x0000_8000,
            0x0000_8001,
            0x8000_0000,
            0x0080_0000,
        ];
        check(&bits.map(f32::from_bits));
    }
}
