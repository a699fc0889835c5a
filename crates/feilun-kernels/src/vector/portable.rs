//! Sixteen lanes in plain Rust: the reference of the other paths.

use std::array::from_fn;

use super::{LANES, Simd, reduce_tree};

/// The path that every machine has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    const NUM_VECTORS: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self::F>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        from_fn(|lane| f32::from_bits(u32::from(halves[lane]) << 16))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: Self::F) {
        let halves = from_fn(|lane| half::bf16::from_f32(value[lane]).to_bits());
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(halves) };
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        from_fn(|lane| a[lane].sqrt())
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| greater(a[lane], b[lane]))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        from_fn(|lane| a[lane].round_ties_even())
    }

    #[inline(always)]
    fn times_pow2(self, a: Self::F, n: Self::F) -> Self::F {
        from_fn(|lane| {
            // In two steps, because 2^128 is not a float.
            let n = n[lane] as i32;
            let half = n >> 1;
            let pow2 = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
            a[lane] * pow2(half) * pow2(n - half)
        })
    }

    #[inline(always)]
    fn zero_below(self, value: Self::F, test: Self::F, bound: Self::F) -> Self::F {
        from_fn(|lane| if test[lane] < bound[lane] { 0.0 } else { value[lane] })
    }

    #[inline(always)]
    fn at_least(self, a: Self::F, b: Self::F) -> u32 {
        (0..LANES).fold(0, |bits, lane| bits | (u32::from(a[lane] >= b[lane]) << lane))
    }

    #[inline(always)]
    fn splat_i(self, value: i32) -> Self::I {
        [value; LANES]
    }

    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    #[inline(always)]
    unsafe fn splat_bytes(self, from: *const u8) -> Self::I {
        // SAFETY: the caller's promise.
        [i32::from_le_bytes(unsafe { from.cast::<[u8; 4]>().read() }); LANES]
    }

    #[inline(always)]
    unsafe fn load_i(self, from: *const u8) -> Self::I {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[[u8; 4]; LANES]>().read() };
        from_fn(|lane| i32::from_le_bytes(bytes[lane]))
    }

    #[inline(always)]
    fn dot4(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
        from_fn(|lane| {
            let (u, s) = (u[lane].to_le_bytes(), s[lane].to_le_bytes());
            (0..4).fold(acc[lane], |sum, i| sum + i32::from(u[i]) * i32::from(s[i] as i8))
        })
    }

    #[inline(always)]
    fn join_digits(self, high: Self::I, low: Self::I) -> Self::I {
        from_fn(|lane| (high[lane] << 8).wrapping_add(low[lane]))
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        from_fn(|lane| a[lane] as f32)
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        from_fn(|lane| a[lane].round_ties_even() as i32)
    }

    #[inline(always)]
    unsafe fn store_digits(self, high: *mut u8, low: *mut u8, value: Self::I) {
        // SAFETY: the caller's promise.
        unsafe {
            high.cast::<[u8; LANES]>().write(from_fn(|lane| (value[lane] >> 8) as u8));
            low.cast::<[u8; LANES]>().write(from_fn(|lane| value[lane] as u8));
        }
    }

    #[inline(always)]
    unsafe fn store_signed_digits(self, to: *mut u8, step: usize, value: Self::I) {
        for (four, lanes) in value.as_chunks::<4>().0.iter().enumerate() {
            let digits: [u8; 8] = from_fn(|at| {
                let value = lanes[at % 4];
                if at < 4 { ((value + 128) >> 8) as u8 } else { value as u8 }
            });
            // SAFETY: the caller's promise.
            unsafe { to.add(four * step).cast::<[u8; 8]>().write(digits) };
        }
    }

    #[inline(always)]
    fn reduce_add(self, a: Self::F) -> f32 {
        reduce_tree(a, |a, b| a + b)
    }

    #[inline(always)]
    fn reduce_add_i(self, a: Self::I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }

    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        reduce_tree(a, greater)
    }
}
