//! PEFT adapters: read, scaled, and refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::Path;

use feilun_model::{Adapter, AdapterError, LayerTensor, ModelConfig};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn base() -> ModelConfig {
    let config = support::tiny_config("llama", json!({})).to_string();
    feilun_model::hf_config::config_from_json(config.as_bytes()).unwrap()
}

fn name(layer: usize, module: &str, half: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{half}.weight")
}

type Tensors = Vec<(String, [usize; 2], Vec<f32>)>;

/// q of layer 1 with rank 2 and down of layer 0 with rank 2.
fn tensors() -> Tensors {
    let ramp = |len: usize| (0..len).map(|index| index as f32 / 8.0).collect();
    vec![
        (name(1, "self_attn.q_proj", "A"), [2, 32], ramp(64)),
        (name(1, "self_attn.q_proj", "B"), [32, 2], ramp(64)),
        (name(0, "mlp.down_proj", "A"), [2, 64], ramp(128)),
        (name(0, "mlp.down_proj", "B"), [32, 2], ramp(64)),
    ]
}

fn write(folder: &Path, changes: Value, tensors: &Tensors) {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj", "down_proj"], "use_dora": false, "modules_to_save": null});
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
}

fn open(changes: Value, tensors: &Tensors) -> Result<Adapter, AdapterError> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), changes, tensors);
    Adapter::open(folder.path(), &base())
}

#[track_caller]
fn check_error(changes: Value, tensors: &Tensors, expected: &str) {
    let error = open(changes, tensors).expect_err("a wrong adapter was opened").to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn matrices_and_scales() {
    let adapter = open(json!({}), &tensors()).unwrap();
    let q = adapter.matrix(1, LayerTensor::AttnQ).unwrap();
    assert_eq!((q.rank, q.scale, q.a.len(), q.b.len()), (2, 4.0, 64, 64));
    assert_eq!(q.a.get(9), Some(&1.125));
    assert!(adapter.matrix(0, LayerTensor::AttnQ).is_none());
    assert!(adapter.matrix(0, LayerTensor::MlpDown).is_some());
    assert!(adapter.matrix(9, LayerTensor::MlpDown).is_none());
    assert_eq!((adapter.num_layers(), adapter.max_rank()), (2, 2));
    assert_eq!(adapter.digest, open(json!({}), &tensors()).unwrap().digest);

    adapter.check_fits(&base()).unwrap();
    let other = ModelConfig { hidden_size: 64, ..base() };
    let error = adapter.check_fits(&other).unwrap_err().to_string();
    assert!(error.contains("hidden_size: 32") && error.contains("hidden_size: 64"), "{error}");

    let rooted = open(json!({"use_rslora": true}), &tensors()).unwrap();
    assert_eq!(rooted.matrix(1, LayerTensor::AttnQ).unwrap().scale, (8.0 / 2f64.sqrt()) as f32);
    assert_ne!(adapter.digest, rooted.digest);
}

#[test]
fn patterns_change_rank_and_alpha_of_modules() {
    let mut tensors = tensors();
    tensors[0] = (name(1, "self_attn.q_proj", "A"), [4, 32], vec![0.5; 128]);
    tensors[1] = (name(1, "self_attn.q_proj", "B"), [32, 4], vec![0.5; 128]);
    let patterns =
        json!({"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.1.self_attn.q_proj": 2}});
    let adapter = open(patterns, &tensors).unwrap();
    let q = adapter.matrix(1, LayerTensor::AttnQ).unwrap();
    assert_eq!((q.rank, q.scale), (4, 0.5));
    assert_eq!(adapter.matrix(0, LayerTensor::MlpDown).unwrap().scale, 4.0);
    check_error(json!({"rank_pattern": {"j": 4}}), &tensors, "has shape [4, 32], expected [2, 32]");
    check_error(json!({"rank_pattern": {"q.*": 4}}), &tensors, "names without wildcards");
    let both = json!({"rank_pattern": {"q_proj": 4, "self_attn.q_proj": 2}});
    check_error(both, &tensors, "one value for model.layers.1.self_attn.q_proj");
}

#[test]
fn other_variants_are_refused() {
    for (changes, expected) in [
        (json!({"peft_type": "IA3"}), r#""peft_type" is "IA3""#),
        (json!({"bias": "all"}), r#""bias" is "all""#),
        (json!({"use_dora": true}), r#""use_dora" is true"#),
        (json!({"modules_to_save": ["lm_head"]}), r#""modules_to_save" is an array of 1"#),
        (json!({"r": 0}), "r is 0, expected 1 to"),
        (json!({"r": 1u64 << 63}), "expected 1 to"),
        (json!({"r": null}), r#""r" is missing"#),
        (json!({"r": "two"}), r#"expected an integer of at least 0, found "two""#),
        (json!({"lora_alpha": 1e300}), "expected a finite number"),
        (json!({"r": 3}), "has shape [2, "),
    ] {
        check_error(changes, &tensors(), expected);
    }
}

#[test]
fn wrong_tensors_are_named() {
    let with = |index: usize, tensor: (String, [usize; 2], Vec<f32>)| {
        let mut all = tensors();
        all[index] = tensor;
        all
    };
    let q = "self_attn.q_proj";
    let zeros = vec![0.0; 64];
    let unknown = ["model.embed_tokens.lora_A.weight", "base_model.model.model.layers.01.x", "x"];
    for name in unknown {
        check_error(
            json!({}),
            &with(0, (name.into(), [2, 32], zeros.clone())),
            "is none of LoRA's",
        );
    }
    check_error(json!({}), &with(0, (name(7, q, "A"), [2, 32], zeros.clone())), "is of layer 7");
    check_error(json!({}), &with(1, (name(1, q, "B"), [2, 32], zeros)), "expected [32, 2]");
    check_error(json!({}), &tensors()[1..].to_vec(), "q_proj.lora_A.weight\" is missing");
    check_error(json!({}), &tensors()[..3].to_vec(), "down_proj.lora_B.weight\" is missing");
    check_error(json!({}), &Vec::new(), "has no matrices");
    for wrong in [f32::NAN, f32::INFINITY] {
        let mut all = tensors();
        all[3].2[17] = wrong;
        check_error(json!({}), &all, "not finite");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Adapter::open(folder.path(), &base()).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json"), "{error}");
}
