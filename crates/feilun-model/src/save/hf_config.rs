//! `config.json` from a configuration, so that transformers and [`crate::ModelFiles`] both read
//! the model back as it is.
//!
//! Not every configuration can be said: GGUF files are freer. What was written is therefore read
//! again and compared, and a difference is an error that names it, not a model that is wrong.

use feilun_kernels::BlockType;
use serde_json::{Map, Value, json};

use super::error::SaveError;
use super::same_config::same_config;
use crate::config::{Activation, Architecture, ModelConfig, RopeConfig, RopeScaling};
use crate::hf_config::config_from_json;
use crate::model_files::SpecialTokens;
use crate::rope_frequencies::frequencies;

const FORMAT: &str = "config.json";
/// By how much two frequencies may differ and still be the same: GGUF stores divisors as f32.
const SAME_FREQUENCY: f64 = 1e-5;

/// The text of a `config.json` for weights of the given type.
///
/// # Errors
/// When the configuration has something that `config.json` cannot say.
pub fn config_json(
    config: &ModelConfig,
    special: &SpecialTokens,
    block_type: BlockType,
) -> Result<String, SaveError> {
    let config = &with_named_scaling(config);
    let json = fields(config, special, block_type);
    let text = format!("{:#}\n", Value::Object(json));
    let read = config_from_json(text.as_bytes()).map_err(|error| SaveError::NotExpressible {
        format: FORMAT,
        what: "the configuration".into(),
        found: error.to_string(),
        expected: "what it says to be read again".into(),
    })?;
    same_config(FORMAT, config, &read)?;
    Ok(text)
}

fn fields(
    config: &ModelConfig,
    special: &SpecialTokens,
    block_type: BlockType,
) -> Map<String, Value> {
    let architecture = hf_architecture(config);
    let (class, model_type) = match architecture {
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Mistral => ("MistralForCausalLM", "mistral"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Architecture::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
    };
    let is_gemma3 = architecture == Architecture::Gemma3;
    let function = match config.activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    let mut json = Map::new();
    let mut set = |key: &str, value: Value| {
        json.insert(key.to_owned(), value);
    };
    set("architectures", json!([class]));
    set("model_type", json!(model_type));
    set("vocab_size", json!(config.vocab_size));
    set("hidden_size", json!(config.hidden_size));
    set("intermediate_size", json!(config.intermediate_size));
    set("num_hidden_layers", json!(config.layers.len()));
    set("num_attention_heads", json!(config.num_heads));
    set("num_key_value_heads", json!(config.num_kv_heads));
    set("head_dim", json!(config.head_dim));
    set("max_position_embeddings", json!(config.context_length));
    set("rms_norm_eps", shortest(config.norm_eps));
    set("tie_word_embeddings", json!(config.tied_embeddings));
    set("torch_dtype", json!(torch_name(block_type)));
    set("attention_dropout", json!(0.0));
    set(if is_gemma3 { "hidden_activation" } else { "hidden_act" }, json!(function));
    if !matches!(architecture, Architecture::Mistral | Architecture::Qwen2) {
        set("attention_bias", json!(config.qkv_bias));
    }
    if architecture == Architecture::Llama {
        set("mlp_bias", json!(config.mlp_bias));
    }
    if is_gemma3 {
        let scale = f64::from(config.attention_scale);
        let scalar = 1.0 / (scale * scale);
        // A whole number in every known model; the f32 of its root does not give it back exactly.
        let whole = scalar.round();
        let is_whole = (scalar - whole).abs() < 1e-3;
        set("query_pre_attn_scalar", if is_whole { json!(whole as u64) } else { json!(scalar) });
        set("final_logit_softcapping", config.logit_softcap.map_or(Value::Null, shortest));
        set("attn_logit_softcapping", Value::Null);
    }
    windows(config, architecture, &mut set);
    ropes(config, architecture, &mut set);
    set("bos_token_id", json!(special.bos));
    set(
        "eos_token_id",
        match special.eos.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        },
    );
    json
}

/// Mistral is what Hugging Face calls a Llama whose layers have windows.
fn hf_architecture(config: &ModelConfig) -> Architecture {
    let has_window = config.layers.iter().any(|layer| layer.window.is_some());
    match config.architecture {
        Architecture::Llama if has_window => Architecture::Mistral,
        other => other,
    }
}

fn windows(config: &ModelConfig, architecture: Architecture, set: &mut impl FnMut(&str, Value)) {
    let window = config.layers.iter().find_map(|layer| layer.window);
    let types = || -> Vec<&str> {
        let name = |window: Option<usize>| match window {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        config.layers.iter().map(|layer| name(layer.window)).collect()
    };
    match architecture {
        Architecture::Llama => {}
        Architecture::Mistral => set("sliding_window", json!(window)),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            set("use_sliding_window", json!(window.is_some()));
            set("sliding_window", json!(window));
            set("layer_types", json!(types()));
        }
        Architecture::Gemma3 => {
            set("sliding_window", json!(window));
            set("layer_types", json!(types()));
        }
    }
}

/// In the form of transformers 4, which 5 reads too.
fn ropes(config: &ModelConfig, architecture: Architecture, set: &mut impl FnMut(&str, Value)) {
    let of = |is_local: bool| {
        let mut layers = config.layers.iter();
        layers.find(|layer| layer.window.is_some() == is_local).map(|layer| &layer.rope)
    };
    let global = match (architecture, of(false), of(true)) {
        // Only Gemma has one for each kind of layer.
        (Architecture::Gemma3, global, local) => {
            if let Some(local) = local {
                set("rope_local_base_freq", shortest(local.theta));
            }
            global
        }
        (_, global, local) => global.or(local),
    };
    if let Some(rope) = global {
        set("rope_theta", shortest(rope.theta));
        set("rope_scaling", scaling(&rope.scaling));
    }
}

fn scaling(scaling: &RopeScaling) -> Value {
    match scaling {
        // Divisors without a name cannot be said; the comparison will tell.
        RopeScaling::Plain | RopeScaling::Divisors(_) => Value::Null,
        RopeScaling::Linear { factor } => {
            json!({ "rope_type": "linear", "factor": shortest(*factor) })
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            json!({
                "rope_type": "llama3",
                "factor": shortest(*factor),
                "low_freq_factor": shortest(*low_freq_factor),
                "high_freq_factor": shortest(*high_freq_factor),
                "original_max_position_embeddings": *original_context as u64,
            })
        }
        RopeScaling::Yarn { factor, original_context, beta_slow, beta_fast, attention_factor } => {
            json!({
                "rope_type": "yarn",
                "factor": shortest(*factor),
                "original_max_position_embeddings": *original_context as u64,
                "beta_slow": shortest(*beta_slow),
                "beta_fast": shortest(*beta_fast),
                "attention_factor": shortest(*attention_factor),
            })
        }
    }
}

/// GGUF has Llama 3's stretched frequencies as divisors. The parameters that published models
/// have are tried on them.
fn with_named_scaling(config: &ModelConfig) -> ModelConfig {
    let mut config = config.clone();
    for layer in &mut config.layers {
        if let Some(named) = named_scaling(&layer.rope, config.head_dim) {
            layer.rope.scaling = named;
        }
    }
    config
}

fn named_scaling(rope: &RopeConfig, head_dim: usize) -> Option<RopeScaling> {
    let RopeScaling::Divisors(_) = rope.scaling else { return None };
    let (wanted, _) = frequencies(rope, head_dim);
    let llama3 = |factor| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    [8.0, 32.0].map(llama3).into_iter().find(|named| {
        let candidate = RopeConfig { theta: rope.theta, scaling: named.clone() };
        let (found, _) = frequencies(&candidate, head_dim);
        found.iter().zip(&wanted).all(|(a, b)| (a / b - 1.0).abs() < SAME_FREQUENCY)
    })
}

/// A float as people would write it: 0.1f32 as 0.1, not as the 17 digits of its f64.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

fn torch_name(block_type: BlockType) -> &'static str {
    match block_type {
        BlockType::F16 => "float16",
        BlockType::Bf16 => "bfloat16",
        _ => "float32",
    }
}
