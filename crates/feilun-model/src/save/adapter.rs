//! LoRA adapters in PEFT's layout: a folder with `adapter_model.safetensors` and
//! `adapter_config.json`.

use std::path::Path;

use feilun_kernels::BlockType;
use serde_json::json;

use super::atomic::{self, Pending};
use super::error::SaveError;
use super::safetensors::write_header;
use crate::LayerTensor;
use crate::lora::{CONFIG, MODULES, WEIGHTS};

/// Values converted at a time.
const CHUNK_WEIGHTS: usize = 1 << 16;

/// What an adapter's weights alone do not say.
#[derive(Clone, Debug)]
pub struct AdapterInfo<'a> {
    /// Width of the bottleneck.
    pub rank: usize,
    /// Numerator of the factor on the result: `alpha / rank`.
    pub alpha: f32,
    /// The matrices that have an addition.
    pub targets: &'a [LayerTensor],
    /// The base model, as people or programs find it: a name, a digest, or a path.
    pub base: &'a str,
}

/// One tensor in memory.
#[derive(Clone, Copy, Debug)]
pub struct NamedTensor<'a> {
    /// Such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// Row-major.
    pub values: &'a [f32],
}

/// Writes an adapter to a new folder. Both [`crate::Adapter::open`] and PEFT read it.
///
/// # Errors
/// When the folder exists and is not empty, when a value is not finite, when the disk is full.
pub fn save_adapter<'a>(
    folder: &Path,
    info: &AdapterInfo<'_>,
    tensors: impl IntoIterator<Item = NamedTensor<'a>>,
) -> Result<(), SaveError> {
    let tensors: Vec<NamedTensor<'_>> = tensors.into_iter().collect();
    tensors.iter().try_for_each(check)?;
    let pending = Pending::new(folder)?;
    let temporary = pending.create_folder()?;
    atomic::write(&temporary.join(WEIGHTS), |out| {
        let announced =
            tensors.iter().map(|tensor| (tensor.name, BlockType::F32, tensor.shape.to_vec()));
        write_header(announced, out)?;
        let mut bytes = Vec::new();
        for values in tensors.iter().flat_map(|tensor| tensor.values.chunks(CHUNK_WEIGHTS)) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    })?;
    atomic::write(&temporary.join(CONFIG), |out| Ok(out.write_all(config(info).as_bytes())?))?;
    pending.commit()
}

fn check(tensor: &NamedTensor<'_>) -> Result<(), SaveError> {
    let name = || tensor.name.to_owned();
    let (found, expected) = (tensor.values.len(), tensor.shape.iter().product());
    if found != expected {
        return Err(SaveError::NumValues { name: name(), found, expected });
    }
    match tensor.values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            Err(SaveError::NotFinite { name: name(), index, value: tensor.values[index] })
        }
    }
}

fn config(info: &AdapterInfo<'_>) -> String {
    // PEFT matches the ends of module names.
    let modules = MODULES.iter().filter(|(_, tensor)| info.targets.contains(tensor));
    let mut names: Vec<&str> =
        modules.filter_map(|(module, _)| module.rsplit('.').next()).collect();
    names.sort_unstable();
    // PEFT declares an integer; a fraction it takes nevertheless.
    let alpha = match info.alpha {
        whole if whole.fract() == 0.0 && whole.abs() < 1e9 => json!(whole as i64),
        other => json!(other),
    };
    let config = json!({
        "base_model_name_or_path": info.base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": info.rank,
        "target_modules": names,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    format!("{config:#}\n")
}
