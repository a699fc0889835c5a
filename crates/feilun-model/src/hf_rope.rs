//! Rotary embeddings in a `config.json`: `rope_theta` and `rope_scaling` up to transformers 4,
//! `rope_parameters` since 5 (for Gemma 3 one per kind of layer). Both are in use.

use serde_json::{Map, Value};

use crate::config::{Architecture, RopeConfig, RopeScaling};
use crate::config_check::{ConfigError, MAX_CONTEXT};
use crate::hf_config::{Keys, describe};

/// Which attention a layer has, in the words of `layer_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// `full_attention`.
    Full,
    /// `sliding_attention`.
    Sliding,
}

/// The rotary embedding of one kind of layer.
pub(crate) fn rope_config(
    keys: &Keys,
    architecture: Architecture,
    kind: LayerKind,
) -> Result<RopeConfig, ConfigError> {
    let parameters = Keys::from_map(parameters(keys, architecture, kind)?.unwrap_or(&Map::new()));
    refuse_partial_rotation(keys)?;
    refuse_partial_rotation(&parameters)?;
    let (outer_key, default_theta) = match (architecture, kind) {
        (Architecture::Gemma3, LayerKind::Full) => ("rope_theta", 1_000_000.0),
        (Architecture::Gemma3, LayerKind::Sliding) => ("rope_local_base_freq", 10_000.0),
        _ => ("rope_theta", 10_000.0),
    };
    let theta = match parameters.float("rope_theta")? {
        Some(theta) => theta,
        None => keys.float(outer_key)?.unwrap_or(default_theta),
    };
    Ok(RopeConfig { theta, scaling: scaling(keys, &parameters)? })
}

/// The object that holds the type and its numbers, if there is one.
fn parameters(
    keys: &Keys,
    architecture: Architecture,
    kind: LayerKind,
) -> Result<Option<&Map<String, Value>>, ConfigError> {
    let scaling = keys.object("rope_scaling")?.filter(|map| !map.is_empty());
    let parameters = keys.object("rope_parameters")?.filter(|map| !map.is_empty());
    if architecture != Architecture::Gemma3 {
        let flat = scaling.or(parameters);
        if let Some(nested) = flat.and_then(|map| map.get("full_attention")) {
            let found = describe(Some(nested));
            let supported = "one object for all layers";
            return Err(ConfigError::unsupported("rope_parameters", found, supported));
        }
        return Ok(flat);
    }
    let name = match kind {
        LayerKind::Full => "full_attention",
        LayerKind::Sliding => "sliding_attention",
    };
    match parameters {
        Some(map) if !map.contains_key("full_attention") => {
            let found = describe(Some(&Value::Object(map.clone())));
            let supported = "full_attention and sliding_attention";
            Err(ConfigError::unsupported("rope_parameters", found, supported))
        }
        Some(map) => Ok(map.get(name).and_then(Value::as_object)),
        // The old form scales the global layers only.
        None if kind == LayerKind::Full => Ok(scaling),
        None => Ok(None),
    }
}

fn refuse_partial_rotation(keys: &Keys) -> Result<(), ConfigError> {
    match keys.float("partial_rotary_factor")? {
        Some(found) if found != 1.0 => {
            Err(ConfigError::unsupported("partial_rotary_factor", found, "1"))
        }
        _ => Ok(()),
    }
}

fn scaling(keys: &Keys, parameters: &Keys) -> Result<RopeScaling, ConfigError> {
    let kind = match parameters.string("rope_type")? {
        Some(kind) => kind,
        None => parameters.string("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(RopeScaling::Plain),
        "linear" => match parameters.required_float("factor")? {
            1.0 => Ok(RopeScaling::Plain),
            factor => Ok(RopeScaling::Linear { factor }),
        },
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: parameters.required_float("factor")?,
            low_freq_factor: parameters.required_float("low_freq_factor")?,
            high_freq_factor: parameters.required_float("high_freq_factor")?,
            original_context: original_context(keys, parameters)?,
        }),
        "yarn" => yarn(keys, parameters),
        found => Err(ConfigError::unsupported(
            "rope_type",
            format!("{found:?}"),
            "default, linear, llama3, yarn",
        )),
    }
}

fn yarn(keys: &Keys, parameters: &Keys) -> Result<RopeScaling, ConfigError> {
    if parameters.boolean("truncate")? == Some(false) {
        return Err(ConfigError::unsupported("truncate", false, "true"));
    }
    let original_context = original_context(keys, parameters)?;
    let factor = match parameters.float("factor")? {
        Some(factor) => factor,
        None => keys.size("max_position_embeddings", MAX_CONTEXT)? as f32 / original_context,
    };
    // The temperature of the paper, or its generalisation by DeepSeek.
    let temperature = |weight: f32| match factor <= 1.0 {
        true => 1.0,
        false => 0.1 * weight * factor.ln() + 1.0,
    };
    let weights = (non_zero(parameters, "mscale")?, non_zero(parameters, "mscale_all_dim")?);
    let attention_factor = match (parameters.float("attention_factor")?, weights) {
        (Some(attention_factor), _) => attention_factor,
        (None, (Some(mscale), Some(mscale_all_dim))) => {
            temperature(mscale) / temperature(mscale_all_dim)
        }
        (None, _) => temperature(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_context,
        beta_slow: non_zero(parameters, "beta_slow")?.unwrap_or(1.0),
        beta_fast: non_zero(parameters, "beta_fast")?.unwrap_or(32.0),
        attention_factor,
    })
}

/// Transformers writes `parameters.get(key) or default`: zero counts as absent.
fn non_zero(parameters: &Keys, key: &str) -> Result<Option<f32>, ConfigError> {
    Ok(parameters.float(key)?.filter(|&number| number != 0.0))
}

/// Outside the parameters first (Phi-3's way), then inside, then the longest context.
fn original_context(keys: &Keys, parameters: &Keys) -> Result<f32, ConfigError> {
    let key = "original_max_position_embeddings";
    for place in [keys, parameters] {
        if let Some(original) = place.optional_size(key, MAX_CONTEXT)? {
            return Ok(original as f32);
        }
    }
    Ok(keys.size("max_position_embeddings", MAX_CONTEXT)? as f32)
}
