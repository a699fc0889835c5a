//! The weights as training reads them: trained values, or a frozen base with an adapter.

use feilun_kernels::gemm::{Matrix, Values};

use super::parameters::{Parameter, ParameterTable};
use crate::{LayerTensor, Model, TensorRole};

#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) table: &'a ParameterTable,
    pub(super) values: &'a [f32],
    /// Where only an adapter is trained.
    pub(super) frozen: Option<&'a Model>,
    pub(super) lora_scale: f32,
    /// Whether the adapter takes part.
    pub(super) is_adapted: bool,
}

/// The adapter of one linear layer.
pub(super) struct Lora<'a> {
    pub(super) rank: usize,
    /// `(rank, inputs)`.
    pub(super) a: Matrix<'a>,
    /// `(outputs, rank)`.
    pub(super) b: Matrix<'a>,
}

impl<'a> Weights<'a> {
    /// A matrix of the base; `None` where the configuration has none of that role.
    pub(super) fn matrix(&self, role: TensorRole) -> Option<Matrix<'a>> {
        match self.frozen {
            None => self.trained(Parameter::Base(role)),
            Some(model) => model.matrix(role).map(Matrix::packed),
        }
    }

    /// A norm's weight or a bias; `None` where the configuration has none of that role.
    pub(super) fn vector(&self, role: TensorRole) -> Option<&'a [f32]> {
        match self.frozen {
            None => Some(&self.values[self.table.range(Parameter::Base(role))?]),
            Some(model) => model.vector(role),
        }
    }

    pub(super) fn lora(&self, layer: usize, tensor: LayerTensor) -> Option<Lora<'a>> {
        if !self.is_adapted {
            return None;
        }
        let a = self.trained(Parameter::LoraA(layer, tensor))?;
        let b = self.trained(Parameter::LoraB(layer, tensor))?;
        Some(Lora { rank: a.rows(), a, b })
    }

    /// Writes a token's embedding.
    pub(super) fn embedding(&self, token: u32, out: &mut [f32]) {
        match (self.frozen, self.table.range(Parameter::Base(TensorRole::TokenEmbedding))) {
            (Some(model), _) => model.embedding.row(token as usize, out),
            (None, Some(range)) => {
                let row = &self.values[range][token as usize * out.len()..];
                out.copy_from_slice(&row[..out.len()]);
            }
            (None, None) => {}
        }
    }

    fn trained(&self, parameter: Parameter) -> Option<Matrix<'a>> {
        let info = self.table.get(parameter)?;
        let &[rows, cols] = info.shape.as_slice() else { return None };
        Some(Matrix::new(Values::F32(&self.values[info.range.clone()]), rows, cols))
    }
}
