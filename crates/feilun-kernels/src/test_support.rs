//! What the tests of several kernels share: a random source and random stored blocks.

use crate::{BlockType, Isa};

/// The paths of the matrix kernels to test: those of this machine, and AMX, whose tiles the
/// tests emulate where the machine has none.
pub(crate) fn matmul_paths() -> Vec<Isa> {
    let mut paths = Isa::available();
    if paths.contains(&Isa::Avx512) && !paths.contains(&Isa::Amx) {
        paths.push(Isa::Amx);
    }
    paths
}

/// SplitMix64 (Steele et al. 2014): small, seeded, good enough for test data.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }
}

/// Rows of random bytes, every f16 scale replaced by a small finite number.
pub(crate) fn random_rows(
    block_type: BlockType,
    rows: usize,
    cols: usize,
    random: &mut Random,
) -> Vec<u8> {
    let blocks = rows * cols / block_type.block_len();
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let mut block: Vec<u8> =
            (0..block_type.block_bytes()).map(|_| random.next() as u8).collect();
        let scale_at: &[usize] = match block_type {
            BlockType::Q6K => &[208],
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
            BlockType::F32 => {
                block = random.unit().to_le_bytes().to_vec();
                &[]
            }
            BlockType::Bf16 => {
                block = half::bf16::from_f32(random.unit()).to_le_bytes().to_vec();
                &[]
            }
            _ => &[0],
        };
        for &at in scale_at {
            let scale = half::f16::from_f32(random.unit() * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        bytes.extend(block);
    }
    bytes
}
