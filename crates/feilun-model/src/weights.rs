//! The weights of a decoder in memory: matrices packed for the kernels, vectors as f32.
//!
//! Packing copies a tensor once into panels of the same size and gives the mapped pages of the
//! file back, so a loaded model takes about as much memory as its file.

use feilun_kernels::memory::Arena;
use feilun_kernels::pack::PackError;
use feilun_kernels::{BlockType, PackedMatrix, Pool, dequantize};

use crate::{
    LayerTensor, ModelConfig, ModelFileError, ModelFiles, RowOrder, TensorRole, TensorView,
};

/// Why the weights of a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file lacks a tensor or cannot be read.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// A matrix cannot be packed.
    #[error("tensor `{tensor}`")]
    Pack {
        /// Its name in the file.
        tensor: String,
        /// What is wrong with it.
        source: PackError,
    },
    /// A norm or bias with a value that would silently poison every answer.
    #[error("tensor `{tensor}`: value {index} is {value}, expected a finite number")]
    NotFinite {
        /// Its name in the file.
        tensor: String,
        /// Index of the value.
        index: usize,
        /// The value found.
        value: f32,
    },
}

/// A linear layer: `y = W x + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weights: PackedMatrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// The weights of one layer. Optional norms are there where the configuration has them.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) attn_norm: Vec<f32>,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) output: Linear,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) post_attn_norm: Option<Vec<f32>>,
    pub(crate) mlp_norm: Vec<f32>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) post_mlp_norm: Option<Vec<f32>>,
}

/// A loaded decoder: immutable, shared by any number of sessions.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    pub(crate) embedding: PackedMatrix,
    pub(crate) output_norm: Vec<f32>,
    /// `None`: the embedding is the head too.
    pub(crate) head: Option<PackedMatrix>,
    pub(crate) layers: Vec<LayerWeights>,
}

impl Model {
    /// Loads all weights, with as many threads as the pool has.
    ///
    /// # Errors
    /// When a tensor is missing or holds what no model should, naming it; when memory is short.
    pub fn load(files: &ModelFiles, pool: &mut Pool) -> Result<Model, LoadError> {
        let config = files.config().clone();
        let mut loader = Loader { files, pool, arena: Arena::default() };
        let embedding = loader.matrix(TensorRole::TokenEmbedding)?;
        let output_norm = loader.vector(TensorRole::OutputNorm)?;
        let head = if config.tied_embeddings {
            None
        } else {
            Some(loader.matrix(TensorRole::OutputHead)?)
        };
        let layers =
            (0..config.layers.len()).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
        Ok(Model { config, embedding, output_norm, head, layers })
    }

    /// Shape and switches.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Memory that the matrices take.
    pub fn weight_bytes(&self) -> usize {
        self.matrices().map(PackedMatrix::bytes).sum()
    }

    /// Bytes of weights that one decoded token reads: all but the embedding table, which it
    /// reads one row of unless it is the head as well.
    pub fn decode_bytes(&self) -> usize {
        let table = if self.head.is_some() { self.embedding.bytes() } else { 0 };
        self.weight_bytes() - table
    }

    /// Number of weights in matrices.
    pub fn num_weights(&self) -> usize {
        self.matrices().map(|matrix| matrix.rows() * matrix.cols()).sum()
    }

    /// Multiplications and additions in matrix products for one token, without its logits.
    pub fn layer_operations(&self) -> usize {
        let table = self.embedding.rows() * self.embedding.cols();
        let head = self.head.as_ref().map_or(0, |head| head.rows() * head.cols());
        2 * (self.num_weights() - table - head)
    }

    /// The storage types of the matrices, each once, in order of first use.
    pub fn block_types(&self) -> Vec<BlockType> {
        let mut types = Vec::new();
        for matrix in self.matrices() {
            if !types.contains(&matrix.block_type()) {
                types.push(matrix.block_type());
            }
        }
        types
    }

    pub(crate) fn head(&self) -> &PackedMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// A matrix by its role, where there is one.
    pub(crate) fn matrix(&self, role: TensorRole) -> Option<&PackedMatrix> {
        use LayerTensor as T;
        match role {
            TensorRole::TokenEmbedding => Some(&self.embedding),
            TensorRole::OutputHead => self.head.as_ref(),
            TensorRole::OutputNorm => None,
            TensorRole::Layer(layer, tensor) => {
                let layer = self.layers.get(layer)?;
                let linear = match tensor {
                    T::AttnQ => &layer.q,
                    T::AttnK => &layer.k,
                    T::AttnV => &layer.v,
                    T::AttnOutput => &layer.output,
                    T::MlpGate => &layer.gate,
                    T::MlpUp => &layer.up,
                    T::MlpDown => &layer.down,
                    _ => return None,
                };
                Some(&linear.weights)
            }
        }
    }

    /// A norm's weight or a bias by its role, where there is one.
    pub(crate) fn vector(&self, role: TensorRole) -> Option<&[f32]> {
        use LayerTensor as T;
        let (layer, tensor) = match role {
            TensorRole::OutputNorm => return Some(&self.output_norm),
            TensorRole::TokenEmbedding | TensorRole::OutputHead => return None,
            TensorRole::Layer(layer, tensor) => (self.layers.get(layer)?, tensor),
        };
        match tensor {
            T::AttnNorm => Some(&layer.attn_norm),
            T::MlpNorm => Some(&layer.mlp_norm),
            T::AttnQNorm => layer.q_norm.as_deref(),
            T::AttnKNorm => layer.k_norm.as_deref(),
            T::PostAttnNorm => layer.post_attn_norm.as_deref(),
            T::PostMlpNorm => layer.post_mlp_norm.as_deref(),
            T::AttnQBias => layer.q.bias.as_deref(),
            T::AttnKBias => layer.k.bias.as_deref(),
            T::AttnVBias => layer.v.bias.as_deref(),
            T::AttnOutputBias => layer.output.bias.as_deref(),
            T::MlpGateBias => layer.gate.bias.as_deref(),
            T::MlpUpBias => layer.up.bias.as_deref(),
            T::MlpDownBias => layer.down.bias.as_deref(),
            T::AttnQ | T::AttnK | T::AttnV | T::AttnOutput => None,
            T::MlpGate | T::MlpUp | T::MlpDown => None,
        }
    }

    fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            let linears =
                [&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down];
            linears.map(|linear| &linear.weights)
        });
        [&self.embedding].into_iter().chain(&self.head).chain(layers)
    }
}

struct Loader<'a> {
    files: &'a ModelFiles,
    pool: &'a mut Pool,
    arena: Arena,
}

impl Loader<'_> {
    fn layer(&mut self, layer: usize) -> Result<LayerWeights, LoadError> {
        use LayerTensor::*;
        let config = self.files.config();
        let (qk_norm, post_norms) = (config.qk_norm, config.post_norms);
        let (qkv_bias, output_bias, mlp_bias) =
            (config.qkv_bias, config.output_bias, config.mlp_bias);
        let role = |tensor| TensorRole::Layer(layer, tensor);
        Ok(LayerWeights {
            attn_norm: self.vector(role(AttnNorm))?,
            q: self.linear(role(AttnQ), qkv_bias.then_some(role(AttnQBias)))?,
            k: self.linear(role(AttnK), qkv_bias.then_some(role(AttnKBias)))?,
            v: self.linear(role(AttnV), qkv_bias.then_some(role(AttnVBias)))?,
            output: self.linear(role(AttnOutput), output_bias.then_some(role(AttnOutputBias)))?,
            q_norm: self.vector_if(qk_norm, role(AttnQNorm))?,
            k_norm: self.vector_if(qk_norm, role(AttnKNorm))?,
            post_attn_norm: self.vector_if(post_norms, role(PostAttnNorm))?,
            mlp_norm: self.vector(role(MlpNorm))?,
            gate: self.linear(role(MlpGate), mlp_bias.then_some(role(MlpGateBias)))?,
            up: self.linear(role(MlpUp), mlp_bias.then_some(role(MlpUpBias)))?,
            down: self.linear(role(MlpDown), mlp_bias.then_some(role(MlpDownBias)))?,
            post_mlp_norm: self.vector_if(post_norms, role(PostMlpNorm))?,
        })
    }

    fn linear(
        &mut self,
        weights: TensorRole,
        bias: Option<TensorRole>,
    ) -> Result<Linear, LoadError> {
        let bias = bias.map(|role| self.vector(role)).transpose()?;
        Ok(Linear { weights: self.matrix(weights)?, bias })
    }

    fn matrix(&mut self, role: TensorRole) -> Result<PackedMatrix, LoadError> {
        let view = self.files.tensor(role)?;
        let TensorView { block_type, rows, cols, bytes, row_order, .. } = view;
        let row_of = |row| stored_row(row_order, row);
        let (arena, pool) = (&mut self.arena, &mut *self.pool);
        let packed = PackedMatrix::pack_in(arena, pool, block_type, rows, cols, bytes, row_of)
            .map_err(|source| LoadError::Pack { tensor: view.name.into(), source })?;
        self.files.advise_dont_need(role)?;
        Ok(packed)
    }

    fn vector_if(&mut self, wanted: bool, role: TensorRole) -> Result<Option<Vec<f32>>, LoadError> {
        wanted.then(|| self.vector(role)).transpose()
    }

    fn vector(&mut self, role: TensorRole) -> Result<Vec<f32>, LoadError> {
        let view = self.files.tensor(role)?;
        let mut values = vec![0.0; view.rows * view.cols];
        read_vector(&view, &mut values)?;
        Ok(values)
    }
}

/// Reads a norm's weight or a bias in canonical order.
pub(crate) fn read_vector(view: &TensorView<'_>, values: &mut [f32]) -> Result<(), LoadError> {
    let mut stored = vec![0.0; values.len()];
    dequantize::dequantize_row(view.block_type, view.bytes, &mut stored);
    for (i, value) in values.iter_mut().enumerate() {
        *value = stored[stored_row(view.row_order, i)] + view.offset;
    }
    check_finite(view, values)
}

/// Reads a matrix as f32, row by row, in canonical order.
pub(crate) fn read_matrix(
    view: &TensorView<'_>,
    pool: &mut Pool,
    values: &mut [f32],
) -> Result<(), LoadError> {
    let Some(row_bytes) = view.block_type.row_bytes(view.cols) else {
        return Err(LoadError::Pack {
            tensor: view.name.into(),
            source: PackError::Size {
                block_type: view.block_type,
                rows: view.rows,
                cols: view.cols,
                found: view.bytes.len(),
            },
        });
    };
    pool.for_each_chunk(values, view.cols, 64, |row, out| {
        let stored = stored_row(view.row_order, row);
        let bytes = &view.bytes[stored * row_bytes..][..row_bytes];
        dequantize::dequantize_row(view.block_type, bytes, out);
    });
    check_finite(view, values)
}

fn check_finite(view: &TensorView<'_>, values: &[f32]) -> Result<(), LoadError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            Err(LoadError::NotFinite { tensor: view.name.into(), index, value: values[index] })
        }
    }
}

/// Where canonical row `row` is stored.
pub(crate) fn stored_row(order: RowOrder, row: usize) -> usize {
    match order {
        RowOrder::Canonical => row,
        RowOrder::InterleavedPairs { head_dim } => {
            let (head, at) = (row / head_dim, row % head_dim);
            head * head_dim + at % (head_dim / 2) * 2 + at / (head_dim / 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_pairs_become_halves() {
        let order = RowOrder::InterleavedPairs { head_dim: 6 };
        let stored: Vec<usize> = (0..12).map(|row| stored_row(order, row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
