//! The matrix kernels in plain Rust: the meaning that the fast ones are tested against.

use super::{FloatPanel, Sums};
use crate::BlockType;
use crate::pack::{
    GROUP_COLS, PANEL_ROWS, group_bytes, has_min, stored_quant, stored_scale, zero_point,
};
use crate::rows::{GROUP_DIGITS, NUM_SUMS, QuantTile};

pub(super) fn integer_tile(
    block_type: BlockType,
    scales: &[u8],
    quants: &[u8],
    x: &QuantTile<'_>,
    sums: &mut Sums,
) {
    sums.iter_mut().for_each(|sums| sums.fill(0.0));
    let run_len = crate::dequantize::group_len(block_type);
    for (g, group) in quants.chunks_exact(group_bytes(block_type)).enumerate() {
        for lane in 0..PANEL_ROWS {
            let mut weights = [0; GROUP_COLS];
            for (col, weight) in weights.iter_mut().enumerate() {
                let quant = i32::from(stored_quant(block_type, group, lane, col));
                *weight = quant - zero_point(block_type);
            }
            for (r, sums) in sums[..x.height].iter_mut().enumerate() {
                let at = g * x.height + r;
                let digits = &x.quants[at * GROUP_DIGITS..][..GROUP_DIGITS];
                let row: [i32; GROUP_COLS] = std::array::from_fn(|col| {
                    128 * i32::from(digits[col]) + i32::from(digits[GROUP_COLS + col])
                });
                let sum = &mut sums[lane];
                // One run of columns per scale: 32, or 16 in Q6_K.
                for first in (0..GROUP_COLS).step_by(run_len) {
                    let run = first..first + run_len;
                    let pairs = weights[run.clone()].iter().zip(&row[run]);
                    let dot: i32 = pairs.map(|(w, x)| w * x).sum();
                    let (scale, _) = stored_scale(block_type, scales, lane, g * GROUP_COLS + first);
                    *sum = (dot as f32).mul_add(scale * x.scales[at], *sum);
                }
                if has_min(block_type) {
                    let (_, min) = stored_scale(block_type, scales, lane, g * GROUP_COLS);
                    *sum = min.mul_add(x.sums[g * NUM_SUMS * x.height + r], *sum);
                }
            }
        }
    }
}

pub(super) fn float_tile(
    panel: FloatPanel<'_>,
    cols: usize,
    x: &[f32],
    height: usize,
    sums: &mut Sums,
) {
    sums.iter_mut().for_each(|sums| sums.fill(0.0));
    for (col, x) in x.chunks_exact(height).enumerate().take(cols) {
        for lane in 0..PANEL_ROWS {
            let weight = weight(panel, col, lane);
            for (sums, &x) in sums.iter_mut().zip(x) {
                sums[lane] = x.mul_add(weight, sums[lane]);
            }
        }
    }
}

fn weight(panel: FloatPanel<'_>, col: usize, lane: usize) -> f32 {
    let half = |bytes: &[u8], index: usize| [bytes[2 * index], bytes[2 * index + 1]];
    match panel {
        FloatPanel::F32(bytes) => {
            let at = 4 * (col * PANEL_ROWS + lane);
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        }
        FloatPanel::F16(bytes) => {
            half::f16::from_le_bytes(half(bytes, col * PANEL_ROWS + lane)).to_f32()
        }
        FloatPanel::Bf16(bytes) => {
            let index = (col / 2 * PANEL_ROWS + lane) * 2 + col % 2;
            half::bf16::from_le_bytes(half(bytes, index)).to_f32()
        }
    }
}
