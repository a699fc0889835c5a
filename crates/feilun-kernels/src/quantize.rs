//! Weights made into GGUF's quantized blocks: the inverse of `dequantize`, as near as the blocks
//! allow.
//!
//! The types with one scale in 32 weights round as ggml's reference does, bit by bit. The K-quants
//! hold scales of scales, which leave room for choices; `k_quants` searches for good ones.

mod k_quants;

use half::{bf16, f16};

use crate::BlockType;

/// Writes one row of weights as blocks.
///
/// Weights must be finite, and for types that hold f16 at most 65,504 in magnitude; others give
/// blocks that hold infinities.
///
/// # Panics
/// When `out` is not exactly the row of `weights.len()` weights.
///
/// ```
/// use feilun_kernels::{BlockType, dequantize::dequantize_row, quantize::quantize_row};
/// let weights: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect();
/// let mut block = [0; 34];
/// quantize_row(BlockType::Q8_0, &weights, &mut block);
/// let mut back = [0.0; 32];
/// dequantize_row(BlockType::Q8_0, &block, &mut back);
/// assert!(weights.iter().zip(back).all(|(weight, back)| (weight - back).abs() <= 16.0 / 127.0));
/// ```
pub fn quantize_row(block_type: BlockType, weights: &[f32], out: &mut [u8]) {
    assert_eq!(
        Some(out.len()),
        block_type.row_bytes(weights.len()),
        "{block_type} row of {} weights",
        weights.len()
    );
    let blocks = out.chunks_exact_mut(block_type.block_bytes());
    for (block, weights) in blocks.zip(weights.chunks_exact(block_type.block_len())) {
        match block_type {
            BlockType::F32 => block.copy_from_slice(&weights[0].to_le_bytes()),
            BlockType::F16 => put_f16(block, 0, weights[0]),
            BlockType::Bf16 => block.copy_from_slice(&bf16::from_f32(weights[0]).to_le_bytes()),
            BlockType::Q8_0 => q8_0(weights, block),
            BlockType::Q4_0 => around_zero(block_type, weights, block, 8),
            BlockType::Q5_0 => around_zero(block_type, weights, block, 16),
            BlockType::Q4_1 => above_minimum(block_type, weights, block, 15),
            BlockType::Q5_1 => above_minimum(block_type, weights, block, 31),
            BlockType::Q4K => k_quants::with_minima(block_type, weights, block, 15),
            BlockType::Q5K => k_quants::with_minima(block_type, weights, block, 31),
            BlockType::Q6K => k_quants::q6_k(weights, block),
        }
    }
}

/// The largest magnitude becomes ±127; ties away from zero.
fn q8_0(weights: &[f32], block: &mut [u8]) {
    let max = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
    let scale = max / 127.0;
    put_f16(block, 0, scale);
    let inverse = inverse(scale);
    for (quant, weight) in block[2..].iter_mut().zip(weights) {
        let scaled = weight * inverse;
        let whole = scaled as i32;
        let rest = scaled - whole as f32;
        let away = i32::from(rest >= 0.5) - i32::from(rest <= -0.5);
        *quant = ((whole + away) as i8).cast_unsigned();
    }
}

/// The weight of largest magnitude, with its sign, becomes `-zero`: the range of a signed integer
/// is wider below, so the scale takes the sign that uses it.
fn around_zero(block_type: BlockType, weights: &[f32], block: &mut [u8], zero: i32) {
    let scale = largest(weights) / -zero as f32;
    put_f16(block, 0, scale);
    let inverse = inverse(scale);
    let middle = zero as f32 + 0.5;
    put_quants(block_type, block, |i| {
        ((weights[i] * inverse + middle) as i32).min(2 * zero - 1) as u8
    });
}

/// The smallest weight becomes 0, the largest `levels`.
fn above_minimum(block_type: BlockType, weights: &[f32], block: &mut [u8], levels: i32) {
    let (min, max) = weights
        .iter()
        .fold((f32::MAX, f32::MIN), |(min, max), &weight| (min.min(weight), max.max(weight)));
    let scale = (max - min) / levels as f32;
    put_f16(block, 0, scale);
    put_f16(block, 2, min);
    let inverse = inverse(scale);
    put_quants(block_type, block, |i| {
        (((weights[i] - min) * inverse + 0.5) as i32).min(levels) as u8
    });
}

/// The weight of largest magnitude, with its sign; the first of several.
fn largest(weights: &[f32]) -> f32 {
    let larger = |largest: f32, &weight: &f32| {
        if weight.abs() > largest.abs() { weight } else { largest }
    };
    weights.iter().fold(0.0, larger)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn put_f16(block: &mut [u8], offset: usize, value: f32) {
    block[offset..offset + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// Stores the integers of a block, zero point included, where `dequantize` looks for them.
/// Whatever the block held of integers is replaced; scales are left alone.
fn put_quants(block_type: BlockType, block: &mut [u8], quant: impl Fn(usize) -> u8) {
    match block_type {
        // The low nibbles are weights 0..16, the high ones 16..32; the fifth bits are one u32.
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 => {
            let mut fifth_bits = 0_u32;
            let start = block.len() - 16;
            for (i, byte) in block[start..].iter_mut().enumerate() {
                let (low, high) = (quant(i), quant(i + 16));
                *byte = low & 15 | high << 4;
                fifth_bits |= u32::from(low >> 4) << i | u32::from(high >> 4) << (i + 16);
            }
            if matches!(block_type, BlockType::Q5_0 | BlockType::Q5_1) {
                block[start - 4..start].copy_from_slice(&fifth_bits.to_le_bytes());
            }
        }
        // 64 weights share 32 bytes: low nibbles first, then high ones.
        BlockType::Q4K | BlockType::Q5K => {
            let start = block.len() - 128;
            let (head, nibbles) = block.split_at_mut(start);
            for (at, byte) in nibbles.iter_mut().enumerate() {
                let first = at / 32 * 64 + at % 32;
                *byte = quant(first) & 15 | quant(first + 32) << 4;
            }
            // Q5_K has one byte of fifth bits for each place in a group.
            for (at, byte) in head[16..].iter_mut().enumerate() {
                let fifth_bit = |group: usize| (quant(group * 32 + at) >> 4) << group;
                *byte = (0..8).map(fifth_bit).sum();
            }
        }
        // Halves of 128: 64 bytes of nibbles (low: weights 0..64, high: 64..128), and 32 bytes
        // of bit pairs (weight i in pair i / 32).
        BlockType::Q6K => {
            for (at, byte) in block[..128].iter_mut().enumerate() {
                let first = at / 64 * 128 + at % 64;
                *byte = quant(first) & 15 | quant(first + 64) << 4;
            }
            for (at, byte) in block[128..192].iter_mut().enumerate() {
                let first = at / 32 * 128 + at % 32;
                let pair = |index: usize| (quant(first + index * 32) >> 4) << (index * 2);
                *byte = (0..4).map(pair).sum();
            }
        }
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 | BlockType::Q8_0 => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize::dequantize_row;

    /// Normally distributed with rare outliers, as weights are.
    fn weights(len: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let mut normal = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let outlier = |i: usize| if i % 997 == 5 { 6.0 } else { 1.0 };
        (0..len).map(|i| normal() * 0.03 * outlier(i)).collect()
    }

    fn round_trip(block_type: BlockType, weights: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; block_type.row_bytes(weights.len()).unwrap()];
        quantize_row(block_type, weights, &mut bytes);
        let mut back = vec![0.0; weights.len()];
        dequantize_row(block_type, &bytes, &mut back);
        back
    }

    /// Root of the mean squared error, as a share of the root mean square of the weights.
    fn relative_error(block_type: BlockType, weights: &[f32]) -> f64 {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let back = round_trip(block_type, weights);
        let error: f64 = weights.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
        (error / weights.iter().map(|&weight| square(weight)).sum::<f64>()).sqrt()
    }

    #[test]
    fn every_type_comes_back_within_its_error() {
        let weights = weights(256 * 400);
        let mut wrong = Vec::new();
        for (block_type, most) in [
            (BlockType::F32, 0.0),
            (BlockType::F16, 0.00022),
            (BlockType::Bf16, 0.0017),
            (BlockType::Q8_0, 0.006),
            (BlockType::Q6K, 0.0185),
            (BlockType::Q5K, 0.037),
            (BlockType::Q5_1, 0.041),
            (BlockType::Q5_0, 0.048),
            (BlockType::Q4K, 0.076),
            (BlockType::Q4_1, 0.087),
            (BlockType::Q4_0, 0.097),
        ] {
            let error = relative_error(block_type, &weights);
            wrong.extend((!(most * 0.9..=most).contains(&error)).then_some((block_type, error)));
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn what_the_blocks_can_hold_comes_back_exactly() {
        for (block_type, min, max) in [
            (BlockType::Q8_0, -127, 127),
            (BlockType::Q4_0, -8, 7),
            (BlockType::Q4_1, 0, 15),
            (BlockType::Q5_0, -16, 15),
            (BlockType::Q5_1, 0, 31),
        ] {
            // Each block of 32 must hold the extremes that its scale is taken from.
            let integer = |i: i32| match i % 32 {
                0 => min,
                1 => max,
                _ => min + i * 7 % (max - min + 1),
            };
            let weights: Vec<f32> = (0..256).map(|i| integer(i) as f32 * 0.25).collect();
            assert_eq!(round_trip(block_type, &weights), weights, "{block_type}");
        }
    }

    #[test]
    fn zeros_and_constants_stay() {
        for block_type in BlockType::ALL {
            assert_eq!(round_trip(block_type, &[0.0; 256]), [0.0; 256], "{block_type}");
            for constant in [1.0, -1.0] {
                let back = round_trip(block_type, &[constant; 256]);
                let is_near = |weight: &f32| (weight - constant).abs() < 0.01;
                assert!(back.iter().all(is_near), "{block_type}: {back:?}");
            }
        }
    }

    #[test]
    fn halves_round_away_from_zero_in_q8_0() {
        // Scale 1, as 127 is the largest.
        let mut weights = [0.0; 32];
        weights[..6].copy_from_slice(&[127.0, 0.5, -0.5, 1.5, 0.499_999_97, -2.5]);
        let back = round_trip(BlockType::Q8_0, &weights);
        assert_eq!(back[..6], [127.0, 1.0, -1.0, 2.0, 0.0, -3.0]);
    }
}
