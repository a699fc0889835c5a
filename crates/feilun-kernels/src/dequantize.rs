//! The meaning of GGUF's quantized blocks, written to be read: every faster kernel is tested
//! against this one, and this one against the `gguf` Python package.
//!
//! Source of the formats: the block structures of ggml (`ggml-common.h`) as the `gguf` package
//! documents them by its own dequantization.

use half::{bf16, f16};

use crate::BlockType;

/// Writes the weights of one stored row to `out`.
///
/// # Panics
/// When `bytes` is not exactly the row of `out.len()` weights.
///
/// ```
/// use feilun_kernels::{BlockType, dequantize::dequantize_row};
/// // One Q8_0 block: scale 0.5 (f16 0x3800), then 32 signed bytes.
/// let mut block = vec![0x00, 0x38];
/// block.extend((0..32).map(|i| (i as i8 - 16) as u8));
/// let mut row = [0.0; 32];
/// dequantize_row(BlockType::Q8_0, &block, &mut row);
/// assert_eq!(row[0], -8.0);
/// assert_eq!(row[31], 7.5);
/// ```
pub fn dequantize_row(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        Some(bytes.len()),
        block_type.row_bytes(out.len()),
        "{block_type} row of {} weights",
        out.len()
    );
    let blocks = bytes.chunks_exact(block_type.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(block_type.block_len())) {
        match block_type {
            BlockType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            BlockType::F16 => out[0] = f16_at(block, 0),
            BlockType::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            _ => dequantize_block(block_type, block, out),
        }
    }
}

fn dequantize_block(block_type: BlockType, block: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = group_scale(block_type, block, i / group_len(block_type));
        *out = scale * f32::from(quant(block_type, block, i)) - min;
    }
}

/// Number of consecutive weights that share a scale.
pub(crate) const fn group_len(block_type: BlockType) -> usize {
    match block_type {
        BlockType::Q6K => 16,
        _ => 32,
    }
}

/// The stored integer of weight `i` of a block, its zero point subtracted.
pub(crate) fn quant(block_type: BlockType, block: &[u8], i: usize) -> i16 {
    let nibble = |byte: u8, high: bool| i16::from(if high { byte >> 4 } else { byte & 15 });
    let bit = |byte: u8, shift: usize| i16::from(byte >> shift & 1);
    match block_type {
        // The low nibbles are weights 0..16, the high ones 16..32; the fifth bits are one u32.
        BlockType::Q4_0 => nibble(block[2 + i % 16], i >= 16) - 8,
        BlockType::Q4_1 => nibble(block[4 + i % 16], i >= 16),
        BlockType::Q5_0 => {
            (nibble(block[6 + i % 16], i >= 16) | bit(block[2 + i / 8], i % 8) << 4) - 16
        }
        BlockType::Q5_1 => nibble(block[8 + i % 16], i >= 16) | bit(block[4 + i / 8], i % 8) << 4,
        BlockType::Q8_0 => i16::from(block[2 + i].cast_signed()),
        // 64 weights share 32 bytes: low nibbles first, then high ones.
        BlockType::Q4K => nibble(block[16 + i / 64 * 32 + i % 32], i % 64 >= 32),
        BlockType::Q5K => {
            let low = nibble(block[48 + i / 64 * 32 + i % 32], i % 64 >= 32);
            low | bit(block[16 + i % 32], i / 32) << 4
        }
        // Halves of 128: 64 bytes of nibbles (low: weights 0..64, high: 64..128), and 32 bytes
        // of bit pairs (weight i in pair i / 32).
        BlockType::Q6K => {
            let (half, j) = (i / 128, i % 128);
            let low = nibble(block[half * 64 + j % 64], j >= 64);
            let high = i16::from(block[128 + half * 32 + j % 32] >> (j / 32 * 2) & 3);
            (low | high << 4) - 32
        }
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => 0,
    }
}

/// Scale and minimum of group `group` of a block: `weight = scale * quant - min`.
pub(crate) fn group_scale(block_type: BlockType, block: &[u8], group: usize) -> (f32, f32) {
    match block_type {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => (f16_at(block, 0), 0.0),
        BlockType::Q4_1 | BlockType::Q5_1 => (f16_at(block, 0), -f16_at(block, 2)),
        BlockType::Q4K | BlockType::Q5K => {
            let (scale, min) = k_scale_min(&block[4..16], group);
            (f16_at(block, 0) * f32::from(scale), f16_at(block, 2) * f32::from(min))
        }
        BlockType::Q6K => {
            let scale = block[192 + group].cast_signed();
            (f16_at(block, 208) * f32::from(scale), 0.0)
        }
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => (1.0, 0.0),
    }
}

/// The 6-bit scale and minimum of group `group` (of 8) in the 12 bytes of a K-quant: the first
/// four pairs are the low six bits of bytes 0..4 and 4..8; the others have their low four bits
/// in bytes 8..12 and their high two bits above the first four pairs.
pub(crate) fn k_scale_min(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (
            low & 15 | (packed[group - 4] >> 6) << 4, //
            low >> 4 | (packed[group] >> 6) << 4,
        )
    }
}

pub(crate) fn f16_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}
