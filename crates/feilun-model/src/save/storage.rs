//! How each tensor of a model is stored.

use feilun_kernels::BlockType;

use crate::config::ModelConfig;
use crate::tensor::TensorRole;
use crate::tensor_names::{Needed, Shape, needed};

/// How the matrices of a model are stored. Vectors are a thousandth of a model and stay F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    matrices: BlockType,
    vectors: BlockType,
}

impl Storage {
    /// Matrices in this type wherever their rows are whole blocks of it, and nearly all are.
    ///
    /// With types below 8 bits, the embedding and the head are stored finer, since their errors
    /// reach every prediction directly: in Q6_K, or in Q8_0 where rows are no multiple of 256.
    /// A K-quant in rows that are no multiple of 256 becomes the type of blocks of 32 of one more
    /// bit; and rows that are no multiple of 32 either become F16. llama.cpp does likewise.
    pub fn new(matrices: BlockType) -> Storage {
        Storage { matrices, vectors: BlockType::F32 }
    }

    /// Everything in one type of plain floats, as Hugging Face folders have it.
    pub fn uniform(block_type: BlockType) -> Storage {
        Storage { matrices: block_type, vectors: block_type }
    }

    /// Bytes that the weights of a model will take.
    pub fn num_bytes(self, config: &ModelConfig) -> u64 {
        let bytes_of = |needed: Needed| {
            let (rows, cols) = match needed.shape {
                Shape::Vector(len) => (1, len),
                Shape::Matrix(rows, cols) => (rows, cols),
            };
            let row_bytes = self.of(needed.role, needed.shape).row_bytes(cols).unwrap_or(0);
            rows as u64 * row_bytes as u64
        };
        needed(config).into_iter().map(bytes_of).sum()
    }

    /// What most matrices are stored as.
    pub fn matrices(self) -> BlockType {
        self.matrices
    }

    pub(super) fn of(self, role: TensorRole, shape: Shape) -> BlockType {
        let Shape::Matrix(_, cols) = shape else { return self.vectors };
        let is_below_8_bits = self.matrices.block_len() > 1 && self.matrices != BlockType::Q8_0;
        let wanted = match role {
            TensorRole::Layer(..) => self.matrices,
            _ if is_below_8_bits => BlockType::Q6K,
            _ => self.matrices,
        };
        let of_32 = match wanted {
            BlockType::Q4K => BlockType::Q5_0,
            BlockType::Q5K => BlockType::Q5_1,
            BlockType::Q6K => BlockType::Q8_0,
            other => other,
        };
        let is_whole = |block_type: &BlockType| cols.is_multiple_of(block_type.block_len());
        [wanted, of_32].into_iter().find(is_whole).unwrap_or(BlockType::F16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerTensor;

    #[test]
    fn rows_are_whole_blocks() {
        let of = |block_type, role, cols| Storage::new(block_type).of(role, Shape::Matrix(8, cols));
        let inner = TensorRole::Layer(0, LayerTensor::AttnQ);
        let outer = TensorRole::TokenEmbedding;
        assert_eq!(of(BlockType::Q4K, inner, 512), BlockType::Q4K);
        assert_eq!(of(BlockType::Q4K, inner, 576), BlockType::Q5_0);
        assert_eq!(of(BlockType::Q4K, inner, 48), BlockType::F16);
        assert_eq!(of(BlockType::Q4K, outer, 512), BlockType::Q6K);
        assert_eq!(of(BlockType::Q4_0, outer, 576), BlockType::Q8_0);
        assert_eq!(of(BlockType::Q8_0, outer, 512), BlockType::Q8_0);
        assert_eq!(of(BlockType::Bf16, outer, 7), BlockType::Bf16);
        let vector = Storage::new(BlockType::Q4_0).of(TensorRole::OutputNorm, Shape::Vector(512));
        assert_eq!(vector, BlockType::F32);
    }
}
