//! One linear layer with its gradient: trained itself, or frozen with an adapter beside it.
//!
//! ```text
//! y = W x + b + s B (A x)
//! dW += dyᵀ x      db += Σ dy      dB += dyᵀ (s A x)      dA += (s dy B)ᵀ x
//! dx = dy W + (s dy B) A
//! ```

use feilun_kernels::gemm::{Matrix, Values, Write};

use super::compute::Compute;
use super::parameters::Parameter;
use super::read::Weights;
use crate::{LayerTensor, TensorRole};

/// What a pass over the layers works with.
pub(super) struct Step<'a> {
    pub(super) compute: &'a mut Compute,
    pub(super) weights: Weights<'a>,
    pub(super) gradients: &'a mut [f32],
    /// `(tokens, rank)` twice.
    pub(super) lora: &'a mut LoraScratch,
}

/// The bottleneck of an adapter and its gradient.
#[derive(Debug, Default)]
pub(super) struct LoraScratch {
    inner: Vec<f32>,
    d_inner: Vec<f32>,
}

/// The rows of an input or of a gradient.
pub(super) fn rows(values: &[f32], cols: usize) -> Matrix<'_> {
    Matrix::new(Values::F32(values), values.len() / cols, cols)
}

impl Step<'_> {
    /// `out = linear(x)`.
    pub(super) fn linear(
        &mut self,
        layer: usize,
        tensor: LayerTensor,
        x: Matrix<'_>,
        out: &mut [f32],
    ) {
        let weights = self.weights;
        let Some(w) = weights.matrix(TensorRole::Layer(layer, tensor)) else { return };
        self.compute.multiply(x, w.transposed(), out, Write::Store);
        if let Some(bias) = bias(tensor).and_then(|b| weights.vector(TensorRole::Layer(layer, b))) {
            self.compute.add_bias(out, bias);
        }
        if let Some(lora) = weights.lora(layer, tensor) {
            self.inner(lora.a, x);
            let inner = rows(&self.lora.inner, lora.rank);
            self.compute.multiply(inner, lora.b.transposed(), out, Write::Add);
        }
    }

    /// `inner = s A x`.
    fn inner(&mut self, a: Matrix<'_>, x: Matrix<'_>) {
        let inner = &mut self.lora.inner;
        inner.resize(x.rows() * a.rows(), 0.0);
        self.compute.multiply(x, a.transposed(), inner, Write::Store);
        inner.iter_mut().for_each(|value| *value *= self.weights.lora_scale);
    }

    /// Adds the gradients of the layer's parameters; writes or adds that of its input.
    pub(super) fn linear_backward(
        &mut self,
        layer: usize,
        tensor: LayerTensor,
        x: Matrix<'_>,
        d_out: &[f32],
        d_x: Option<(&mut [f32], Write)>,
    ) {
        let weights = self.weights;
        let role = TensorRole::Layer(layer, tensor);
        let Some(w) = weights.matrix(role) else { return };
        let d_rows = rows(d_out, w.rows());
        if let Some(range) = weights.table.range(Parameter::Base(role)) {
            let d_w = &mut self.gradients[range];
            self.compute.multiply(d_rows.transposed(), x, d_w, Write::Add);
        }
        let bias = bias(tensor).map(|bias| Parameter::Base(TensorRole::Layer(layer, bias)));
        if let Some(range) = bias.and_then(|bias| weights.table.range(bias)) {
            self.compute.bias_backward(d_out, &mut self.gradients[range]);
        }
        let lora = weights.lora(layer, tensor);
        if let Some(lora) = &lora {
            self.inner(lora.a, x);
            let LoraScratch { inner, d_inner } = &mut *self.lora;
            if let Some(range) = weights.table.range(Parameter::LoraB(layer, tensor)) {
                let (d_b, inner) = (&mut self.gradients[range], rows(inner, lora.rank));
                self.compute.multiply(d_rows.transposed(), inner, d_b, Write::Add);
            }
            d_inner.resize(inner.len(), 0.0);
            self.compute.multiply(d_rows, lora.b, d_inner, Write::Store);
            d_inner.iter_mut().for_each(|value| *value *= weights.lora_scale);
            if let Some(range) = weights.table.range(Parameter::LoraA(layer, tensor)) {
                let (d_a, d_inner) = (&mut self.gradients[range], rows(d_inner, lora.rank));
                self.compute.multiply(d_inner.transposed(), x, d_a, Write::Add);
            }
        }
        let Some((d_x, write)) = d_x else { return };
        self.compute.multiply(d_rows, w, d_x, write);
        if let Some(lora) = &lora {
            let d_inner = rows(&self.lora.d_inner, lora.rank);
            self.compute.multiply(d_inner, lora.a, d_x, Write::Add);
        }
    }

    /// `out = norm(x)` with one of the model's norms.
    pub(super) fn norm(&mut self, role: TensorRole, eps: f32, x: &[f32], out: &mut [f32]) {
        if let Some(weight) = self.weights.vector(role) {
            self.compute.rms_norm(x, weight, eps, out);
        }
    }

    /// Adds the gradients of a norm's weight and of its input.
    pub(super) fn norm_backward(
        &mut self,
        role: TensorRole,
        eps: f32,
        x: &[f32],
        d_out: &[f32],
        d_x: &mut [f32],
    ) {
        let Some(weight) = self.weights.vector(role) else { return };
        let range = self.weights.table.range(Parameter::Base(role));
        let d_weight = range.map(|range| &mut self.gradients[range]);
        self.compute.rms_norm_backward(x, weight, eps, d_out, d_x, d_weight);
    }
}

/// The bias that belongs to a matrix.
fn bias(tensor: LayerTensor) -> Option<LayerTensor> {
    Some(match tensor {
        LayerTensor::AttnQ => LayerTensor::AttnQBias,
        LayerTensor::AttnK => LayerTensor::AttnKBias,
        LayerTensor::AttnV => LayerTensor::AttnVBias,
        LayerTensor::AttnOutput => LayerTensor::AttnOutputBias,
        LayerTensor::MlpGate => LayerTensor::MlpGateBias,
        LayerTensor::MlpUp => LayerTensor::MlpUpBias,
        LayerTensor::MlpDown => LayerTensor::MlpDownBias,
        _ => return None,
    })
}
