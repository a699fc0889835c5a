//! Which tensors a configuration needs, of what shape, and what each file format calls them.

use crate::config::{Architecture, ModelConfig};
use crate::tensor::{LayerTensor, RowOrder, TensorRole};

/// The two vocabularies of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `blk.0.attn_q.weight`.
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
}

/// A tensor that must be in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) role: TensorRole,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Length.
    Vector(usize),
    /// Rows (outputs) and columns (inputs).
    Matrix(usize, usize),
}

/// What the formats treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A norm: Gemma's safetensors store its weight less one.
    Norm,
    /// A weight or bias of q or k: GGUF stores Llama's as interleaved pairs.
    Rotated,
    /// Anything else.
    Plain,
}

impl ModelConfig {
    /// Shape of a layer's tensor, or `None` where the configuration has no such tensor. It is the
    /// same for every layer.
    pub(crate) fn layer_tensor(&self, tensor: LayerTensor) -> Option<(Shape, Kind)> {
        use LayerTensor as T;
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv, head) = (self.q_size(), self.kv_size(), self.head_dim);
        let (is_there, shape, kind) = match tensor {
            T::AttnNorm | T::MlpNorm => (true, Shape::Vector(hidden), Kind::Norm),
            T::PostAttnNorm | T::PostMlpNorm => {
                (self.post_norms, Shape::Vector(hidden), Kind::Norm)
            }
            T::AttnQNorm | T::AttnKNorm => (self.qk_norm, Shape::Vector(head), Kind::Norm),
            T::AttnQ => (true, Shape::Matrix(q, hidden), Kind::Rotated),
            T::AttnK => (true, Shape::Matrix(kv, hidden), Kind::Rotated),
            T::AttnV => (true, Shape::Matrix(kv, hidden), Kind::Plain),
            T::AttnOutput => (true, Shape::Matrix(hidden, q), Kind::Plain),
            T::AttnQBias => (self.qkv_bias, Shape::Vector(q), Kind::Rotated),
            T::AttnKBias => (self.qkv_bias, Shape::Vector(kv), Kind::Rotated),
            T::AttnVBias => (self.qkv_bias, Shape::Vector(kv), Kind::Plain),
            T::AttnOutputBias => (self.output_bias, Shape::Vector(hidden), Kind::Plain),
            T::MlpGate | T::MlpUp => (true, Shape::Matrix(inner, hidden), Kind::Plain),
            T::MlpDown => (true, Shape::Matrix(hidden, inner), Kind::Plain),
            T::MlpGateBias | T::MlpUpBias => (self.mlp_bias, Shape::Vector(inner), Kind::Plain),
            T::MlpDownBias => (self.mlp_bias, Shape::Vector(hidden), Kind::Plain),
        };
        is_there.then_some((shape, kind))
    }
}

/// Every tensor of one layer, in the order of the computation.
pub(crate) const LAYER_TENSORS: [LayerTensor; 20] = [
    LayerTensor::AttnNorm,
    LayerTensor::AttnQ,
    LayerTensor::AttnQBias,
    LayerTensor::AttnQNorm,
    LayerTensor::AttnK,
    LayerTensor::AttnKBias,
    LayerTensor::AttnKNorm,
    LayerTensor::AttnV,
    LayerTensor::AttnVBias,
    LayerTensor::AttnOutput,
    LayerTensor::AttnOutputBias,
    LayerTensor::PostAttnNorm,
    LayerTensor::MlpNorm,
    LayerTensor::MlpGate,
    LayerTensor::MlpGateBias,
    LayerTensor::MlpUp,
    LayerTensor::MlpUpBias,
    LayerTensor::MlpDown,
    LayerTensor::MlpDownBias,
    LayerTensor::PostMlpNorm,
];

/// Everything that the configuration needs, in the order of the computation.
pub(crate) fn needed(config: &ModelConfig) -> Vec<Needed> {
    let embedding = Shape::Matrix(config.vocab_size, config.hidden_size);
    let whole = |role, shape, kind| Needed { role, shape, kind };
    let mut all = vec![whole(TensorRole::TokenEmbedding, embedding, Kind::Plain)];
    for layer in 0..config.layers.len() {
        for tensor in LAYER_TENSORS {
            if let Some((shape, kind)) = config.layer_tensor(tensor) {
                all.push(Needed { role: TensorRole::Layer(layer, tensor), shape, kind });
            }
        }
    }
    all.push(whole(TensorRole::OutputNorm, Shape::Vector(config.hidden_size), Kind::Norm));
    if !config.tied_embeddings {
        all.push(whole(TensorRole::OutputHead, embedding, Kind::Plain));
    }
    all
}

/// How a stored tensor differs from the canonical one.
pub(crate) fn storage(naming: Naming, kind: Kind, config: &ModelConfig) -> (RowOrder, f32) {
    match (naming, kind, config.architecture) {
        (Naming::Gguf, Kind::Rotated, Architecture::Llama) => {
            (RowOrder::InterleavedPairs { head_dim: config.head_dim }, 0.0)
        }
        (Naming::HuggingFace, Kind::Norm, Architecture::Gemma3) => (RowOrder::Canonical, 1.0),
        _ => (RowOrder::Canonical, 0.0),
    }
}

/// The name of a tensor in a file.
pub(crate) fn name(naming: Naming, architecture: Architecture, role: TensorRole) -> String {
    match (naming, role) {
        (Naming::Gguf, TensorRole::TokenEmbedding) => "token_embd.weight".into(),
        (Naming::Gguf, TensorRole::OutputNorm) => "output_norm.weight".into(),
        (Naming::Gguf, TensorRole::OutputHead) => "output.weight".into(),
        (Naming::Gguf, TensorRole::Layer(layer, tensor)) => {
            format!("blk.{layer}.{}", gguf_layer_name(tensor))
        }
        (Naming::HuggingFace, TensorRole::TokenEmbedding) => "model.embed_tokens.weight".into(),
        (Naming::HuggingFace, TensorRole::OutputNorm) => "model.norm.weight".into(),
        (Naming::HuggingFace, TensorRole::OutputHead) => "lm_head.weight".into(),
        (Naming::HuggingFace, TensorRole::Layer(layer, tensor)) => {
            format!("model.layers.{layer}.{}", hugging_face_layer_name(architecture, tensor))
        }
    }
}

fn gguf_layer_name(tensor: LayerTensor) -> &'static str {
    match tensor {
        LayerTensor::AttnNorm => "attn_norm.weight",
        LayerTensor::AttnQ => "attn_q.weight",
        LayerTensor::AttnK => "attn_k.weight",
        LayerTensor::AttnV => "attn_v.weight",
        LayerTensor::AttnOutput => "attn_output.weight",
        LayerTensor::AttnQBias => "attn_q.bias",
        LayerTensor::AttnKBias => "attn_k.bias",
        LayerTensor::AttnVBias => "attn_v.bias",
        LayerTensor::AttnOutputBias => "attn_output.bias",
        LayerTensor::AttnQNorm => "attn_q_norm.weight",
        LayerTensor::AttnKNorm => "attn_k_norm.weight",
        LayerTensor::PostAttnNorm => "post_attention_norm.weight",
        LayerTensor::MlpNorm => "ffn_norm.weight",
        LayerTensor::MlpGate => "ffn_gate.weight",
        LayerTensor::MlpUp => "ffn_up.weight",
        LayerTensor::MlpDown => "ffn_down.weight",
        LayerTensor::MlpGateBias => "ffn_gate.bias",
        LayerTensor::MlpUpBias => "ffn_up.bias",
        LayerTensor::MlpDownBias => "ffn_down.bias",
        LayerTensor::PostMlpNorm => "post_ffw_norm.weight",
    }
}

/// Gemma calls the norm before its MLP otherwise: the usual name is that of the norm after
/// attention, and Gemma has both.
fn hugging_face_layer_name(architecture: Architecture, tensor: LayerTensor) -> &'static str {
    match tensor {
        LayerTensor::AttnNorm => "input_layernorm.weight",
        LayerTensor::AttnQ => "self_attn.q_proj.weight",
        LayerTensor::AttnK => "self_attn.k_proj.weight",
        LayerTensor::AttnV => "self_attn.v_proj.weight",
        LayerTensor::AttnOutput => "self_attn.o_proj.weight",
        LayerTensor::AttnQBias => "self_attn.q_proj.bias",
        LayerTensor::AttnKBias => "self_attn.k_proj.bias",
        LayerTensor::AttnVBias => "self_attn.v_proj.bias",
        LayerTensor::AttnOutputBias => "self_attn.o_proj.bias",
        LayerTensor::AttnQNorm => "self_attn.q_norm.weight",
        LayerTensor::AttnKNorm => "self_attn.k_norm.weight",
        LayerTensor::PostAttnNorm => "post_attention_layernorm.weight",
        LayerTensor::MlpNorm if architecture == Architecture::Gemma3 => {
            "pre_feedforward_layernorm.weight"
        }
        LayerTensor::MlpNorm => "post_attention_layernorm.weight",
        LayerTensor::MlpGate => "mlp.gate_proj.weight",
        LayerTensor::MlpUp => "mlp.up_proj.weight",
        LayerTensor::MlpDown => "mlp.down_proj.weight",
        LayerTensor::MlpGateBias => "mlp.gate_proj.bias",
        LayerTensor::MlpUpBias => "mlp.up_proj.bias",
        LayerTensor::MlpDownBias => "mlp.down_proj.bias",
        LayerTensor::PostMlpNorm => "post_feedforward_layernorm.weight",
    }
}
