//! The matrix kernels with AVX-512 and VNNI: a panel's 16 rows are the 16 lanes.
//!
//! A group's weights are unpacked once into eight registers (one per step of four columns) and
//! multiplied with every row of the tile; the sums of up to 16 rows stay in registers.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use super::{FloatPanel, Sums};
use crate::BlockType;
use crate::pack::{PANEL_ROWS, STEP_BYTES, group_bytes, scale_record_bytes, zero_point};
use crate::rows::{GROUP_DIGITS, NUM_SUMS, QuantTile};

/// What the scales of one group come to.
pub(super) struct GroupScales {
    /// Scale of columns 0..16 (of the whole group, but for Q6_K).
    pub(super) low: __m512,
    /// Scale of columns 16..32, Q6_K only.
    pub(super) high: __m512,
    pub(super) min: __m512,
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
pub(super) const fn type_of(index: usize) -> BlockType {
    BlockType::ALL[index]
}

// One group of one or two rows, in asm from the products to the sums, because the order of the
// instructions is the point. A product takes four cycles and one can begin in each, hence four
// chains side by side. Left to itself the compiler interleaves all rows of the tile and runs out
// of registers, at half the speed; one row after the other fills the processor's scheduler with
// products that wait.
//
// Operands: {x} digits of the tile's group, {s} scales, {t} sums; {w0}..{w7} the weights' steps;
// {h0} {l0} (and {h1} {l1}) the products with high and low digits; {a0} {a1} the results.

macro_rules! products {
    ([1] $w:literal $at:literal) => {
        concat!(
            "vpdpbusd {h0}, {w", $w, "}, dword ptr [{x} + {xr} + ", $at, "]{{1to16}}\n",
            "vpdpbusd {l0}, {w", $w, "}, dword ptr [{x} + {xr} + 32 + ", $at, "]{{1to16}}\n",
        )
    };
    ([2] $w:literal $at:literal) => {
        concat!(
            products!([1] $w $at),
            "vpdpbusd {h1}, {w", $w, "}, dword ptr [{x} + {xr} + 64 + ", $at, "]{{1to16}}\n",
            "vpdpbusd {l1}, {w", $w, "}, dword ptr [{x} + {xr} + 96 + ", $at, "]{{1to16}}\n",
        )
    };
    ($rows:tt low) => {
        concat!(
            products!($rows 0 0), products!($rows 1 4), products!($rows 2 8), products!($rows 3 12)
        )
    };
    ($rows:tt high) => {
        concat!(
            products!($rows 4 16), products!($rows 5 20),
            products!($rows 6 24), products!($rows 7 28)
        )
    };
}

/// Starts the products: the low ones at minus the zero point times sum `$which`, or at 0.
macro_rules! begin {
    ([1] none) => { "vpxord {h0}, {h0}, {h0}\nvpxord {l0}, {l0}, {l0}\n" };
    ([2] none) => {
        concat!(begin!([1] none), "vpxord {h1}, {h1}, {h1}\nvpxord {l1}, {l1}, {l1}\n")
    };
    ([1] $which:literal) => {
        concat!(
            "vpxord {h0}, {h0}, {h0}\n",
            "vpbroadcastd {l0}, dword ptr [{t} + {tr} + {h} * ", $which, "]\n",
            "vpslld {l0}, {l0}, {z}\n",
        )
    };
    ([2] $which:literal) => {
        concat!(
            begin!([1] $which),
            "vpxord {h1}, {h1}, {h1}\n",
            "vpbroadcastd {l1}, dword ptr [{t} + {tr} + 4 + {h} * ", $which, "]\n",
            "vpslld {l1}, {l1}, {z}\n",
        )
    };
}

/// `a += float(128 h + l) * (scale * x scale)`.
macro_rules! finish {
    ([1] $scale:literal) => {
        concat!(
            "vpslld {h0}, {h0}, 7\n",
            "vpaddd {h0}, {h0}, {l0}\n",
            "vcvtdq2ps {h0}, {h0}\n",
            "vmulps {l0}, ", $scale, ", dword ptr [{s} + {tr}]{{1to16}}\n",
            "vfmadd231ps {a0}, {h0}, {l0}\n",
        )
    };
    ([2] $scale:literal) => {
        concat!(
            finish!([1] $scale),
            "vpslld {h1}, {h1}, 7\n",
            "vpaddd {h1}, {h1}, {l1}\n",
            "vcvtdq2ps {h1}, {h1}\n",
            "vmulps {l1}, ", $scale, ", dword ptr [{s} + {tr} + 4]{{1to16}}\n",
            "vfmadd231ps {a1}, {h1}, {l1}\n",
        )
    };
}

macro_rules! add_min {
    ([1]) => {
        "vfmadd231ps {a0}, {min}, dword ptr [{t} + {tr}]{{1to16}}\n"
    };
    ([2]) => {
        concat!(add_min!([1]), "vfmadd231ps {a1}, {min}, dword ptr [{t} + {tr} + 4]{{1to16}}\n",)
    };
}

/// The asm statement of rows `$r` (and `$r + 1`) for one family of types.
macro_rules! rows_asm {
    ($rows:tt [$($text:expr),*] $k:ident $r:literal $steps:ident $acc:ident [$($more:tt)*]) => {{
        let [w0, w1, w2, w3, w4, w5, w6, w7] = $steps;
        rows_asm!(@ $rows [$($text),*] $k $r $acc (h0 l0) [
            w0 = in(zmm_reg) w0, w1 = in(zmm_reg) w1, w2 = in(zmm_reg) w2, w3 = in(zmm_reg) w3,
            w4 = in(zmm_reg) w4, w5 = in(zmm_reg) w5, w6 = in(zmm_reg) w6, w7 = in(zmm_reg) w7,
            x = in(reg) $k.x_quants, s = in(reg) $k.x_scales, t = in(reg) $k.x_sums,
            xr = const $r * GROUP_DIGITS, tr = const $r * 4,
            h0 = out(zmm_reg) h0, l0 = out(zmm_reg) l0,
            $($more)*
        ])
    }};
    (@ [1] [$($text:expr),*] $k:ident $r:literal $acc:ident ($h0:ident $l0:ident) [$($operands:tt)*]) => {{
        let ($h0, $l0): (__m512i, __m512i);
        std::arch::asm!(
            $($text),*, $($operands)*
            a0 = inout(zmm_reg) $acc[$r],
            options(readonly, nostack, preserves_flags)
        );
        let _ = ($h0, $l0);
    }};
    (@ [2] [$($text:expr),*] $k:ident $r:literal $acc:ident ($h0:ident $l0:ident) [$($operands:tt)*]) => {{
        // Typed, since the assembler gets a wrong register name for an anonymous output.
        let ($h0, $l0, h1, l1): (__m512i, __m512i, __m512i, __m512i);
        std::arch::asm!(
            $($text),*, $($operands)*
            h1 = out(zmm_reg) h1, l1 = out(zmm_reg) l1,
            a0 = inout(zmm_reg) $acc[$r], a1 = inout(zmm_reg) $acc[$r + 1],
            options(readonly, nostack, preserves_flags)
        );
        let _ = ($h0, $l0, h1, l1);
    }};
}

/// One or two rows of a group, for each family of types.
macro_rules! group_rows {
    ($rows:tt $r:literal $type:ident $height:ident $k:ident $steps:ident $scale:ident $acc:ident) => {
        match const { type_of($type) } {
            BlockType::Q6K => rows_asm!(
                $rows
                [begin!($rows 2), products!($rows low), finish!($rows "{low}"),
                 begin!($rows 3), products!($rows high), finish!($rows "{high}")]
                $k $r $steps $acc
                [low = in(zmm_reg) $scale.low, high = in(zmm_reg) $scale.high,
                 h = const 4 * $height, z = const zero_shift($type),]
            ),
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => rows_asm!(
                $rows
                [begin!($rows 1), products!($rows low), products!($rows high),
                 finish!($rows "{low}")]
                $k $r $steps $acc
                [low = in(zmm_reg) $scale.low,
                 h = const 4 * $height, z = const zero_shift($type),]
            ),
            _ => rows_asm!(
                $rows
                [begin!($rows none), products!($rows low), products!($rows high),
                 finish!($rows "{low}"), add_min!($rows)]
                $k $r $steps $acc
                [low = in(zmm_reg) $scale.low, min = in(zmm_reg) $scale.min,]
            ),
        }
    };
}

/// log2 of the zero point.
const fn zero_shift(index: usize) -> u32 {
    zero_point(type_of(index)).unsigned_abs().trailing_zeros()
}

/// The rows of a tile's group.
struct GroupRows {
    x_quants: *const i8,
    x_scales: *const f32,
    x_sums: *const f32,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn tile<const TYPE: usize, const HEIGHT: usize, const PANELS: usize>(
    panels: [&(&[u8], &[u8]); PANELS],
    x: &QuantTile<'_>,
    sums: &mut [Sums],
) {
    let group_bytes = const { group_bytes(type_of(TYPE)) };
    debug_assert_eq!((x.height, sums.len()), (HEIGHT, PANELS));
    let mut accs = [[_mm512_setzero_ps(); HEIGHT]; PANELS];
    let num_groups = panels[0].1.len() / group_bytes;
    let scale_bytes = panels[0].0.len() / num_groups.max(1);
    for g in 0..num_groups {
        let rows = GroupRows {
            x_quants: x.quants.as_ptr().add(g * HEIGHT * GROUP_DIGITS),
            x_scales: x.scales.as_ptr().add(g * HEIGHT),
            x_sums: x.sums.as_ptr().add(g * NUM_SUMS * HEIGHT),
        };
        for (acc, (scales, quants)) in accs.iter_mut().zip(panels) {
            // A panel is too short for the processor to notice the stream, so those that come
            // after these are asked for here, into the second-level cache.
            let ahead = PANELS * (scales.len() + quants.len());
            for line in (0..group_bytes).step_by(64) {
                let line = quants.as_ptr().wrapping_add(ahead + g * group_bytes + line);
                _mm_prefetch::<_MM_HINT_T1>(line.cast());
            }
            let scales_ahead = scales.as_ptr().wrapping_add(ahead + g * scale_bytes);
            _mm_prefetch::<_MM_HINT_T1>(scales_ahead.cast());
            let steps = load_steps::<TYPE>(quants.as_ptr().add(g * group_bytes));
            let scale = load_scales::<TYPE>(scales.as_ptr(), g);
            // Written out, since a loop would keep the sums in memory instead of registers.
            macro_rules! pairs {
                ($($r:literal)*) => {$(
                    if $r < HEIGHT {
                        group_rows!([2] $r TYPE HEIGHT rows steps scale acc);
                    }
                )*};
            }
            if HEIGHT == 1 {
                group_rows!([1] 0 TYPE HEIGHT rows steps scale acc);
            } else {
                pairs!(0 2 4 6 8 10 12 14);
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(accs) {
        for (sums, acc) in sums.iter_mut().zip(acc) {
            _mm512_storeu_ps(sums.as_mut_ptr(), acc);
        }
    }
}

/// A group's quants, one register per step: byte `4 * lane + j` is column `4 * step + j`.
///
/// # Safety
/// AVX-512 is there, and `group` points to a group of the type.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_steps<const TYPE: usize>(group: *const u8) -> [__m512i; 8] {
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

/// # Safety
/// AVX-512 is there, and `scales` points to a panel's scales with this group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c")]
pub(super) unsafe fn load_scales<const TYPE: usize>(
    scales: *const u8,
    group: usize,
) -> GroupScales {
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
