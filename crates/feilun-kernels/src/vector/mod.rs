//! Sixteen `f32` lanes on every instruction path: the vocabulary of the elementwise kernels and
//! of attention.
//!
//! A kernel is written once, generic over [`Simd`], and compiled per path by [`simd_fns!`]. Each
//! operation rounds alike on every path (fused multiply-add is fused on the portable path too),
//! and sixteen lanes are sixteen lanes, so all paths give the same bits. A value of a `Simd` type
//! is the proof that the machine has its instructions: only `simd_fns!` and its like make one,
//! where the features are enabled.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Lanes of a vector, on every path.
pub(crate) const LANES: usize = 16;

/// The path that vector kernels take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Level {
    /// The level for `isa`, and never more than this machine has: what makes it sound to take
    /// an `Isa` from anybody.
    pub(crate) fn of(isa: Isa) -> Level {
        /// Best level plus one; 0 until it is known.
        static BEST: AtomicU8 = AtomicU8::new(0);
        let mut best = BEST.load(Ordering::Relaxed);
        if best == 0 {
            best = Level::named(Isa::best()) as u8 + 1;
            BEST.store(best, Ordering::Relaxed);
        }
        let wanted = Level::named(isa);
        if (wanted as u8) < best {
            wanted
        } else if best - 1 == Level::Avx2 as u8 {
            Level::Avx2
        } else {
            Level::Portable
        }
    }

    fn named(isa: Isa) -> Level {
        match isa {
            Isa::Portable => Level::Portable,
            Isa::Avx2 => Level::Avx2,
            Isa::Avx512 | Isa::Amx => Level::Avx512,
        }
    }
}

/// Defines public kernels that take an [`Isa`] from generic ones that take a [`Simd`].
macro_rules! simd_fns {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?)
        $(-> $result:ty)? = $kernel:path;)*) => {$(
        $(#[$meta])*
        $vis fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    // SAFETY: this function has the features.
                    $kernel(unsafe { $crate::vector::Avx512::new() }, $($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    // SAFETY: this function has the features.
                    $kernel(unsafe { $crate::vector::Avx2::new() }, $($arg),*)
                }
                match $crate::vector::Level::of(isa) {
                    // SAFETY: `Level::of` gives no level that the machine lacks.
                    $crate::vector::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::vector::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::vector::Level::Portable => {}
                }
            }
            let _ = isa;
            $kernel($crate::vector::Portable, $($arg),*)
        }
    )*};
}
pub(crate) use simd_fns;

/// Sixteen lanes of `f32` (`F`) and of `i32` (`I`), or of 64 bytes seen as the latter.
pub(crate) trait Simd: Copy {
    type F: Copy;
    type I: Copy;
    /// Vectors that fit the registers: what a kernel's tiles are cut to.
    const NUM_VECTORS: usize;

    fn splat(self, value: f32) -> Self::F;
    /// # Safety
    /// Sixteen floats are readable.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// # Safety
    /// Sixteen floats are writable.
    unsafe fn store(self, to: *mut f32, value: Self::F);
    /// Widens sixteen bf16.
    /// # Safety
    /// Sixteen `u16` are readable.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    /// Rounds to the nearest bf16, ties to even. NaN stays NaN, quiet, with the upper bits of its
    /// payload; subnormal numbers are kept.
    /// # Safety
    /// Sixteen `u16` are writable.
    unsafe fn store_bf16(self, to: *mut u16, value: Self::F);

    /// Asks for the cache line at an address, which may be any.
    fn prefetch(self, from: *const u8);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: a NaN in `b` survives.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: a NaN in `b` survives.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for integer `n` in -126..=128, anything for another.
    fn times_pow2(self, a: Self::F, n: Self::F) -> Self::F;
    /// 0 where `test < bound`, else `value`.
    fn zero_below(self, value: Self::F, test: Self::F, bound: Self::F) -> Self::F;
    /// Bit i is set where lane i of `a` >= that of `b`.
    fn at_least(self, a: Self::F, b: Self::F) -> u32;

    fn splat_i(self, value: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Splats the four bytes at `from`.
    /// # Safety
    /// Four bytes are readable.
    unsafe fn splat_bytes(self, from: *const u8) -> Self::I;
    /// # Safety
    /// 64 bytes are readable.
    unsafe fn load_i(self, from: *const u8) -> Self::I;
    /// `acc + dot4(u, s)` in each lane: four unsigned bytes times four signed ones, exact.
    fn dot4(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I;
    /// `256 * high + low`, wrapping.
    fn join_digits(self, high: Self::I, low: Self::I) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    /// Rounds to the nearest integer, ties to even.
    fn to_int(self, a: Self::F) -> Self::I;
    /// Stores bits 8..16 of each lane as bytes at `high`, bits 0..8 at `low`.
    /// # Safety
    /// Sixteen bytes are writable at both.
    unsafe fn store_digits(self, high: *mut u8, low: *mut u8, value: Self::I);

    /// Splits each lane into `256 * high + low` with signed digits (|lane| <= 32639), and stores
    /// for each four lanes their high digits, then their low ones, at `to`, `to + step`, ...
    /// # Safety
    /// Eight bytes are writable at each of the four places.
    unsafe fn store_signed_digits(self, to: *mut u8, step: usize, value: Self::I);

    #[inline(always)]
    fn load_array(self, values: &[f32; LANES]) -> Self::F {
        // SAFETY: the array has sixteen floats.
        unsafe { self.load(values.as_ptr()) }
    }

    #[inline(always)]
    fn store_array(self, values: &mut [f32; LANES], value: Self::F) {
        // SAFETY: the array has sixteen floats.
        unsafe { self.store(values.as_mut_ptr(), value) }
    }

    /// Sum of the lanes as a fixed tree: lane i with i + 8, then + 4, + 2, + 1.
    fn reduce_add(self, a: Self::F) -> f32;
    /// Sum of the lanes, wrapping.
    fn reduce_add_i(self, a: Self::I) -> i32;
    /// Maximum of the lanes (of those that are numbers, or else any NaN).
    fn reduce_max(self, a: Self::F) -> f32;
}

/// Sums lanes as a fixed tree: lane i with i + 8, then + 4, + 2, + 1.
fn reduce_tree(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The first lanes from `values` (at most sixteen), the others `fill`.
#[inline(always)]
pub(crate) fn load_partial<S: Simd>(simd: S, values: &[f32], fill: f32) -> S::F {
    let mut lanes = [fill; LANES];
    lanes[..values.len()].copy_from_slice(values);
    simd.load_array(&lanes)
}

/// Writes the first lanes of `value` to `to` (at most sixteen).
#[inline(always)]
pub(crate) fn store_partial<S: Simd>(simd: S, to: &mut [f32], value: S::F) {
    let mut lanes = [0.0; LANES];
    simd.store_array(&mut lanes, value);
    to.copy_from_slice(&lanes[..to.len()]);
}

/// Sixteen values from `index * 16` on, zeros after the end.
#[inline(always)]
pub(crate) fn load_chunk<S: Simd>(simd: S, values: &[f32], index: usize) -> S::F {
    let rest = &values[index * LANES..];
    match rest.first_chunk() {
        Some(chunk) => simd.load_array(chunk),
        None => load_partial(simd, rest, 0.0),
    }
}

/// Results below this power of two are flushed to zero.
const EXPONENT_MIN: f32 = -126.0;

/// `2^t`. Relative error below 5e-7; 1 exactly at 0; 0 exactly below t = -126, also at minus
/// infinity; meant for t <= 0 as a softmax has it (t < 128 is right). NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, t: S::F) -> S::F {
    // Far below, n and r are not what their names say; that result is replaced in the end.
    let n = simd.round(t);
    let r = simd.sub(t, n);
    // Minimax of (2^r - 1) / r on [-0.5, 0.5] for the relative error of 2^r.
    let mut p = simd.splat(1.112_580_4e-3);
    p = simd.fma(p, r, simd.splat(9.666_281e-3));
    p = simd.fma(p, r, simd.splat(5.557_399_6e-2));
    p = simd.fma(p, r, simd.splat(2.402_235_1e-1));
    p = simd.fma(p, r, simd.splat(6.931_428_3e-1));
    p = simd.fma(p, r, simd.splat(1.0));
    simd.zero_below(simd.times_pow2(p, n), t, simd.splat(EXPONENT_MIN))
}

/// `e^x`. At most 2 units in the last place; 0 below x = -87.33, infinity above 88.72.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    /// ln 2 in two parts, the first with few bits, so that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let t = simd.mul(x, simd.splat(std::f32::consts::LOG2_E));
    let bound = simd.splat(EXPONENT_MIN);
    let n = simd.round(simd.min(simd.splat(128.0), simd.max(bound, t)));
    let r = simd.fma(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.fma(n, simd.splat(-LN_2_LOW), r);
    // Far outside, r is no remainder; what matters there is only that 2^128 times it overflows.
    let r = simd.min(simd.splat(1.0), simd.max(simd.splat(-1.0), r));
    // Minimax of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2 for the relative error of e^r.
    let mut p = simd.splat(1.381_683_8e-3);
    p = simd.fma(p, r, simd.splat(8.368_79e-3));
    p = simd.fma(p, r, simd.splat(4.166_836_4e-2));
    p = simd.fma(p, r, simd.splat(1.666_652e-1));
    p = simd.fma(p, r, simd.splat(0.499_999_93));
    let p = simd.fma(simd.mul(r, r), p, simd.add(r, simd.splat(1.0)));
    simd.zero_below(simd.times_pow2(p, n), t, bound)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::F) -> S::F {
    let one = simd.splat(1.0);
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(one, simd.add(one, e))
}

/// `tanh x` with an absolute error below 2e-7.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    // 1 - 2 / (e^2x + 1): at large |x| it goes to -1 or 1 without a quotient of infinities.
    let one = simd.splat(1.0);
    let e = exp(simd, simd.add(x, x));
    simd.sub(one, simd.div(simd.splat(2.0), simd.add(e, one)))
}

#[cfg(test)]
pub(crate) mod test_rows;
#[cfg(test)]
mod tests;
