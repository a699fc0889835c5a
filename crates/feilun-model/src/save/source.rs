//! Where weights come from, row by row in canonical (Hugging Face) order, as f32.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use feilun_kernels::dequantize::dequantize_row;

use super::error::SaveError;
use crate::tensor::RowOrder;
use crate::tensor_names::{Naming, Shape, name, needed};
use crate::train::ParameterInfo;
use crate::weights::stored_row;
use crate::{Adapter, AdapterError, ModelConfig, ModelFiles, TensorRole, TensorView};

/// The weights of a whole model.
pub trait WeightSource: Sync {
    /// Shape and switches of the model.
    fn config(&self) -> &ModelConfig;

    /// Writes row `row` of a tensor that the configuration has. A vector is one row.
    fn row(&self, role: TensorRole, row: usize, out: &mut [f32]);
}

/// The weights of an open model, whatever their storage.
#[derive(Debug)]
pub struct FileWeights<'a> {
    config: &'a ModelConfig,
    tensors: HashMap<TensorRole, TensorView<'a>>,
}

impl<'a> FileWeights<'a> {
    /// Finds all tensors.
    pub fn new(files: &'a ModelFiles) -> FileWeights<'a> {
        let view = |role| Some((role, files.optional_tensor(role)?));
        let tensors = files.tensor_roles().filter_map(view).collect();
        FileWeights { config: files.config(), tensors }
    }
}

impl WeightSource for FileWeights<'_> {
    fn config(&self) -> &ModelConfig {
        self.config
    }

    fn row(&self, role: TensorRole, row: usize, out: &mut [f32]) {
        // An open model has every tensor that its configuration needs, of the right size.
        let Some(view) = self.tensors.get(&role) else { return };
        let row_bytes = view.bytes.len() / view.rows;
        let is_vector = view.rows == 1;
        let stored = if is_vector { row } else { stored_row(view.row_order, row) };
        dequantize_row(view.block_type, &view.bytes[stored * row_bytes..][..row_bytes], out);
        if is_vector && view.row_order != RowOrder::Canonical {
            let stored = out.to_vec();
            for (i, value) in out.iter_mut().enumerate() {
                *value = stored[stored_row(view.row_order, i)];
            }
        }
        if view.offset != 0.0 {
            out.iter_mut().for_each(|value| *value += view.offset);
        }
    }
}

/// The weights in a flat trained vector.
#[derive(Debug)]
pub struct FlatWeights<'a> {
    config: &'a ModelConfig,
    values: &'a [f32],
    ranges: HashMap<TensorRole, Range<usize>>,
}

impl<'a> FlatWeights<'a> {
    /// Finds every tensor of the configuration among the parameters.
    ///
    /// # Errors
    /// When one is missing (an adapter's parameters are no model) or has another size.
    pub fn new(
        config: &'a ModelConfig,
        parameters: &[ParameterInfo],
        values: &'a [f32],
    ) -> Result<FlatWeights<'a>, SaveError> {
        let by_name: HashMap<&str, &ParameterInfo> =
            parameters.iter().map(|info| (info.name.as_str(), info)).collect();
        let mut ranges = HashMap::new();
        for tensor in needed(config) {
            let name = name(Naming::HuggingFace, config.architecture, tensor.role);
            let expected = match tensor.shape {
                Shape::Vector(len) => len,
                Shape::Matrix(rows, cols) => rows * cols,
            };
            let range = by_name.get(name.as_str()).map_or(0..0, |info| info.range.clone());
            let found = values.get(range.clone()).unwrap_or_default().len();
            if found != expected {
                return Err(SaveError::NumValues { name, found, expected });
            }
            ranges.insert(tensor.role, range);
        }
        Ok(FlatWeights { config, values, ranges })
    }
}

impl WeightSource for FlatWeights<'_> {
    fn config(&self) -> &ModelConfig {
        self.config
    }

    fn row(&self, role: TensorRole, row: usize, out: &mut [f32]) {
        let Some(range) = self.ranges.get(&role) else { return };
        let len = out.len();
        out.copy_from_slice(&self.values[range.clone()][row * len..][..len]);
    }
}

/// A base with an adapter merged into it: `W + scale * B A`.
pub struct MergedWeights<'a> {
    base: &'a dyn WeightSource,
    adapter: &'a Adapter,
}

impl<'a> MergedWeights<'a> {
    /// Checks that they belong together.
    ///
    /// # Errors
    /// When the adapter was opened for a base of other sizes.
    pub fn new(
        base: &'a dyn WeightSource,
        adapter: &'a Adapter,
    ) -> Result<MergedWeights<'a>, AdapterError> {
        adapter.check_fits(base.config())?;
        Ok(MergedWeights { base, adapter })
    }
}

impl fmt::Debug for MergedWeights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedWeights").field("adapter", &self.adapter.digest).finish()
    }
}

impl WeightSource for MergedWeights<'_> {
    fn config(&self) -> &ModelConfig {
        self.base.config()
    }

    fn row(&self, role: TensorRole, row: usize, out: &mut [f32]) {
        self.base.row(role, row, out);
        let TensorRole::Layer(layer, tensor) = role else { return };
        let Some(lora) = self.adapter.matrix(layer, tensor) else { return };
        let b = &lora.b[row * lora.rank..][..lora.rank];
        for (&b, a) in b.iter().zip(lora.a.chunks_exact(out.len())) {
            let factor = lora.scale * b;
            out.iter_mut().zip(a).for_each(|(out, a)| *out += factor * a);
        }
    }
}
