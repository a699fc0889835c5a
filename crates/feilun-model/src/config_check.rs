//! What a configuration may not be, whatever file it came from: the bounds behind every later
//! multiplication and allocation, and the errors that name key, value found and value expected.

use crate::config::{ModelConfig, RopeScaling};
use crate::gguf_error::GgufError;

/// Twice the depth of the deepest published decoders.
pub const MAX_LAYERS: u64 = 1_024;
/// Of the residual stream, of q and of k.
pub const MAX_WIDTH: u64 = 1 << 20;
/// Of the MLP.
pub const MAX_INTERMEDIATE: u64 = 1 << 22;
/// Rows of the embedding; Gemma has 262,144.
pub const MAX_VOCAB: u64 = 1 << 22;
/// Of one head; published models have at most 256.
pub const MAX_HEAD_DIM: u64 = 1_024;
/// In tokens.
pub const MAX_CONTEXT: u64 = 1 << 26;

/// Why a file does not describe a decoder that can be run. Keys and values come from the file,
/// so they are printed with escapes.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ConfigError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("not a JSON object of the expected form: {source}")]
    Json {
        #[from]
        source: serde_json::Error,
    },
    #[error("key {key:?} is missing")]
    MissingKey { key: String },
    #[error("tensor {name:?} is missing")]
    MissingTensor { name: String },
    #[error("key {key:?}: expected {expected}, found {found}")]
    WrongType { key: String, found: String, expected: &'static str },
    #[error("{key:?} is {found}, which is not supported; supported: {supported}")]
    Unsupported { key: String, found: String, supported: String },
    #[error("{key} is {found}, expected {expected}")]
    OutOfRange { key: String, found: String, expected: String },
}

impl ConfigError {
    pub(crate) fn unsupported(
        key: impl Into<String>,
        found: impl ToString,
        supported: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Unsupported {
            key: key.into(),
            found: found.to_string(),
            supported: supported.into(),
        }
    }
}

/// A size from a file as `usize`, if it lies in `1..=max`.
pub(crate) fn bounded(key: &str, found: u64, max: u64) -> Result<usize, ConfigError> {
    match usize::try_from(found) {
        Ok(size) if (1..=max).contains(&found) => Ok(size),
        _ => Err(ConfigError::OutOfRange {
            key: key.into(),
            found: found.to_string(),
            expected: format!("1 to {max}"),
        }),
    }
}

/// `1 / sqrt(size)`, rounded once: the usual factor on q · k.
pub(crate) fn inverse_sqrt(size: f64) -> f32 {
    (1.0 / size.sqrt()) as f32
}

/// Checks everything that later code takes for granted.
pub(crate) fn check(config: &ModelConfig) -> Result<(), ConfigError> {
    bounded("number of layers", config.layers.len() as u64, MAX_LAYERS)?;
    bounded("hidden size", config.hidden_size as u64, MAX_WIDTH)?;
    bounded("intermediate size", config.intermediate_size as u64, MAX_INTERMEDIATE)?;
    bounded("vocabulary size", config.vocab_size as u64, MAX_VOCAB)?;
    bounded("context length", config.context_length as u64, MAX_CONTEXT)?;
    bounded("head dimension", config.head_dim as u64, MAX_HEAD_DIM)?;
    bounded("number of query heads", config.num_heads as u64, MAX_WIDTH)?;
    bounded("number of key/value heads", config.num_kv_heads as u64, MAX_WIDTH)?;
    // Both factors are at most 2^20, so the products fit a u64.
    bounded("width of q", config.num_heads as u64 * config.head_dim as u64, MAX_WIDTH)?;
    if !config.head_dim.is_multiple_of(2) {
        return Err(out_of_range("head dimension", config.head_dim, "an even number"));
    }
    if !config.num_heads.is_multiple_of(config.num_kv_heads) {
        let expected = format!("a divisor of {} query heads", config.num_heads);
        return Err(out_of_range("number of key/value heads", config.num_kv_heads, expected));
    }
    check_floats(config)?;
    for layer in &config.layers {
        if layer.window == Some(0) {
            return Err(out_of_range("sliding window", 0, "at least 1"));
        }
        positive("rope base", layer.rope.theta)?;
        check_scaling(&layer.rope.scaling, config.head_dim)?;
    }
    Ok(())
}

fn check_floats(config: &ModelConfig) -> Result<(), ConfigError> {
    positive("embedding scale", config.embedding_scale)?;
    positive("attention scale", config.attention_scale)?;
    if let Some(cap) = config.logit_softcap {
        positive("logit softcap", cap)?;
    }
    if !(0.0..=1.0).contains(&config.norm_eps) {
        return Err(out_of_range("RMSNorm epsilon", config.norm_eps, "0 to 1"));
    }
    Ok(())
}

fn check_scaling(scaling: &RopeScaling, head_dim: usize) -> Result<(), ConfigError> {
    match scaling {
        RopeScaling::Plain => Ok(()),
        RopeScaling::Linear { factor } => positive("rope factor", *factor),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            positive("rope factor", *factor)?;
            positive("rope low_freq_factor", *low_freq_factor)?;
            positive("rope high_freq_factor", *high_freq_factor)?;
            positive("rope original context", *original_context)?;
            if high_freq_factor <= low_freq_factor {
                let expected = format!("more than low_freq_factor {low_freq_factor}");
                return Err(out_of_range("rope high_freq_factor", high_freq_factor, expected));
            }
            Ok(())
        }
        RopeScaling::Yarn { factor, original_context, beta_slow, beta_fast, attention_factor } => {
            positive("rope factor", *factor)?;
            positive("rope original context", *original_context)?;
            positive("rope beta_slow", *beta_slow)?;
            positive("rope beta_fast", *beta_fast)?;
            positive("rope attention_factor", *attention_factor)
        }
        RopeScaling::Divisors(divisors) => {
            if divisors.len() != head_dim / 2 {
                let expected = format!("{} (half a head)", head_dim / 2);
                return Err(out_of_range("number of rope divisors", divisors.len(), expected));
            }
            divisors.iter().try_for_each(|&divisor| positive("rope divisor", divisor))
        }
    }
}

fn positive(key: &str, found: f32) -> Result<(), ConfigError> {
    if found.is_finite() && found > 0.0 {
        return Ok(());
    }
    Err(out_of_range(key, found, "a positive number"))
}

fn out_of_range(key: &str, found: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::OutOfRange { key: key.into(), found: found.to_string(), expected: expected.into() }
}
