//! The keys of a GGUF file for a model that did not come as one: its configuration, its tokenizer
//! and its chat template, under the names that llama.cpp reads.
//!
//! Some of a configuration has no key, since a reader derives it from the architecture. Whether
//! the reader comes to the same is seen when the file is written and read again (`save_gguf`).

use super::gguf_metadata::{GgufMetadata, as_gguf};
use crate::config::{Architecture, LayerConfig, ModelConfig, RopeConfig, RopeScaling};
use crate::gguf_vocabulary::GgufVocabulary;
use crate::rope_frequencies::frequencies;

impl GgufMetadata {
    /// The keys for a model: `name` is what people call it.
    pub fn new(
        name: &str,
        config: &ModelConfig,
        vocabulary: &GgufVocabulary<'_>,
        chat_template: Option<&str>,
    ) -> GgufMetadata {
        let mut metadata = GgufMetadata::empty();
        metadata.set_string("general.type", "model");
        metadata.set_string("general.name", name);
        set_config(&mut metadata, config);
        set_vocabulary(&mut metadata, vocabulary);
        if let Some(template) = chat_template {
            metadata.set_string("tokenizer.chat_template", template);
        }
        metadata
    }
}

/// Llama 3's stretched frequencies as GGUF has them, one divisor for each pair of a head; other
/// scalings unchanged.
pub(super) fn with_divisors(config: &ModelConfig) -> ModelConfig {
    let mut config = config.clone();
    for LayerConfig { rope, .. } in &mut config.layers {
        if let RopeScaling::Llama3 { .. } = rope.scaling {
            let plain = RopeConfig { theta: rope.theta, scaling: RopeScaling::Plain };
            let (plain, _) = frequencies(&plain, config.head_dim);
            let (stretched, _) = frequencies(rope, config.head_dim);
            let divisors = plain.iter().zip(&stretched).map(|(a, b)| (a / b) as f32).collect();
            rope.scaling = RopeScaling::Divisors(divisors);
        }
    }
    config
}

fn set_config(metadata: &mut GgufMetadata, config: &ModelConfig) {
    let config = &with_divisors(&as_gguf(config));
    let prefix = match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
        Architecture::Gemma3 => "gemma3",
    };
    metadata.set_string("general.architecture", prefix);
    let key = |name: &str| format!("{prefix}.{name}");
    for (name, size) in [
        ("block_count", config.layers.len()),
        ("context_length", config.context_length),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        // Sizes were bounded far below when the model was opened or planned.
        metadata.set_u32(&key(name), size as u32);
    }
    metadata.set_f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    if let Some(cap) = config.logit_softcap {
        metadata.set_f32(&key("final_logit_softcapping"), cap);
    }
    set_ropes(metadata, config, &key);
}

/// Rotary embeddings and windows. Layers with a window may have a rotary embedding of their own.
fn set_ropes(metadata: &mut GgufMetadata, config: &ModelConfig, key: &impl Fn(&str) -> String) {
    let is_local: Vec<bool> = config.layers.iter().map(|layer| layer.window.is_some()).collect();
    let of = |wanted: bool| config.layers.iter().find(|layer| layer.window.is_some() == wanted);
    if let Some(window) = of(true).and_then(|layer| layer.window) {
        metadata.set_u32(&key("attention.sliding_window"), window as u32);
    }
    if config.architecture == Architecture::Gemma3 && is_local.contains(&true) {
        metadata.set_bools(&key("attention.sliding_window_pattern"), &is_local);
        if let Some(local) = of(true) {
            metadata.set_f32(&key("rope.freq_base_swa"), local.rope.theta);
        }
    }
    let Some(LayerConfig { rope, .. }) = of(false).or(of(true)) else { return };
    metadata.set_f32(&key("rope.freq_base"), rope.theta);
    match &rope.scaling {
        RopeScaling::Plain => {}
        // `with_divisors` has made divisors of it.
        RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            metadata.set_string(&key("rope.scaling.type"), "linear");
            metadata.set_f32(&key("rope.scaling.factor"), *factor);
        }
        RopeScaling::Yarn { factor, original_context, beta_slow, beta_fast, attention_factor } => {
            metadata.set_string(&key("rope.scaling.type"), "yarn");
            metadata.set_f32(&key("rope.scaling.factor"), *factor);
            let original = key("rope.scaling.original_context_length");
            metadata.set_u32(&original, *original_context as u32);
            metadata.set_f32(&key("rope.scaling.yarn_beta_slow"), *beta_slow);
            metadata.set_f32(&key("rope.scaling.yarn_beta_fast"), *beta_fast);
            // Readers multiply it by the paper's temperature.
            let temperature = if *factor > 1.0 { 1.0 + 0.1 * factor.ln() } else { 1.0 };
            let attn_factor = attention_factor / temperature;
            if attn_factor != 1.0 {
                metadata.set_f32(&key("rope.scaling.attn_factor"), attn_factor);
            }
        }
        RopeScaling::Divisors(divisors) => metadata.rope_divisors = Some(divisors.clone()),
    }
}

fn set_vocabulary(metadata: &mut GgufMetadata, vocabulary: &GgufVocabulary<'_>) {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    metadata.set_string(&key("model"), vocabulary.model);
    if let Some(pre) = vocabulary.pre {
        metadata.set_string(&key("pre"), pre);
    }
    metadata.set_strings(&key("tokens"), &vocabulary.tokens);
    if let Some(types) = &vocabulary.token_types {
        metadata.set_i32s(&key("token_type"), types);
    }
    if let Some(scores) = &vocabulary.scores {
        metadata.set_f32s(&key("scores"), scores);
    }
    if let Some(merges) = &vocabulary.merges {
        metadata.set_strings(&key("merges"), merges);
    }
    for (name, id) in [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("eot_token_id", vocabulary.eot),
        ("eom_token_id", vocabulary.eom),
        ("unknown_token_id", vocabulary.unknown),
        ("padding_token_id", vocabulary.padding),
    ] {
        if let Some(id) = id {
            metadata.set_u32(&key(name), id);
        }
    }
    for (name, flag) in [
        ("add_bos_token", vocabulary.add_bos),
        ("add_eos_token", vocabulary.add_eos),
        ("add_space_prefix", vocabulary.add_space_prefix),
        ("remove_extra_whitespaces", vocabulary.remove_extra_whitespaces),
    ] {
        if let Some(flag) = flag {
            metadata.set_bool(&key(name), flag);
        }
    }
}
