//! The matrix kernels with AVX-512 and VNNI: a panel's 16 rows are the 16 lanes.
//!
//! A group's weights are unpacked once into eight registers (one per step of four columns) and
//! multiplied with every row of the tile; the sums of up to 16 rows stay in registers.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use super::{FloatPanel, Sums};
use crate::BlockType;
use crate::pack::{GROUP_COLS, PANEL_ROWS, STEP_BYTES, group_bytes, scale_record_bytes};
use crate::rows::{GROUP_DIGITS, NUM_SUMS, QuantTile};

/// What the scales of one group come to.
struct GroupScales {
    /// Scale of columns 0..16 (of the whole group, but for Q6_K).
    low: __m512,
    /// Scale of columns 16..32, Q6_K only.
    high: __m512,
    min: __m512,
}

/// # Safety
/// AVX-512 with VNNI is there; each of `panels` (scales, quants) is one panel of the type, as
/// many groups as the tile; there are as many `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
pub(super) unsafe fn integer_tile(
    block_type: BlockType,
    panels: &[(&[u8], &[u8])],
    x: &QuantTile<'_>,
    sums: &mut [Sums],
) {
    macro_rules! by_height {
        ($type:ident) => {{
            const TYPE: usize = BlockType::$type as usize;
            match (x.height, panels) {
                (1, [a, b, c, d]) => tile::<TYPE, 1, 4>([a, b, c, d], x, sums),
                (2, [a, b, c, d]) => tile::<TYPE, 2, 4>([a, b, c, d], x, sums),
                _ => {
                    for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(1)) {
                        match x.height {
                            1 => tile::<TYPE, 1, 1>([panel], x, sums),
                            2 => tile::<TYPE, 2, 1>([panel], x, sums),
                            4 => tile::<TYPE, 4, 1>([panel], x, sums),
                            8 => tile::<TYPE, 8, 1>([panel], x, sums),
                            _ => tile::<TYPE, 16, 1>([panel], x, sums),
                        }
                    }
                }
            }
        }};
    }
    match block_type {
        BlockType::Q4_0 => by_height!(Q4_0),
        BlockType::Q4_1 => by_height!(Q4_1),
        BlockType::Q5_0 => by_height!(Q5_0),
        BlockType::Q5_1 => by_height!(Q5_1),
        BlockType::Q8_0 => by_height!(Q8_0),
        BlockType::Q4K => by_height!(Q4K),
        BlockType::Q5K => by_height!(Q5K),
        BlockType::Q6K => by_height!(Q6K),
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
    }
}

/// The storage type of a const parameter.
const fn type_of(index: usize) -> BlockType {
    BlockType::ALL[index]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn tile<const TYPE: usize, const HEIGHT: usize, const PANELS: usize>(
    panels: [&(&[u8], &[u8]); PANELS],
    x: &QuantTile<'_>,
    sums: &mut [Sums],
) {
    let group_bytes = const { group_bytes(type_of(TYPE)) };
    let has_min = const { crate::pack::has_min(type_of(TYPE)) };
    let zero = const { crate::pack::zero_point(type_of(TYPE)) };
    let halves = const { matches!(type_of(TYPE), BlockType::Q6K) };
    debug_assert_eq!((x.height, sums.len()), (HEIGHT, PANELS));
    let mut accs = [[_mm512_setzero_ps(); HEIGHT]; PANELS];
    let num_groups = panels[0].1.len() / group_bytes;
    for g in 0..num_groups {
        let x_quants = x.quants.as_ptr().add(g * HEIGHT * GROUP_DIGITS);
        let x_scales = x.scales.as_ptr().add(g * HEIGHT);
        let x_sums = x.sums.as_ptr().add(g * NUM_SUMS * HEIGHT);
        for (acc, (scales, quants)) in accs.iter_mut().zip(panels) {
            let steps = load_steps::<TYPE>(quants.as_ptr().add(g * group_bytes));
            let scale = load_scales::<TYPE>(scales.as_ptr(), g);
            // Written out row by row: a loop would keep the sums in memory instead of registers.
            macro_rules! row {
            ($($r:literal)*) => {$(
                if $r < HEIGHT {
                    let high_digits = x_quants.add($r * GROUP_DIGITS).cast::<i32>();
                    let low_digits = high_digits.add(GROUP_COLS / 4);
                    let x_scale = _mm512_set1_ps(x_scales.add($r).read());
                    // `sums[which]` times the zero point, to be taken off the products.
                    let correction = |which: usize| {
                        let sum = x_sums.add(which * HEIGHT + $r).cast::<i32>().read();
                        let sum = _mm512_set1_epi32(sum);
                        match zero {
                            8 => _mm512_slli_epi32::<3>(sum),
                            16 => _mm512_slli_epi32::<4>(sum),
                            32 => _mm512_slli_epi32::<5>(sum),
                            _ => _mm512_slli_epi32::<7>(sum),
                        }
                    };
                    // 128 times the high digits' products, then the low digits' on top.
                    let dots = |range: std::ops::Range<usize>, which: usize| {
                        let mut dot = _mm512_setzero_si512();
                        for step in range.clone() {
                            let x = high_digits.add(step).read_unaligned();
                            dot = _mm512_dpbusd_epi32(dot, steps[step], _mm512_set1_epi32(x));
                        }
                        dot = _mm512_slli_epi32::<7>(dot);
                        if zero != 0 {
                            dot = _mm512_add_epi32(dot, correction(which));
                        }
                        for step in range {
                            let x = low_digits.add(step).read_unaligned();
                            dot = _mm512_dpbusd_epi32(dot, steps[step], _mm512_set1_epi32(x));
                        }
                        _mm512_cvtepi32_ps(dot)
                    };
                    if halves {
                        let (low, high) = (dots(0..4, 2), dots(4..8, 3));
                        acc[$r] = _mm512_fmadd_ps(low, _mm512_mul_ps(scale.low, x_scale), acc[$r]);
                        acc[$r] = _mm512_fmadd_ps(high, _mm512_mul_ps(scale.high, x_scale), acc[$r]);
                    } else {
                        let dot = dots(0..8, 1);
                        acc[$r] = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale.low, x_scale), acc[$r]);
                    }
                    if has_min {
                        let x_sum = _mm512_set1_ps(x_sums.add($r).read());
                        acc[$r] = _mm512_fmadd_ps(scale.min, x_sum, acc[$r]);
                    }
                }
            )*};
        }
            row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
    }
    for (sums, acc) in sums.iter_mut().zip(accs) {
        for (sums, acc) in sums.iter_mut().zip(acc) {
            _mm512_storeu_ps(sums.as_mut_ptr(), acc);
        }
    }
}

/// A group's quants, one register per step: byte `4 * lane + j` is column `4 * step + j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_steps<const TYPE: usize>(group: *const u8) -> [__m512i; 8] {
    let chunk = |index: usize| _mm512_loadu_si512(group.add(index * STEP_BYTES).cast());
    let bits = const { crate::pack::quant_bits(type_of(TYPE)) };
    if bits == 8 {
        return std::array::from_fn(chunk);
    }
    let low_mask = _mm512_set1_epi8(15);
    let nibbles: [__m512i; 4] = std::array::from_fn(chunk);
    let mut steps: [__m512i; 8] = std::array::from_fn(|step| {
        let shifted =
            if step < 4 { nibbles[step] } else { _mm512_srli_epi16::<4>(nibbles[step - 4]) };
        _mm512_and_si512(shifted, low_mask)
    });
    // a | (b & c), as a truth table.
    const OR_AND: i32 = 0xf8;
    if bits == 5 {
        let high = chunk(4);
        let mask = _mm512_set1_epi8(16);
        let shifted = [
            _mm512_slli_epi16::<4>(high),
            _mm512_slli_epi16::<3>(high),
            _mm512_slli_epi16::<2>(high),
            _mm512_slli_epi16::<1>(high),
            high,
            _mm512_srli_epi16::<1>(high),
            _mm512_srli_epi16::<2>(high),
            _mm512_srli_epi16::<3>(high),
        ];
        for (step, shifted) in steps.iter_mut().zip(shifted) {
            *step = _mm512_ternarylogic_epi32::<OR_AND>(*step, shifted, mask);
        }
    }
    if bits == 6 {
        let mask = _mm512_set1_epi8(48);
        for half in 0..2 {
            let high = chunk(4 + half);
            let shifted = [
                _mm512_slli_epi16::<4>(high),
                _mm512_slli_epi16::<2>(high),
                high,
                _mm512_srli_epi16::<2>(high),
            ];
            for (step, shifted) in steps[4 * half..].iter_mut().zip(shifted) {
                *step = _mm512_ternarylogic_epi32::<OR_AND>(*step, shifted, mask);
            }
        }
    }
    steps
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c")]
unsafe fn load_scales<const TYPE: usize>(scales: *const u8, group: usize) -> GroupScales {
    let block_type = const { type_of(TYPE) };
    let half_floats = |at: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
    let record_bytes = const { scale_record_bytes(type_of(TYPE)) };
    let zero = _mm512_setzero_ps();
    match block_type {
        BlockType::Q4_1 | BlockType::Q5_1 => {
            let record = scales.add(group * record_bytes);
            GroupScales { low: half_floats(record), high: zero, min: half_floats(record.add(32)) }
        }
        BlockType::Q4K | BlockType::Q5K => {
            let record = scales.add(group / 8 * record_bytes);
            let at = record.add(64 + group % 8 * 32);
            let bytes = |at: *const u8| {
                _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())))
            };
            let min = _mm512_mul_ps(half_floats(record.add(32)), bytes(at.add(16)));
            GroupScales {
                low: _mm512_mul_ps(half_floats(record), bytes(at)),
                high: zero,
                min: _mm512_castsi512_ps(_mm512_xor_si512(
                    _mm512_castps_si512(min),
                    _mm512_set1_epi32(i32::MIN),
                )),
            }
        }
        BlockType::Q6K => {
            let record = scales.add(group / 8 * record_bytes);
            let d = half_floats(record);
            let bytes = |half: usize| {
                let at = record.add(32 + (group % 8 * 2 + half) * PANEL_ROWS);
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())))
            };
            GroupScales {
                low: _mm512_mul_ps(d, bytes(0)),
                high: _mm512_mul_ps(d, bytes(1)),
                min: zero,
            }
        }
        _ => GroupScales {
            low: half_floats(scales.add(group * record_bytes)),
            high: zero,
            min: zero,
        },
    }
}

/// # Safety
/// AVX-512 is there; panel and tile have `cols` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
pub(super) unsafe fn float_tile(
    panel: FloatPanel<'_>,
    cols: usize,
    x: &[f32],
    height: usize,
    sums: &mut Sums,
) {
    debug_assert_eq!(x.len(), cols * height);
    match height {
        1 => float_rows::<1>(panel, cols, x, sums),
        2 => float_rows::<2>(panel, cols, x, sums),
        4 => float_rows::<4>(panel, cols, x, sums),
        8 => float_rows::<8>(panel, cols, x, sums),
        _ => float_rows::<16>(panel, cols, x, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
unsafe fn float_rows<const HEIGHT: usize>(
    panel: FloatPanel<'_>,
    cols: usize,
    x: &[f32],
    sums: &mut Sums,
) {
    let mut acc = [_mm512_setzero_ps(); HEIGHT];
    let x = x.as_ptr();
    macro_rules! column {
        ($col:expr, $weights:expr) => {{
            let (x, weights) = (x.add($col * HEIGHT), $weights);
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_fmadd_ps(_mm512_set1_ps(x.add(r).read()), weights, *acc);
            }
        }};
    }
    match panel {
        FloatPanel::F32(bytes) => {
            for col in 0..cols {
                column!(col, _mm512_loadu_ps(bytes.as_ptr().add(col * 64).cast()));
            }
        }
        FloatPanel::F16(bytes) => {
            for col in 0..cols {
                let halves = _mm256_loadu_si256(bytes.as_ptr().add(col * 32).cast());
                column!(col, _mm512_cvtph_ps(halves));
            }
        }
        FloatPanel::Bf16(bytes) => {
            let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            for pair in 0..cols.div_ceil(2) {
                let both = _mm512_loadu_si512(bytes.as_ptr().add(pair * 64).cast());
                column!(2 * pair, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)));
                if 2 * pair + 1 < cols {
                    column!(2 * pair + 1, _mm512_castsi512_ps(_mm512_and_si512(both, high)));
                }
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        _mm512_storeu_ps(sums.as_mut_ptr(), acc);
    }
}
