//! Panels of quantized weights as f32, with AVX-512: the values of
//! [`PackedMatrix::row`](crate::PackedMatrix::row), bit for bit.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512::{GroupScales, load_scales, load_steps, type_of};
use crate::BlockType;
use crate::pack::{GROUP_COLS, PANEL_ROWS, group_bytes, zero_point};

/// Columns of a step, and those that share a scale in Q6_K.
const STEP_COLS: usize = 4;
const HALF_COLS: usize = GROUP_COLS / 2;

/// Writes the columns of some groups to `out`, `[column][16]`.
///
/// # Safety
/// AVX-512 is there; `scales` and `quants` are those of a panel that has the groups.
pub(crate) unsafe fn groups_to_f32(
    block_type: BlockType,
    scales: &[u8],
    quants: &[u8],
    groups: Range<usize>,
    out: &mut [f32],
) {
    macro_rules! by_type {
        ($($type:ident)*) => {
            match block_type {
                $(BlockType::$type => {
                    to_f32::<{ BlockType::$type as usize }>(scales, quants, groups, out);
                })*
                BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
            }
        };
    }
    by_type!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn to_f32<const TYPE: usize>(
    scales: &[u8],
    quants: &[u8],
    groups: Range<usize>,
    out: &mut [f32],
) {
    let size = const { group_bytes(type_of(TYPE)) };
    let is_split = const { matches!(type_of(TYPE), BlockType::Q6K) };
    let zero = _mm512_set1_epi32(const { zero_point(type_of(TYPE)) });
    let byte = _mm512_set1_epi32(0xff);
    let columns = out.chunks_exact_mut(GROUP_COLS * PANEL_ROWS);
    for (group, out) in groups.zip(columns) {
        let GroupScales { low, high, min } = load_scales::<TYPE>(scales.as_ptr(), group);
        let steps = load_steps::<TYPE>(quants[group * size..][..size].as_ptr());
        for (i, step) in steps.into_iter().enumerate() {
            let scale = if is_split && i >= HALF_COLS / STEP_COLS { high } else { low };
            let bytes = [
                _mm512_and_si512(step, byte),
                _mm512_and_si512(_mm512_srli_epi32::<8>(step), byte),
                _mm512_and_si512(_mm512_srli_epi32::<16>(step), byte),
                _mm512_srli_epi32::<24>(step),
            ];
            for (j, quant) in bytes.into_iter().enumerate() {
                let quant = _mm512_cvtepi32_ps(_mm512_sub_epi32(quant, zero));
                // Not fused, as the plain code is not.
                let value = _mm512_add_ps(_mm512_mul_ps(scale, quant), min);
                let at = (i * STEP_COLS + j) * PANEL_ROWS;
                _mm512_storeu_ps(out[at..][..PANEL_ROWS].as_mut_ptr(), value);
            }
        }
    }
}
