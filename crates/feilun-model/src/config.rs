//! What makes one decoder differ from another, as data.
//!
//! Every supported architecture is the same decoder: embed, then per layer norm → attention →
//! add, norm → gated MLP → add, then norm → output head. This file names all the switches.

/// The family a model file names; kept for messages and export, never branched on in forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM2, and Mistral in GGUF files.
    Llama,
    /// Mistral, in safetensors files.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k, v.
    Qwen2,
    /// Qwen3: RMSNorm on each head of q and k.
    Qwen3,
    /// Gemma 3, text only: QK-norm, norms after each block, two kinds of layers.
    Gemma3,
}

/// The gate of the MLP: `down(act(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh approximation.
    GeluTanh,
}

/// Rotary position embedding of one layer. Pairs are always (i, i + head_dim/2), the Hugging
/// Face layout; the loader permutes the rows of files that store interleaved pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths: `inv_freq[i] = theta^(-2i / head_dim)`.
    pub theta: f32,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// Variants of frequency scaling, named as in Hugging Face configurations.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Plain,
    /// Every frequency divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided, high kept, smooth between.
    Llama3 {
        /// Stretch of the context.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are fully stretched.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context of the original training.
        original_context: f32,
    },
    /// YaRN (Peng et al. 2023), as transformers computes it.
    Yarn {
        /// Stretch of the context.
        factor: f32,
        /// Context of the original training.
        original_context: f32,
        /// Rotations below which a dimension is fully interpolated.
        beta_slow: f32,
        /// Rotations above which a dimension is left alone.
        beta_fast: f32,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
    /// One divisor per frequency, as in GGUF's `rope_freqs.weight` (`head_dim / 2` values).
    Divisors(Vec<f32>),
}

/// What may differ between the layers of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// A query at position p sees keys in `(p - window, p]`; `None`: all up to p.
    pub window: Option<usize>,
    /// This layer's rotary embedding.
    pub rope: RopeConfig,
}

/// The shape and the switches of one decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family, for messages.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest context that the model was made for, in tokens.
    pub context_length: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// MLP gate.
    pub activation: Activation,
    /// q and k heads are RMS-normalised before RoPE.
    pub qk_norm: bool,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// The attention output projection has a bias.
    pub output_bias: bool,
    /// gate, up and down have biases.
    pub mlp_bias: bool,
    /// RMSNorm also after attention and after the MLP, before the residual add.
    pub post_norms: bool,
    /// Factor on the embedding of each token.
    pub embedding_scale: f32,
    /// Factor on q · k.
    pub attention_scale: f32,
    /// `cap * tanh(logit / cap)`, where set.
    pub logit_softcap: Option<f32>,
    /// The output head is the embedding matrix.
    pub tied_embeddings: bool,
    /// One entry per layer.
    pub layers: Vec<LayerConfig>,
}

impl ModelConfig {
    /// Rows of the q projection.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Rows of the k (and of the v) projection.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}
