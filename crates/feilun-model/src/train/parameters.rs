//! What is trained, as one flat vector with a table of contents.

use std::collections::HashMap;
use std::ops::Range;

use crate::tensor_names::{Naming, Shape, name, needed};
use crate::{LayerTensor, ModelConfig, TensorRole};

/// What an optimizer may want to treat apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// A linear layer's matrix.
    Matrix,
    /// The token embedding or the output head.
    Embedding,
    /// A norm's weight or a bias.
    Vector,
}

/// One trained tensor: a stretch of the flat vectors of values and of gradients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name in a safetensors file, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// `[outputs, inputs]` of a matrix, `[len]` of a vector; row-major.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
    /// Its place in the flat vectors. Stretches follow each other without gaps.
    pub range: Range<usize>,
}

/// Which parameter, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Parameter {
    Base(TensorRole),
    /// `(rank, inputs)`.
    LoraA(usize, LayerTensor),
    /// `(outputs, rank)`.
    LoraB(usize, LayerTensor),
}

/// All trained tensors in the order of the computation.
#[derive(Debug, Default)]
pub(super) struct ParameterTable {
    infos: Vec<ParameterInfo>,
    index: HashMap<Parameter, usize>,
}

impl ParameterTable {
    /// Every tensor of the model.
    pub(super) fn full(config: &ModelConfig) -> ParameterTable {
        let mut table = ParameterTable::default();
        for tensor in needed(config) {
            let name = name(Naming::HuggingFace, config.architecture, tensor.role);
            let (kind, shape) = match (tensor.shape, tensor.role) {
                (Shape::Vector(len), _) => (ParameterKind::Vector, vec![len]),
                (Shape::Matrix(rows, cols), TensorRole::Layer(..)) => {
                    (ParameterKind::Matrix, vec![rows, cols])
                }
                (Shape::Matrix(rows, cols), _) => (ParameterKind::Embedding, vec![rows, cols]),
            };
            table.push(Parameter::Base(tensor.role), name, kind, shape);
        }
        table
    }

    /// Two thin matrices for each target of each layer.
    pub(super) fn lora(
        config: &ModelConfig,
        rank: usize,
        targets: &[LayerTensor],
    ) -> ParameterTable {
        let mut table = ParameterTable::default();
        for layer in 0..config.layers.len() {
            for &target in targets {
                let Some((Shape::Matrix(rows, cols), _)) = config.layer_tensor(target) else {
                    continue;
                };
                let role = TensorRole::Layer(layer, target);
                let base = name(Naming::HuggingFace, config.architecture, role);
                let base = base.trim_end_matches(".weight");
                for (parameter, part, shape) in [
                    (Parameter::LoraA(layer, target), "lora_A", vec![rank, cols]),
                    (Parameter::LoraB(layer, target), "lora_B", vec![rows, rank]),
                ] {
                    let name = format!("base_model.model.{base}.{part}.weight");
                    table.push(parameter, name, ParameterKind::Matrix, shape);
                }
            }
        }
        table
    }

    fn push(&mut self, parameter: Parameter, name: String, kind: ParameterKind, shape: Vec<usize>) {
        let start = self.len();
        let range = start..start + shape.iter().product::<usize>();
        self.index.insert(parameter, self.infos.len());
        self.infos.push(ParameterInfo { name, shape, kind, range });
    }

    /// Values of all tensors together.
    pub(super) fn len(&self) -> usize {
        self.infos.last().map_or(0, |info| info.range.end)
    }

    pub(super) fn infos(&self) -> &[ParameterInfo] {
        &self.infos
    }

    /// The tensor, if it is trained.
    pub(super) fn get(&self, parameter: Parameter) -> Option<&ParameterInfo> {
        self.index.get(&parameter).map(|&index| &self.infos[index])
    }

    pub(super) fn range(&self, parameter: Parameter) -> Option<Range<usize>> {
        self.get(parameter).map(|info| info.range.clone())
    }
}
