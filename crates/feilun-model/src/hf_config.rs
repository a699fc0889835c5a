//! [`ModelConfig`] from a Hugging Face `config.json`, with the defaults that the transformers
//! classes give to keys that a file leaves out.

use serde_json::{Map, Value};

use crate::config::{Activation, Architecture, LayerConfig, ModelConfig};
use crate::config_check::{self, ConfigError, MAX_CONTEXT, MAX_HEAD_DIM, MAX_INTERMEDIATE};
use crate::config_check::{MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, bounded, inverse_sqrt};
use crate::hf_rope::{LayerKind, rope_config};

const SUPPORTED: &str = "LlamaForCausalLM (also SmolLM2), MistralForCausalLM, Qwen2ForCausalLM, \
                         Qwen3ForCausalLM, Gemma3ForCausalLM";

/// Reads the bytes of a `config.json`.
pub fn config_from_json(bytes: &[u8]) -> Result<ModelConfig, ConfigError> {
    let keys = Keys::parse(bytes)?;
    let config = decoder(&keys)?;
    config_check::check(&config)?;
    Ok(config)
}

fn decoder(keys: &Keys) -> Result<ModelConfig, ConfigError> {
    let architecture = architecture(keys)?;
    refuse_unsupported(keys)?;
    let is_gemma3 = architecture == Architecture::Gemma3;
    let hidden_size = keys.size("hidden_size", MAX_WIDTH)?;
    let num_heads = keys.size("num_attention_heads", MAX_WIDTH)?;
    let head_dim = head_dim(keys, architecture, hidden_size, num_heads)?;
    let has_attention_bias = keys.boolean("attention_bias")?.unwrap_or(false);
    let biases = match architecture {
        // Fixed in these classes, whatever the file says.
        Architecture::Mistral => (false, false),
        Architecture::Qwen2 => (true, false),
        _ => (has_attention_bias, has_attention_bias),
    };
    let attention_scale = match is_gemma3 {
        true => inverse_sqrt(keys.float("query_pre_attn_scalar")?.unwrap_or(256.0).into()),
        false => inverse_sqrt(head_dim as f64),
    };
    Ok(ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: keys.size("intermediate_size", MAX_INTERMEDIATE)?,
        num_heads,
        num_kv_heads: num_kv_heads(keys, architecture, num_heads)?,
        head_dim,
        vocab_size: keys.size("vocab_size", MAX_VOCAB)?,
        context_length: keys.size("max_position_embeddings", MAX_CONTEXT)?,
        norm_eps: keys.float("rms_norm_eps")?.unwrap_or(1e-6),
        activation: activation(keys, is_gemma3)?,
        qk_norm: is_gemma3 || architecture == Architecture::Qwen3,
        qkv_bias: biases.0,
        output_bias: biases.1,
        mlp_bias: architecture == Architecture::Llama && keys.boolean("mlp_bias")?.unwrap_or(false),
        post_norms: is_gemma3,
        embedding_scale: if is_gemma3 { (hidden_size as f32).sqrt() } else { 1.0 },
        attention_scale,
        logit_softcap: if is_gemma3 { keys.float("final_logit_softcapping")? } else { None },
        tied_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(is_gemma3),
        layers: layers(keys, architecture)?,
    })
}

fn architecture(keys: &Keys) -> Result<Architecture, ConfigError> {
    let classes = keys.get("architectures").and_then(Value::as_array);
    let (key, found) = match classes.map(Vec::as_slice) {
        Some([class]) => ("architectures", class),
        Some([_, ..]) => {
            let found = describe(keys.get("architectures"));
            return Err(ConfigError::unsupported("architectures", found, SUPPORTED));
        }
        _ => match keys.get("model_type") {
            Some(model_type) => ("model_type", model_type),
            None => return Err(ConfigError::MissingKey { key: "architectures".into() }),
        },
    };
    match found.as_str() {
        Some("LlamaForCausalLM" | "llama") => Ok(Architecture::Llama),
        Some("MistralForCausalLM" | "mistral") => Ok(Architecture::Mistral),
        Some("Qwen2ForCausalLM" | "qwen2") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM" | "qwen3") => Ok(Architecture::Qwen3),
        Some("Gemma3ForCausalLM" | "gemma3_text") => Ok(Architecture::Gemma3),
        _ => Err(ConfigError::unsupported(key, describe(Some(found)), SUPPORTED)),
    }
}

/// Keys which would change the arithmetic in ways that this decoder does not know.
fn refuse_unsupported(keys: &Keys) -> Result<(), ConfigError> {
    if let Some(cap) = keys.float("attn_logit_softcapping")? {
        let supported = "null (no cap on attention)";
        return Err(ConfigError::unsupported("attn_logit_softcapping", cap, supported));
    }
    for key in ["use_bidirectional_attention", "rope_interleaved"] {
        if keys.boolean(key)? == Some(true) {
            return Err(ConfigError::unsupported(key, true, "false"));
        }
    }
    if let Some(found) = keys.get("quantization_config") {
        let supported = "null (float weights; quantized models are read from GGUF)";
        let found = describe(Some(found));
        return Err(ConfigError::unsupported("quantization_config", found, supported));
    }
    Ok(())
}

fn head_dim(
    keys: &Keys,
    architecture: Architecture,
    hidden_size: usize,
    num_heads: usize,
) -> Result<usize, ConfigError> {
    if let Some(head_dim) = keys.optional_size("head_dim", MAX_HEAD_DIM)? {
        return Ok(head_dim);
    }
    match architecture {
        Architecture::Qwen3 => Ok(128),
        Architecture::Gemma3 => Ok(256),
        _ if hidden_size.is_multiple_of(num_heads) => Ok(hidden_size / num_heads),
        _ => Err(ConfigError::OutOfRange {
            key: "num_attention_heads".into(),
            found: num_heads.to_string(),
            expected: format!("a divisor of hidden_size {hidden_size}"),
        }),
    }
}

/// `null` means one per query head; a missing key means the default of the class.
fn num_kv_heads(
    keys: &Keys,
    architecture: Architecture,
    num_heads: usize,
) -> Result<usize, ConfigError> {
    let key = "num_key_value_heads";
    match (keys.optional_size(key, MAX_WIDTH)?, architecture) {
        (Some(num_kv_heads), _) => Ok(num_kv_heads),
        (None, Architecture::Llama) => Ok(num_heads),
        (None, _) if keys.is_null(key) => Ok(num_heads),
        (None, _) => Err(ConfigError::MissingKey { key: key.into() }),
    }
}

fn activation(keys: &Keys, is_gemma3: bool) -> Result<Activation, ConfigError> {
    let key = if is_gemma3 { "hidden_activation" } else { "hidden_act" };
    match keys.string(key)? {
        None if is_gemma3 => Ok(Activation::GeluTanh),
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some(found) => {
            Err(ConfigError::unsupported(key, format!("{found:?}"), "silu, gelu_pytorch_tanh"))
        }
    }
}

fn layers(keys: &Keys, architecture: Architecture) -> Result<Vec<LayerConfig>, ConfigError> {
    let num_layers = keys.size("num_hidden_layers", MAX_LAYERS)?;
    let window = window(keys, architecture)?;
    let kinds = layer_kinds(keys, architecture, num_layers, window)?;
    let global_rope = rope_config(keys, architecture, LayerKind::Full)?;
    let local_rope = rope_config(keys, architecture, LayerKind::Sliding)?;
    let layer = |kind| match kind {
        LayerKind::Full => LayerConfig { window: None, rope: global_rope.clone() },
        LayerKind::Sliding => LayerConfig { window, rope: local_rope.clone() },
    };
    Ok(kinds.into_iter().map(layer).collect())
}

/// The width of the sliding window, where there is one.
fn window(keys: &Keys, architecture: Architecture) -> Result<Option<usize>, ConfigError> {
    let window = keys.optional_size("sliding_window", MAX_CONTEXT)?;
    let is_left_out = window.is_none() && !keys.is_null("sliding_window");
    match architecture {
        Architecture::Llama => Ok(None),
        Architecture::Qwen2 | Architecture::Qwen3
            if !keys.boolean("use_sliding_window")?.unwrap_or(false) =>
        {
            Ok(None)
        }
        // The default of these classes.
        _ if is_left_out => Ok(Some(4096)),
        _ => Ok(window),
    }
}

fn layer_kinds(
    keys: &Keys,
    architecture: Architecture,
    num_layers: usize,
    window: Option<usize>,
) -> Result<Vec<LayerKind>, ConfigError> {
    let by_rule = |is_sliding: &dyn Fn(usize) -> bool| {
        let kind = |layer| if is_sliding(layer) { LayerKind::Sliding } else { LayerKind::Full };
        (0..num_layers).map(kind).collect()
    };
    match architecture {
        Architecture::Llama => Ok(by_rule(&|_| false)),
        Architecture::Mistral => Ok(by_rule(&|_| window.is_some())),
        _ => {
            if let Some(kinds) = listed_layer_kinds(keys, num_layers)? {
                return Ok(kinds);
            }
            if architecture == Architecture::Gemma3 {
                let pattern = keys.optional_size("sliding_window_pattern", MAX_LAYERS)?;
                let pattern = pattern.unwrap_or(6);
                return Ok(by_rule(&|layer| !(layer + 1).is_multiple_of(pattern)));
            }
            // May be 0 or beyond the last layer: both are meaningful.
            let first = keys.integer("max_window_layers")?.unwrap_or(28);
            Ok(by_rule(&|layer| window.is_some() && layer as u64 >= first))
        }
    }
}

fn listed_layer_kinds(
    keys: &Keys,
    num_layers: usize,
) -> Result<Option<Vec<LayerKind>>, ConfigError> {
    let key = "layer_types";
    let Some(value) = keys.get(key) else { return Ok(None) };
    let supported = format!("{num_layers} of full_attention, sliding_attention");
    let Some(types) = value.as_array().filter(|types| types.len() == num_layers) else {
        return Err(ConfigError::unsupported(key, describe(Some(value)), supported));
    };
    let kind = |layer_type: &Value| match layer_type.as_str() {
        Some("full_attention") => Ok(LayerKind::Full),
        Some("sliding_attention") => Ok(LayerKind::Sliding),
        _ => Err(ConfigError::unsupported(key, describe(Some(layer_type)), supported.clone())),
    };
    types.iter().map(kind).collect::<Result<_, _>>().map(Some)
}

/// A JSON object with typed access. A key with the value `null` counts as absent.
pub(crate) struct Keys {
    map: Map<String, Value>,
}

impl Keys {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Keys, ConfigError> {
        Ok(Keys { map: serde_json::from_slice(bytes)? })
    }

    pub(crate) fn from_map(map: &Map<String, Value>) -> Keys {
        Keys { map: map.clone() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there and says `null`.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.typed(key, "an integer of at least 0", Value::as_u64)
    }

    /// As `f32`; JSON's own numbers are 64-bit.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        self.typed(key, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, ConfigError> {
        self.typed(key, "an object", Value::as_object)
    }

    pub(crate) fn optional_size(&self, key: &str, max: u64) -> Result<Option<usize>, ConfigError> {
        self.integer(key)?.map(|found| bounded(key, found, max)).transpose()
    }

    pub(crate) fn size(&self, key: &str, max: u64) -> Result<usize, ConfigError> {
        let missing = || ConfigError::MissingKey { key: key.into() };
        self.optional_size(key, max)?.ok_or_else(missing)
    }

    pub(crate) fn required_float(&self, key: &str) -> Result<f32, ConfigError> {
        self.float(key)?.ok_or_else(|| ConfigError::MissingKey { key: key.into() })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong_type =
            || ConfigError::WrongType { key: key.into(), found: describe(Some(value)), expected };
        convert(value).ok_or_else(wrong_type).map(Some)
    }
}

/// A short form of a value for messages: JSON, cut off.
pub(crate) fn describe(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(Value::Array(items)) => format!("an array of {}", items.len()),
        Some(Value::Object(map)) => format!("an object of {} keys", map.len()),
        Some(scalar) => scalar.to_string().chars().take(60).collect(),
    }
}
