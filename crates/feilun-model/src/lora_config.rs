//! PEFT's `adapter_config.json`: ranks, scales, and the variants that are refused.

use serde_json::Value;

use crate::config_check::{ConfigError, bounded};
use crate::hf_config::{Keys, describe};

/// Adapters use 4 to 256.
const MAX_RANK: u64 = 4_096;

/// What the weights alone do not say.
#[derive(Debug)]
pub(crate) struct LoraConfig {
    rank: usize,
    alpha: f32,
    /// Divide by the root of the rank instead of the rank (rank-stabilised LoRA).
    has_root_scale: bool,
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f32)>,
}

impl LoraConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<LoraConfig, ConfigError> {
        let keys = Keys::parse(bytes)?;
        refuse_unsupported(&keys)?;
        let mut ranks = Vec::new();
        for (pattern, value) in patterns(&keys, "rank_pattern")? {
            let rank = value.as_u64().ok_or_else(|| wrong_type("rank_pattern", value))?;
            ranks.push((pattern, bounded("rank_pattern", rank, MAX_RANK)?));
        }
        let mut alphas = Vec::new();
        for (pattern, value) in patterns(&keys, "alpha_pattern")? {
            let alpha = value.as_f64().ok_or_else(|| wrong_type("alpha_pattern", value))?;
            alphas.push((pattern, finite("alpha_pattern", alpha as f32)?));
        }
        Ok(LoraConfig {
            rank: keys.size("r", MAX_RANK)?,
            alpha: finite("lora_alpha", keys.required_float("lora_alpha")?)?,
            has_root_scale: keys.boolean("use_rslora")?.unwrap_or(false),
            ranks,
            alphas,
        })
    }

    /// Rank and factor of a module such as `model.layers.3.self_attn.q_proj`.
    pub(crate) fn rank_and_scale(&self, module: &str) -> Result<(usize, f32), ConfigError> {
        let rank = only_match("rank_pattern", &self.ranks, module)?.unwrap_or(self.rank);
        let alpha = only_match("alpha_pattern", &self.alphas, module)?.unwrap_or(self.alpha);
        let divisor = if self.has_root_scale { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, (f64::from(alpha) / divisor) as f32))
    }
}

/// Variants that compute something else than `scale * B (A x)` on linear layers.
fn refuse_unsupported(keys: &Keys) -> Result<(), ConfigError> {
    for (key, supported) in [("peft_type", "LORA"), ("bias", "none")] {
        if let Some(found) = keys.string(key)?
            && found != supported
        {
            return Err(ConfigError::unsupported(key, format!("{found:?}"), supported));
        }
    }
    for key in ["use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"] {
        if keys.boolean(key)? == Some(true) {
            return Err(ConfigError::unsupported(key, true, "false"));
        }
    }
    for key in [
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "megatron_config",
        "arrow_config",
    ] {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        if let Some(found) = keys.get(key).filter(|value| !is_empty(value)) {
            return Err(ConfigError::unsupported(key, describe(Some(found)), "null"));
        }
    }
    Ok(())
}

/// The patterns of a key, which in PEFT are regular expressions. Plain ends of module names are
/// the ones in use; a dot is taken for a dot.
fn patterns<'a>(keys: &'a Keys, key: &str) -> Result<Vec<(String, &'a Value)>, ConfigError> {
    let mut found = Vec::new();
    let Some(map) = keys.object(key)? else { return Ok(found) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    for (pattern, value) in map {
        if pattern.is_empty() || !pattern.chars().all(is_plain) {
            let supported = "names without wildcards";
            return Err(ConfigError::unsupported(key, format!("{pattern:?}"), supported));
        }
        found.push((pattern.clone(), value));
    }
    Ok(found)
}

/// The value of the pattern that is the end of `module`, at a dot. PEFT takes the first of
/// several in the order of the file, which JSON does not keep; so several must agree.
fn only_match<T: Copy + PartialEq + ToString>(
    key: &str,
    patterns: &[(String, T)],
    module: &str,
) -> Result<Option<T>, ConfigError> {
    let is_match = |pattern: &str| {
        let rest = module.strip_suffix(pattern);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let mut found = None;
    for (pattern, value) in patterns.iter().filter(|(pattern, _)| is_match(pattern)) {
        if found.is_some_and(|found| found != *value) {
            let supported = format!("one value for {module}");
            return Err(ConfigError::unsupported(key, format!("{pattern:?}"), supported));
        }
        found = Some(*value);
    }
    Ok(found)
}

fn finite(key: &str, found: f32) -> Result<f32, ConfigError> {
    if found.is_finite() {
        return Ok(found);
    }
    let (key, found, expected) = (key.into(), found.to_string(), "a finite number".into());
    Err(ConfigError::OutOfRange { key, found, expected })
}

fn wrong_type(key: &str, value: &Value) -> ConfigError {
    ConfigError::WrongType {
        key: key.into(),
        found: describe(Some(value)),
        expected: "an object of numbers",
    }
}
