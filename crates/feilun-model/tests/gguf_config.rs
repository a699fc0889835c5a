//! GGUF metadata by example: architectures, defaults, RoPE variants, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use feilun_model::ModelConfig;
use feilun_model::config::{Activation, RopeScaling};
use feilun_model::gguf::Gguf;
use feilun_model::gguf_config::config_from_gguf;
use feilun_model::{LayerTensor, ModelFileError, ModelFiles, RowOrder, TensorRole};
use support::{F16, F32, GgufWriter, Q4_0, Q8_0, Value, tiny_gguf};

fn read(file: &GgufWriter) -> ModelConfig {
    config_from_gguf(&Gguf::parse(file.build()).unwrap()).unwrap()
}

fn open(file: &GgufWriter) -> Result<ModelFiles, ModelFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.build()).unwrap();
    ModelFiles::open(path)
}

#[track_caller]
fn check_error(file: &GgufWriter, expected: &str) {
    let error = open(file).expect_err("a wrong file was opened").to_string();
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("model.gguf"), "{error}");
}

fn with(architecture: &str, key: &str, value: Value) -> GgufWriter {
    let mut file = tiny_gguf(architecture);
    file.key(key, value);
    file
}

#[test]
fn every_architecture_opens() {
    for architecture in ["llama", "qwen2", "qwen3", "gemma3"] {
        let files = open(&tiny_gguf(architecture)).unwrap();
        let config = files.config();
        assert_eq!((config.hidden_size, config.head_dim, config.vocab_size), (32, 16, 5));
        assert_eq!(config.qkv_bias, architecture == "qwen2");
        assert_eq!(config.qk_norm, matches!(architecture, "qwen3" | "gemma3"));
        let is_gemma = architecture == "gemma3";
        assert_eq!((config.post_norms, config.embedding_scale > 1.0), (is_gemma, is_gemma));
        assert_eq!(config.activation == Activation::GeluTanh, is_gemma);
        assert!(config.tied_embeddings);
        let q = files.tensor(TensorRole::Layer(1, LayerTensor::AttnQ)).unwrap();
        let pairs = RowOrder::InterleavedPairs { head_dim: 16 };
        let is_llama = architecture == "llama";
        assert_eq!(q.row_order, if is_llama { pairs } else { RowOrder::Canonical });
        let v = files.tensor(TensorRole::Layer(1, LayerTensor::AttnV)).unwrap();
        assert_eq!((v.row_order, v.rows, v.cols), (RowOrder::Canonical, 16, 32));
        assert_eq!(v.bytes.len(), 16 * 18);
    }
}

#[test]
fn llama_biases_and_an_untied_head_are_seen() {
    let mut file = tiny_gguf("llama");
    file.tensor("output.weight", &[32, 5], Q8_0);
    for layer in 0..2 {
        for (name, len) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32)] {
            file.tensor(&format!("blk.{layer}.{name}.bias"), &[len], F16);
        }
    }
    let files = open(&file).unwrap();
    let config = files.config();
    assert!(config.qkv_bias && config.output_bias && !config.mlp_bias && !config.tied_embeddings);
    let bias = files.tensor(TensorRole::Layer(0, LayerTensor::AttnKBias)).unwrap();
    assert_eq!((bias.rows, bias.cols), (1, 16));
    assert_eq!(bias.row_order, RowOrder::InterleavedPairs { head_dim: 16 });
    file.without_tensor("blk.1.attn_k.bias");
    check_error(&file, r#"tensor "blk.1.attn_k.bias" is missing"#);
}

#[test]
fn windows_and_local_layers() {
    let windows = |file: &GgufWriter| -> Vec<_> {
        read(file).layers.iter().map(|layer| layer.window).collect()
    };
    let mut gemma = with("gemma3", "gemma3.attention.sliding_window", Value::U32(8));
    assert_eq!(windows(&gemma), [Some(8), Some(8)]);
    gemma.key("gemma3.attention.sliding_window_pattern", Value::U32(2));
    assert_eq!(windows(&gemma), [Some(8), None]);
    gemma.key("gemma3.attention.sliding_window_pattern", Value::Bools(vec![false, true]));
    assert_eq!(windows(&gemma), [None, Some(8)]);
    assert_eq!(windows(&tiny_gguf("gemma3")), [None, None]);
    let config = read(&gemma);
    let thetas: Vec<_> = config.layers.iter().map(|layer| layer.rope.theta).collect();
    assert_eq!(thetas, [10_000.0, 10_000.0], "the defaults of both kinds");
    gemma.key("gemma3.rope.freq_base", Value::F32(1e6));
    gemma.key("gemma3.rope.scaling.type", Value::Text("linear".into()));
    gemma.key("gemma3.rope.scaling.factor", Value::F32(8.0));
    let config = read(&gemma);
    let ropes: Vec<_> = config.layers.iter().map(|layer| layer.rope.clone()).collect();
    assert_eq!((ropes[0].theta, &ropes[0].scaling), (1e6, &RopeScaling::Linear { factor: 8.0 }));
    assert_eq!((ropes[1].theta, &ropes[1].scaling), (1e4, &RopeScaling::Plain));
    gemma.key("gemma3.attention.sliding_window_pattern", Value::Bools(vec![true]));
    check_error(&gemma, "array of 1 Bool");

    assert_eq!(
        windows(&with("llama", "llama.attention.sliding_window", Value::U32(8))),
        [Some(8); 2]
    );
    assert_eq!(windows(&with("qwen2", "qwen2.attention.sliding_window", Value::U32(8))), [None; 2]);
}

#[test]
fn rope_scaling() {
    let scaling = |file: &GgufWriter| read(file).layers[0].rope.scaling.clone();
    let mut file = tiny_gguf("llama");
    assert_eq!(scaling(&file), RopeScaling::Plain);
    file.key("llama.rope.scaling.factor", Value::F32(4.0));
    assert_eq!(scaling(&file), RopeScaling::Linear { factor: 4.0 }, "linear without a type");
    file.key("llama.rope.scaling.type", Value::Text("none".into()));
    assert_eq!(scaling(&file), RopeScaling::Plain);
    file.key("llama.rope.scaling.type", Value::Text("yarn".into()));
    file.key("llama.rope.scaling.original_context_length", Value::U32(32));
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 32.0,
        beta_slow: 1.0,
        beta_fast: 32.0,
        attention_factor: 1.0 + 0.1 * 4f32.ln(),
    };
    assert_eq!(scaling(&file), yarn);
    file.key("llama.rope.scaling.type", Value::Text("longrope".into()));
    check_error(&file, r#""llama.rope.scaling.type" is "longrope""#);

    let mut file = tiny_gguf("llama");
    file.tensor("rope_freqs.weight", &[8], F32);
    for (index, weight) in file.tensors.last_mut().unwrap().data.chunks_mut(4).enumerate() {
        weight.copy_from_slice(&(1.0 + index as f32).to_le_bytes());
    }
    let divisors: Vec<f32> = (1..=8).map(|index| index as f32).collect();
    assert_eq!(scaling(&file), RopeScaling::Divisors(divisors.clone()));
    assert!(open(&file).is_ok());
    file.key("llama.rope.scaling.factor", Value::F32(2.0));
    let doubled = divisors.iter().map(|divisor| 2.0 * divisor).collect();
    assert_eq!(scaling(&file), RopeScaling::Divisors(doubled));
    file.tensors.last_mut().unwrap().data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    check_error(&file, "rope divisor is NaN, expected a positive number");
    file.without_tensor("rope_freqs.weight").tensor("rope_freqs.weight", &[7], F32);
    check_error(&file, r#""rope_freqs.weight" is F32 [7]"#);
}

#[test]
fn the_attention_scale_of_the_27b() {
    let mut file = tiny_gguf("gemma3");
    file.key("gemma3.block_count", Value::U32(62));
    file.key("gemma3.attention.head_count", Value::U32(4));
    assert_eq!(read(&file).attention_scale, (1.0 / 8f64.sqrt()) as f32);
    file.key("gemma3.attention.scale", Value::F32(0.5));
    assert_eq!(read(&file).attention_scale, 0.5);
}

#[test]
fn what_is_not_supported_is_named() {
    let llama = |key: &str, value| with("llama", key, value);
    for (file, expected) in [
        (llama("general.architecture", Value::Text("mamba".into())), r#""mamba""#),
        (llama("general.architecture", Value::U32(3)), "expected a string, found 3"),
        (llama("general.type", Value::Text("adapter".into())), r#""general.type" is "adapter""#),
        (llama("split.count", Value::U32(2)), r#""split.count" is 2"#),
        (llama("llama.expert_count", Value::U32(8)), r#""llama.expert_count" is 8"#),
        (
            llama("llama.attention.causal", Value::Bool(false)),
            r#""llama.attention.causal" is false"#,
        ),
        (llama("llama.attn_logit_softcapping", Value::F32(50.0)), "softcapping\" is 50"),
        (llama("llama.rope.dimension_count", Value::U32(8)), "dimension_count\" is 8"),
        (llama("llama.attention.value_length", Value::U32(8)), "value_length\" is 8"),
        (llama("llama.block_count", Value::U32(0)), "llama.block_count is 0, expected 1 to 1024"),
        (llama("llama.block_count", Value::U32(u32::MAX)), "llama.block_count is 4294967295"),
        (llama("llama.block_count", Value::I32(-1)), "expected an integer of at least 0, found -1"),
        (llama("llama.block_count", Value::Text("2".into())), "expected an integer"),
        (llama("llama.block_count", Value::I32s(vec![2])), "found array of 1 I32"),
        (llama("llama.vocab_size", Value::U32(6)), "llama.vocab_size is 6, expected 5"),
        (llama("llama.attention.head_count", Value::U32(3)), "shape [32, 32], expected [48, 32]"),
        (llama("llama.attention.head_count_kv", Value::U32(3)), "key/value heads is 3"),
        (llama("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)), "epsilon is NaN"),
        (llama("llama.rope.freq_base", Value::F32(f32::INFINITY)), "rope base is inf"),
    ] {
        check_error(&file, expected);
    }
    for key in
        ["general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"]
    {
        check_error(tiny_gguf("llama").without_key(key), "is missing");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let good = tiny_gguf("gemma3");
    for index in 0..good.tensors.len() {
        let mut file = good.clone();
        let name = file.tensors.remove(index).name;
        check_error(&file, &format!("tensor {name:?} is missing"));
        if name == "token_embd.weight" {
            continue;
        }
        file.tensor(&name, &[3], F32);
        check_error(&file, &format!("{name:?} has shape [3], expected"));
    }
    let mut file = good.clone();
    file.tensor("blk.0.attn_sinks.weight", &[2], F32);
    check_error(&file, r#""blk.0.attn_sinks.weight" has no place"#);
    let mut file = good.clone();
    file.without_tensor("output_norm.weight").tensor("output_norm.weight", &[32], Q4_0);
    check_error(&file, "is a vector of Q4_0, expected F32, F16 or BF16");
    let mut file = good.clone();
    file.key("tokenizer.ggml.tokens", Value::Texts(vec!["a".into(); 4]));
    check_error(&file, "4 tokens in the tokenizer, but 5 rows of embedding");
    let mut file = good.clone();
    file.without_tensor("token_embd.weight").tensor("token_embd.weight", &[32], F32);
    check_error(&file, "has shape [32], expected [1, 32]");
}
