//! Sixteen lanes in two 256-bit registers.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all: a value of `Avx2` proves that the machine has the features, \
              and pointers are as the trait's contract says"
)]

use std::arch::x86_64::*;

use super::Simd;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($intrinsic:path; $($arg:expr),*) => {
        // Closures would not inherit the target features, so the two calls are spelt out.
        unsafe { [$intrinsic($($arg[0]),*), $intrinsic($($arg[1]),*)] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    const NUM_VECTORS: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [unsafe { _mm256_set1_ps(value) }; 2]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::F) {
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: Self::F) {
        let one = [unsafe { _mm256_set1_epi32(1) }; 2];
        let below_half = [unsafe { _mm256_set1_epi32(0x7fff) }; 2];
        let quiet = [unsafe { _mm256_set1_epi32(0x40) }; 2];
        let bits = both!(_mm256_castps_si256; value);
        let kept = both!(_mm256_srli_epi32::<16>; bits);
        let odd = both!(_mm256_and_si256; kept, one);
        let up = both!(_mm256_add_epi32; odd, below_half);
        let sum = both!(_mm256_add_epi32; bits, up);
        let rounded = both!(_mm256_srli_epi32::<16>; sum);
        let is_nan = both!(_mm256_cmp_ps::<_CMP_UNORD_Q>; value, value);
        let is_nan = both!(_mm256_castps_si256; is_nan);
        let quieted = both!(_mm256_or_si256; kept, quiet);
        let halves = both!(_mm256_blendv_epi8; rounded, quieted, is_nan);
        unsafe {
            // Packs within 128-bit halves; the permutation puts the quarters in order.
            let packed = _mm256_packus_epi32(halves[0], halves[1]);
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            _mm256_storeu_si256(to.cast(), packed);
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps; a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps; a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps; a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps; a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        both!(_mm256_sqrt_ps; a)
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps; a, b, c)
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps; a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps; a, b)
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        both!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>; a)
    }

    #[inline(always)]
    fn times_pow2(self, a: Self::F, n: Self::F) -> Self::F {
        // In two steps, because 2^128 is not a float.
        let n = both!(_mm256_cvtps_epi32; n);
        let half = both!(_mm256_srai_epi32::<1>; n);
        let rest = both!(_mm256_sub_epi32; n, half);
        let offset = [unsafe { _mm256_set1_epi32(127) }; 2];
        let half = both!(_mm256_add_epi32; half, offset);
        let rest = both!(_mm256_add_epi32; rest, offset);
        let half = both!(_mm256_slli_epi32::<23>; half);
        let rest = both!(_mm256_slli_epi32::<23>; rest);
        let half = both!(_mm256_castsi256_ps; half);
        let rest = both!(_mm256_castsi256_ps; rest);
        self.mul(self.mul(a, half), rest)
    }

    #[inline(always)]
    fn zero_below(self, value: Self::F, test: Self::F, bound: Self::F) -> Self::F {
        let kept = both!(_mm256_cmp_ps::<_CMP_NLT_UQ>; test, bound);
        both!(_mm256_and_ps; value, kept)
    }

    #[inline(always)]
    fn at_least(self, a: Self::F, b: Self::F) -> u32 {
        let mask = both!(_mm256_cmp_ps::<_CMP_GE_OQ>; a, b);
        let bits = both!(_mm256_movemask_ps; mask);
        bits[0] as u32 | ((bits[1] as u32) << 8)
    }

    #[inline(always)]
    fn splat_i(self, value: i32) -> Self::I {
        [unsafe { _mm256_set1_epi32(value) }; 2]
    }

    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32; a, b)
    }

    #[inline(always)]
    unsafe fn splat_bytes(self, from: *const u8) -> Self::I {
        [unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }; 2]
    }

    #[inline(always)]
    unsafe fn load_i(self, from: *const u8) -> Self::I {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[inline(always)]
    fn dot4(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I {
        // `maddubs` saturates its pair sums, so even and odd bytes are widened and multiplied
        // apart; both sums of a pair belong to the same lane.
        let low_bytes = [unsafe { _mm256_set1_epi16(0xff) }; 2];
        let u_even = both!(_mm256_and_si256; u, low_bytes);
        let u_odd = both!(_mm256_srli_epi16::<8>; u);
        let s_even = both!(_mm256_slli_epi16::<8>; s);
        let s_even = both!(_mm256_srai_epi16::<8>; s_even);
        let s_odd = both!(_mm256_srai_epi16::<8>; s);
        let even = both!(_mm256_madd_epi16; u_even, s_even);
        let odd = both!(_mm256_madd_epi16; u_odd, s_odd);
        let sum = both!(_mm256_add_epi32; even, odd);
        both!(_mm256_add_epi32; acc, sum)
    }

    #[inline(always)]
    fn join_digits(self, high: Self::I, low: Self::I) -> Self::I {
        let high = both!(_mm256_slli_epi32::<8>; high);
        both!(_mm256_add_epi32; high, low)
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps; a)
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        both!(_mm256_cvtps_epi32; a)
    }

    #[inline(always)]
    unsafe fn store_digits(self, high: *mut u8, low: *mut u8, value: Self::I) {
        let byte = [unsafe { _mm256_set1_epi32(0xff) }; 2];
        let low_bytes = both!(_mm256_and_si256; value, byte);
        let shifted = both!(_mm256_srli_epi32::<8>; value);
        let high_bytes = both!(_mm256_and_si256; shifted, byte);
        unsafe {
            for (to, bytes) in [(high, high_bytes), (low, low_bytes)] {
                // Packs within 128-bit halves; the permutation puts the quarters in order.
                let words = _mm256_packus_epi32(bytes[0], bytes[1]);
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let packed = _mm_packus_epi16(
                    _mm256_castsi256_si128(words),
                    _mm256_extracti128_si256::<1>(words),
                );
                _mm_storeu_si128(to.cast(), packed);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_signed_digits(self, to: *mut u8, step: usize, value: Self::I) {
        // The high digit is that of the value plus 128; the low one gets its 128 back.
        let half = [unsafe { _mm256_set1_epi32(128) }; 2];
        let digits = both!(_mm256_add_epi32; value, half);
        let digits = both!(_mm256_xor_si256; digits, half);
        let order = unsafe { _mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0) };
        let order = [unsafe { _mm256_broadcastsi128_si256(order) }; 2];
        let fours = both!(_mm256_shuffle_epi8; digits, order);
        unsafe {
            for (index, pair) in fours.into_iter().enumerate() {
                let to = to.add(2 * index * step);
                _mm_storel_epi64(to.cast(), _mm256_castsi256_si128(pair));
                _mm_storel_epi64(to.add(step).cast(), _mm256_extracti128_si256::<1>(pair));
            }
        }
    }

    #[inline(always)]
    fn reduce_add(self, a: Self::F) -> f32 {
        unsafe {
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    fn reduce_add_i(self, a: Self::I) -> i32 {
        unsafe {
            let a = _mm256_add_epi32(a[0], a[1]);
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b00_00_00_01>(a)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        unsafe {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
}
