//! [`ModelConfig`] from the metadata of a GGUF file, with the meaning (and the unwritten defaults)
//! that llama.cpp gives to the keys.

use feilun_kernels::BlockType;

use crate::config::{Activation, Architecture, LayerConfig, ModelConfig, RopeConfig, RopeScaling};
use crate::config_check::{self, ConfigError, MAX_CONTEXT, MAX_HEAD_DIM, MAX_INTERMEDIATE};
use crate::config_check::{MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, bounded, inverse_sqrt};
use crate::gguf::Gguf;
use crate::gguf_value::Value;

/// One frequency divisor per pair of a head: how GGUF stores Llama 3's stretched RoPE.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Gemma 3 has five local layers, then a global one.
const GEMMA3_PATTERN: usize = 6;
/// RoPE base of Gemma 3's local layers, which converters did not always write.
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
/// The depth that llama.cpp takes for "this is the 27B model", whose attention scale is special.
const GEMMA3_27B_LAYERS: usize = 62;

/// Reads the configuration; tensors are looked at only for the vocabulary and for biases.
pub fn config_from_gguf<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<ModelConfig, ConfigError> {
    let name = gguf.required_string("general.architecture")?;
    let architecture = match name {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "gemma3" => Architecture::Gemma3,
        _ => {
            let found = format!("{name:?}");
            let supported = "llama (also Mistral and SmolLM2), qwen2, qwen3, gemma3";
            return Err(ConfigError::unsupported("general.architecture", found, supported));
        }
    };
    let config = Keys { gguf, prefix: name, architecture }.config()?;
    config_check::check(&config)?;
    Ok(config)
}

/// The keys of one architecture.
struct Keys<'a, B> {
    gguf: &'a Gguf<B>,
    prefix: &'a str,
    architecture: Architecture,
}

impl<B: AsRef<[u8]>> Keys<'_, B> {
    fn config(&self) -> Result<ModelConfig, ConfigError> {
        self.refuse_unsupported()?;
        let is_gemma3 = self.architecture == Architecture::Gemma3;
        let num_layers = self.size("block_count", MAX_LAYERS)?;
        let hidden_size = self.size("embedding_length", MAX_WIDTH)?;
        let num_heads = self.size("attention.head_count", MAX_WIDTH)?;
        let num_kv_heads =
            self.optional_size("attention.head_count_kv", MAX_WIDTH)?.unwrap_or(num_heads);
        let head_dim = self.head_dim(hidden_size, num_heads)?;
        let attention_scale = match self.float("attention.scale")? {
            Some(scale) if scale != 0.0 => scale,
            _ if is_gemma3 && num_layers == GEMMA3_27B_LAYERS => {
                inverse_sqrt((hidden_size / num_heads) as f64)
            }
            _ => inverse_sqrt(head_dim as f64),
        };
        Ok(ModelConfig {
            architecture: self.architecture,
            hidden_size,
            intermediate_size: self.size("feed_forward_length", MAX_INTERMEDIATE)?,
            num_heads,
            num_kv_heads,
            head_dim,
            vocab_size: self.vocab_size()?,
            context_length: self.size("context_length", MAX_CONTEXT)?,
            norm_eps: self.required_float("attention.layer_norm_rms_epsilon")?,
            activation: if is_gemma3 { Activation::GeluTanh } else { Activation::Silu },
            qk_norm: is_gemma3 || self.architecture == Architecture::Qwen3,
            qkv_bias: self.has("blk.0.attn_q.bias"),
            output_bias: self.has("blk.0.attn_output.bias"),
            mlp_bias: self.has("blk.0.ffn_gate.bias"),
            post_norms: is_gemma3,
            embedding_scale: if is_gemma3 { (hidden_size as f32).sqrt() } else { 1.0 },
            attention_scale,
            logit_softcap: self.float("final_logit_softcapping")?.filter(|&cap| cap != 0.0),
            tied_embeddings: !self.has("output.weight"),
            layers: self.layers(num_layers, head_dim)?,
        })
    }

    /// Keys which would change the arithmetic in ways that this decoder does not know.
    fn refuse_unsupported(&self) -> Result<(), ConfigError> {
        if let Some(kind) = self.gguf.string("general.type")?
            && kind != "model"
        {
            return Err(ConfigError::unsupported("general.type", format!("{kind:?}"), "model"));
        }
        let parts = self.gguf.integer("split.count")?.unwrap_or(1);
        if parts > 1 {
            return Err(ConfigError::unsupported("split.count", parts, "one file, not split"));
        }
        let experts = self.gguf.integer(&self.key("expert_count"))?.unwrap_or(0);
        if experts > 0 {
            let supported = "0 (no mixture of experts)";
            return Err(ConfigError::unsupported(self.key("expert_count"), experts, supported));
        }
        if self.gguf.boolean(&self.key("attention.causal"))? == Some(false) {
            return Err(ConfigError::unsupported(self.key("attention.causal"), false, "true"));
        }
        let softcap = self.float("attn_logit_softcapping")?.unwrap_or(0.0);
        if softcap != 0.0 {
            let key = self.key("attn_logit_softcapping");
            return Err(ConfigError::unsupported(key, softcap, "0 (no cap on attention)"));
        }
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, num_heads: usize) -> Result<usize, ConfigError> {
        let head_dim = match self.optional_size("attention.key_length", MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None => {
                return Err(ConfigError::OutOfRange {
                    key: self.key("attention.head_count"),
                    found: num_heads.to_string(),
                    expected: format!("a divisor of embedding_length {hidden_size}"),
                });
            }
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = self.optional_size(name, MAX_HEAD_DIM)?
                && found != head_dim
            {
                let supported = format!("{head_dim}, the whole head");
                return Err(ConfigError::unsupported(self.key(name), found, supported));
            }
        }
        Ok(head_dim)
    }

    /// The rows of the embedding, with which the metadata must agree.
    fn vocab_size(&self) -> Result<usize, ConfigError> {
        let name = "token_embd.weight";
        let Some(tensor) = self.gguf.tensor(name) else {
            return Err(ConfigError::MissingTensor { name: name.into() });
        };
        let rows = tensor.dims.get(1).copied().unwrap_or(1);
        if let Some(found) = self.optional_size("vocab_size", MAX_VOCAB)?
            && found != rows
        {
            return Err(ConfigError::OutOfRange {
                key: self.key("vocab_size"),
                found: found.to_string(),
                expected: format!("{rows}, the rows of {name}"),
            });
        }
        Ok(rows)
    }

    fn layers(&self, num_layers: usize, head_dim: usize) -> Result<Vec<LayerConfig>, ConfigError> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let global_rope = RopeConfig { theta, scaling: self.scaling(head_dim)? };
        let window = self
            .gguf
            .integer(&self.key("attention.sliding_window"))?
            .filter(|&window| window > 0)
            .map(|window| bounded("attention.sliding_window", window, MAX_CONTEXT))
            .transpose()?;
        let is_local = match (self.architecture, window) {
            (_, None) => vec![false; num_layers],
            // llama.cpp ignores the key for these: it does not say which layers have a window.
            (Architecture::Qwen2 | Architecture::Qwen3, _) => vec![false; num_layers],
            (Architecture::Gemma3, _) => self.gemma3_local_layers(num_layers)?,
            (Architecture::Llama | Architecture::Mistral, _) => vec![true; num_layers],
        };
        let local_rope = match self.architecture {
            Architecture::Gemma3 => RopeConfig {
                theta: self.float("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_THETA),
                scaling: RopeScaling::Plain,
            },
            _ => global_rope.clone(),
        };
        let layer = |is_local: bool| match is_local {
            true => LayerConfig { window, rope: local_rope.clone() },
            false => LayerConfig { window: None, rope: global_rope.clone() },
        };
        Ok(is_local.into_iter().map(layer).collect())
    }

    fn gemma3_local_layers(&self, num_layers: usize) -> Result<Vec<bool>, ConfigError> {
        let key = self.key("attention.sliding_window_pattern");
        let pattern = match self.gguf.value(&key)? {
            None => GEMMA3_PATTERN,
            Some(Value::Unsigned(pattern)) => bounded(&key, pattern, MAX_LAYERS)?,
            Some(Value::Array(array)) if array.len() == num_layers => {
                let wrong_type = || ConfigError::WrongType {
                    key: key.clone(),
                    found: Value::Array(array).describe(),
                    expected: "an integer or an array of bools",
                };
                return Ok(array.booleans().ok_or_else(wrong_type)?.collect());
            }
            Some(other) => {
                return Err(ConfigError::unsupported(
                    key,
                    other.describe(),
                    format!("an integer or {num_layers} bools"),
                ));
            }
        };
        Ok((0..num_layers).map(|layer| layer % pattern < pattern - 1).collect())
    }

    fn scaling(&self, head_dim: usize) -> Result<RopeScaling, ConfigError> {
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.float("rope.scale_linear")?.unwrap_or(0.0),
        };
        let factor = if factor == 0.0 { 1.0 } else { factor };
        let key = self.key("rope.scaling.type");
        // Without a type, a factor means linear.
        let kind = self.gguf.string(&key)?.unwrap_or("linear");
        let scaling = match kind {
            "none" => RopeScaling::Plain,
            "linear" if factor == 1.0 => RopeScaling::Plain,
            "linear" => RopeScaling::Linear { factor },
            "yarn" => self.yarn(factor)?,
            _ => {
                let supported = "none, linear, yarn";
                return Err(ConfigError::unsupported(key, format!("{kind:?}"), supported));
            }
        };
        let Some(divisors) = self.divisors(head_dim)? else { return Ok(scaling) };
        match scaling {
            RopeScaling::Plain => Ok(RopeScaling::Divisors(divisors)),
            RopeScaling::Linear { factor } => {
                Ok(RopeScaling::Divisors(divisors.iter().map(|d| d * factor).collect()))
            }
            _ => Err(ConfigError::unsupported(
                key,
                kind,
                format!("none or linear with {ROPE_FREQS}"),
            )),
        }
    }

    fn yarn(&self, factor: f32) -> Result<RopeScaling, ConfigError> {
        let original =
            match self.optional_size("rope.scaling.original_context_length", MAX_CONTEXT)? {
                Some(original) => original,
                None => self.size("context_length", MAX_CONTEXT)?,
            };
        let float = |name: &str, default: f32| -> Result<f32, ConfigError> {
            Ok(self.float(name)?.unwrap_or(default))
        };
        // The paper's temperature; llama.cpp multiplies the file's own factor by it.
        let temperature = if factor > 1.0 { 1.0 + 0.1 * factor.ln() } else { 1.0 };
        Ok(RopeScaling::Yarn {
            factor,
            original_context: original as f32,
            beta_slow: float("rope.scaling.yarn_beta_slow", 1.0)?,
            beta_fast: float("rope.scaling.yarn_beta_fast", 32.0)?,
            attention_factor: float("rope.scaling.attn_factor", 1.0)? * temperature,
        })
    }

    fn divisors(&self, head_dim: usize) -> Result<Option<Vec<f32>>, ConfigError> {
        let Some(tensor) = self.gguf.tensor(ROPE_FREQS) else { return Ok(None) };
        if tensor.block_type != BlockType::F32 || tensor.dims != [head_dim / 2] {
            return Err(ConfigError::unsupported(
                ROPE_FREQS,
                format!("{} {:?}", tensor.block_type, tensor.dims),
                format!("F32 [{}]", head_dim / 2),
            ));
        }
        let bytes = self.gguf.bytes().get(tensor.range.clone()).unwrap_or_default();
        Ok(Some(bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()))
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn has(&self, tensor: &str) -> bool {
        self.gguf.tensor(tensor).is_some()
    }

    fn optional_size(&self, name: &str, max: u64) -> Result<Option<usize>, ConfigError> {
        let key = self.key(name);
        self.gguf.integer(&key)?.map(|found| bounded(&key, found, max)).transpose()
    }

    fn size(&self, name: &str, max: u64) -> Result<usize, ConfigError> {
        let missing = || ConfigError::MissingKey { key: self.key(name) };
        self.optional_size(name, max)?.ok_or_else(missing)
    }

    fn float(&self, name: &str) -> Result<Option<f32>, ConfigError> {
        Ok(self.gguf.float(&self.key(name))?)
    }

    fn required_float(&self, name: &str) -> Result<f32, ConfigError> {
        self.float(name)?.ok_or_else(|| ConfigError::MissingKey { key: self.key(name) })
    }
}
