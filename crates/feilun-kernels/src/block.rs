//! The storage types of weight tensors: plain floats and GGUF's quantized blocks.
//!
//! A quantized row is a sequence of blocks, each of which holds a fixed number of weights with
//! their scales. This file knows the sizes; `dequantize` knows the meaning.

/// How the weights of one tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16: the upper half of an `f32`.
    Bf16,
    /// 32 weights of 4 bits, one f16 scale: `d * (q - 8)`.
    Q4_0,
    /// 32 weights of 4 bits, f16 scale and minimum: `d * q + m`.
    Q4_1,
    /// 32 weights of 5 bits, one f16 scale: `d * (q - 16)`.
    Q5_0,
    /// 32 weights of 5 bits, f16 scale and minimum: `d * q + m`.
    Q5_1,
    /// 32 weights of 8 bits, one f16 scale: `d * q`.
    Q8_0,
    /// 256 weights of 4 bits in 8 groups of 32 with 6-bit scales and minima.
    Q4K,
    /// 256 weights of 5 bits in 8 groups of 32 with 6-bit scales and minima.
    Q5K,
    /// 256 weights of 6 bits in 16 groups of 16 with 8-bit scales.
    Q6K,
}

impl BlockType {
    /// Every type, in the order of this enum.
    pub const ALL: [BlockType; 11] = [
        BlockType::F32,
        BlockType::F16,
        BlockType::Bf16,
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// Number of weights in one block; a row's length is a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => 1,
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q8_0 => 32,
            BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => 256,
        }
    }

    /// Number of bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::F16 | BlockType::Bf16 => 2,
            BlockType::Q4_0 => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
        }
    }

    /// Bytes of a row of `len` weights, or `None` where `len` is not a whole number of blocks
    /// or the size overflows.
    ///
    /// ```
    /// use feilun_kernels::BlockType;
    /// assert_eq!(BlockType::Q4_1.row_bytes(64), Some(40));
    /// assert_eq!(BlockType::Q4_1.row_bytes(65), None);
    /// ```
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name that GGUF tools print, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            BlockType::F32 => "F32",
            BlockType::F16 => "F16",
            BlockType::Bf16 => "BF16",
            BlockType::Q4_0 => "Q4_0",
            BlockType::Q4_1 => "Q4_1",
            BlockType::Q5_0 => "Q5_0",
            BlockType::Q5_1 => "Q5_1",
            BlockType::Q8_0 => "Q8_0",
            BlockType::Q4K => "Q4_K",
            BlockType::Q5K => "Q5_K",
            BlockType::Q6K => "Q6_K",
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
