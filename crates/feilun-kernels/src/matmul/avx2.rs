//! The matrix kernels with AVX2: a panel's 16 rows are two registers of 8 lanes.
//!
//! The integer dot product is `maddubs` (unsigned × signed bytes, pairs added in 16 bits) and
//! `madd` with ones. Quants of up to 6 bits cannot overflow the 16 bits (63 · 127 · 2 < 2¹⁵);
//! 8-bit ones are multiplied as |w| · (±x), at most 128 · 127 · 2 < 2¹⁵.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use super::{FloatPanel, Sums};
use crate::BlockType;
use crate::pack::{
    GROUP_COLS, PANEL_ROWS, STEP_BYTES, group_bytes, has_min, quant_bits, scale_record_bytes,
    zero_point,
};
use crate::rows::{GROUP_DIGITS, NUM_SUMS, QuantTile};

/// Rows whose sums stay in registers beside the eight of the weights.
const ROWS_AT_ONCE: usize = 4;

/// # Safety
/// AVX2, FMA and F16C are there; `scales` and `quants` are one panel of the type, as many
/// groups as the tile.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn integer_tile(
    block_type: BlockType,
    scales: &[u8],
    quants: &[u8],
    x: &QuantTile<'_>,
    sums: &mut Sums,
) {
    macro_rules! tile {
        ($($type:ident)*) => {
            match block_type {
                $(BlockType::$type => tile::<{ BlockType::$type as usize }>(scales, quants, x, sums),)*
                BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
            }
        };
    }
    tile!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K);
}

const fn type_of(index: usize) -> BlockType {
    BlockType::ALL[index]
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const TYPE: usize>(
    scales: &[u8],
    quants: &[u8],
    x: &QuantTile<'_>,
    sums: &mut Sums,
) {
    let block_type = const { type_of(TYPE) };
    let group_bytes = const { group_bytes(type_of(TYPE)) };
    let num_groups = quants.len() / group_bytes;
    for first in (0..x.height).step_by(ROWS_AT_ONCE) {
        let num_rows = ROWS_AT_ONCE.min(x.height - first);
        for lanes in [0, 8] {
            let mut acc = [_mm256_setzero_ps(); ROWS_AT_ONCE];
            for g in 0..num_groups {
                let steps = load_steps::<TYPE>(quants.as_ptr().add(g * group_bytes + 4 * lanes));
                let scale = load_scales(block_type, scales.as_ptr(), g, lanes);
                for (r, acc) in acc.iter_mut().enumerate().take(num_rows) {
                    let at = g * x.height + first + r;
                    let high_digits = x.quants.as_ptr().add(at * GROUP_DIGITS).cast::<i32>();
                    let low_digits = high_digits.add(GROUP_COLS / 4);
                    let x_sums = x.sums.as_ptr().add(g * NUM_SUMS * x.height + first + r);
                    let x_scale = _mm256_set1_ps(*x.scales.as_ptr().add(at));
                    // Signed 8-bit weights have no zero point left to take off.
                    let start = |which: usize| {
                        let sum = x_sums.add(which * x.height).cast::<i32>().read();
                        let bits = quant_bits(block_type);
                        _mm256_set1_epi32(if bits == 8 { 0 } else { zero_point(block_type) * sum })
                    };
                    let dots = |first: usize, digits: *const i32, mut dot: __m256i| {
                        for (step, &weights) in steps.iter().enumerate().skip(first).take(4) {
                            let x = _mm256_set1_epi32(digits.add(step).read_unaligned());
                            dot = _mm256_add_epi32(dot, dot_step::<TYPE>(weights, x));
                        }
                        dot
                    };
                    let join = |high, low| {
                        _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32::<7>(high), low))
                    };
                    let mut high = dots(0, high_digits, _mm256_setzero_si256());
                    let halves = block_type == BlockType::Q6K;
                    let mut low = dots(0, low_digits, start(if halves { 2 } else { 1 }));
                    if halves {
                        let scale = _mm256_mul_ps(scale.low, x_scale);
                        *acc = _mm256_fmadd_ps(join(high, low), scale, *acc);
                        (high, low) = (_mm256_setzero_si256(), start(3));
                    }
                    high = dots(4, high_digits, high);
                    low = dots(4, low_digits, low);
                    let scale = _mm256_mul_ps(scale.high, x_scale);
                    *acc = _mm256_fmadd_ps(join(high, low), scale, *acc);
                }
                if has_min(block_type) {
                    for (r, acc) in acc.iter_mut().enumerate().take(num_rows) {
                        let sum = *x.sums.as_ptr().add(g * NUM_SUMS * x.height + first + r);
                        *acc = _mm256_fmadd_ps(scale.min, _mm256_set1_ps(sum), *acc);
                    }
                }
            }
            for (sums, acc) in sums[first..].iter_mut().zip(acc).take(num_rows) {
                _mm256_storeu_ps(sums.as_mut_ptr().add(lanes), acc);
            }
        }
    }
}

/// Dot products of 4 bytes in each 32-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_step<const TYPE: usize>(weights: __m256i, x: __m256i) -> __m256i {
    let pairs = if const { quant_bits(type_of(TYPE)) == 8 } {
        let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
        _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
    } else {
        _mm256_maddubs_epi16(weights, x)
    };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// A group's quants of 8 lanes, one register per step of four columns.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_steps<const TYPE: usize>(group: *const u8) -> [__m256i; 8] {
    let chunk = |index: usize| _mm256_loadu_si256(group.add(index * STEP_BYTES).cast());
    let bits = const { quant_bits(type_of(TYPE)) };
    if bits == 8 {
        return std::array::from_fn(chunk);
    }
    let low_mask = _mm256_set1_epi8(15);
    let mut steps: [__m256i; 8] = std::array::from_fn(|step| {
        let nibbles = chunk(step % 4);
        let shifted = if step < 4 { nibbles } else { _mm256_srli_epi16::<4>(nibbles) };
        _mm256_and_si256(shifted, low_mask)
    });
    let mut add_high = |first: usize, shifted: &[__m256i], mask: i8| {
        for (step, &shifted) in steps[first..].iter_mut().zip(shifted) {
            *step = _mm256_or_si256(*step, _mm256_and_si256(shifted, _mm256_set1_epi8(mask)));
        }
    };
    if bits == 5 {
        let high = chunk(4);
        let up = [
            _mm256_slli_epi16::<4>(high),
            _mm256_slli_epi16::<3>(high),
            _mm256_slli_epi16::<2>(high),
            _mm256_slli_epi16::<1>(high),
        ];
        let down = [
            high,
            _mm256_srli_epi16::<1>(high),
            _mm256_srli_epi16::<2>(high),
            _mm256_srli_epi16::<3>(high),
        ];
        add_high(0, &up, 16);
        add_high(4, &down, 16);
    }
    if bits == 6 {
        for half in 0..2 {
            let high = chunk(4 + half);
            let shifted = [
                _mm256_slli_epi16::<4>(high),
                _mm256_slli_epi16::<2>(high),
                high,
                _mm256_srli_epi16::<2>(high),
            ];
            add_high(4 * half, &shifted, 48);
        }
    }
    steps
}

/// What the scales of one group come to, for 8 lanes.
struct GroupScales {
    /// Of columns 0..16.
    low: __m256,
    /// Of columns 16..32: the same, but for Q6_K.
    high: __m256,
    min: __m256,
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_scales(
    block_type: BlockType,
    scales: *const u8,
    group: usize,
    lanes: usize,
) -> GroupScales {
    let half_floats = |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.add(2 * lanes).cast()));
    let record_bytes = scale_record_bytes(block_type);
    let zero = _mm256_setzero_ps();
    match block_type {
        BlockType::Q4K | BlockType::Q5K => {
            let record = scales.add(group / 8 * record_bytes);
            let at = record.add(64 + group % 8 * 32 + lanes);
            let bytes = |at: *const u8| {
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())))
            };
            let scale = _mm256_mul_ps(half_floats(record), bytes(at));
            let min = _mm256_mul_ps(half_floats(record.add(32)), bytes(at.add(16)));
            GroupScales { low: scale, high: scale, min: _mm256_xor_ps(min, _mm256_set1_ps(-0.0)) }
        }
        BlockType::Q6K => {
            let record = scales.add(group / 8 * record_bytes);
            let d = half_floats(record);
            let bytes = |half: usize| {
                let at = record.add(32 + (group % 8 * 2 + half) * PANEL_ROWS + lanes);
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())))
            };
            GroupScales {
                low: _mm256_mul_ps(d, bytes(0)),
                high: _mm256_mul_ps(d, bytes(1)),
                min: zero,
            }
        }
        _ => {
            let record = scales.add(group * record_bytes);
            let scale = half_floats(record);
            let min = if has_min(block_type) { half_floats(record.add(32)) } else { zero };
            GroupScales { low: scale, high: scale, min }
        }
    }
}

/// # Safety
/// AVX2, FMA and F16C are there; panel and tile have `cols` columns.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn float_tile(
    panel: FloatPanel<'_>,
    cols: usize,
    x: &[f32],
    height: usize,
    sums: &mut Sums,
) {
    debug_assert_eq!(x.len(), cols * height);
    for first in (0..height).step_by(ROWS_AT_ONCE) {
        let num_rows = ROWS_AT_ONCE.min(height - first);
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS_AT_ONCE];
        for col in 0..cols {
            let weights = load_column(panel, col);
            for (r, acc) in acc.iter_mut().enumerate().take(num_rows) {
                let x = _mm256_set1_ps(*x.as_ptr().add(col * height + first + r));
                acc[0] = _mm256_fmadd_ps(x, weights[0], acc[0]);
                acc[1] = _mm256_fmadd_ps(x, weights[1], acc[1]);
            }
        }
        for (sums, acc) in sums[first..].iter_mut().zip(acc).take(num_rows) {
            _mm256_storeu_ps(sums.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), acc[1]);
        }
    }
}

/// The 16 weights of a column.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_column(panel: FloatPanel<'_>, col: usize) -> [__m256; 2] {
    match panel {
        FloatPanel::F32(bytes) => {
            let at = bytes.as_ptr().add(col * 64).cast::<f32>();
            [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))]
        }
        FloatPanel::F16(bytes) => {
            let at = bytes.as_ptr().add(col * 32);
            let half = |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
            [half(at), half(at.add(16))]
        }
        FloatPanel::Bf16(bytes) => {
            let at = bytes.as_ptr().add(col / 2 * 64);
            let half = |at: *const u8| {
                let both = _mm256_loadu_si256(at.cast());
                _mm256_castsi256_ps(if col.is_multiple_of(2) {
                    _mm256_slli_epi32::<16>(both)
                } else {
                    _mm256_and_si256(both, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()))
                })
            };
            [half(at), half(at.add(32))]
        }
    }
}
