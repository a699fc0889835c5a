//! The two real model files that the project is measured on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;

use feilun_model::config::{Activation, Architecture, RopeScaling};
use feilun_model::{LayerTensor, ModelFiles, ModelFormat, RowOrder, TensorRole, TokenizerSource};

fn open(name: &str) -> ModelFiles {
    let hint = "run the tests with `cargo xtask test`, which fetches the model files";
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .unwrap_or_else(|| panic!("FEILUN_TEST_MODELS is not set; {hint}"));
    let path = PathBuf::from(folder).join(name);
    ModelFiles::open(&path).unwrap_or_else(|error| panic!("{error}; {hint}"))
}

#[test]
fn smollm2_opens() {
    let files = open("smollm2.gguf");
    let config = files.config();
    assert_eq!(files.format(), ModelFormat::Gguf);
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.hidden_size, config.intermediate_size), (576, 1536));
    assert_eq!((config.num_heads, config.num_kv_heads, config.head_dim), (9, 3, 64));
    assert_eq!((config.vocab_size, config.context_length), (49152, 8192));
    assert_eq!((config.norm_eps, config.activation), (1e-5, Activation::Silu));
    assert_eq!((config.embedding_scale, config.attention_scale), (1.0, 0.125));
    assert!(config.tied_embeddings && !config.qk_norm && !config.post_norms && !config.qkv_bias);
    assert_eq!(config.layers.len(), 30);
    assert!(config.layers.iter().all(|layer| layer.window.is_none()
        && layer.rope.theta == 100_000.0
        && layer.rope.scaling == RopeScaling::Plain));
    let q = files.tensor(TensorRole::Layer(7, LayerTensor::AttnQ)).unwrap();
    assert_eq!((q.name, q.rows, q.cols), ("blk.7.attn_q.weight", 576, 576));
    assert_eq!(q.row_order, RowOrder::InterleavedPairs { head_dim: 64 });
    assert_eq!(q.bytes.len(), 576 * 576 / 32 * 20);
    assert!(files.tensor(TensorRole::OutputHead).is_err());
    let special = files.special_tokens().unwrap();
    assert_eq!((special.bos, special.eos), (Some(1), vec![2]));
    assert!(files.chat_template().unwrap().unwrap().contains("<|im_start|>"));
    let TokenizerSource::Gguf(vocabulary) = files.tokenizer().unwrap() else { panic!("not gguf") };
    assert_eq!((vocabulary.model, vocabulary.pre), ("gpt2", Some("smollm")));
    assert_eq!(vocabulary.tokens.get(1), Some(&"<|im_start|>"));
    assert_eq!(vocabulary.merges.map(|merges| merges.len()), Some(48900));
    assert_eq!(vocabulary.token_types.map(|types| types.len()), Some(49152));
    assert_eq!(vocabulary.scores, None);
}

#[test]
fn gemma3_opens() {
    let files = open("gemma3.gguf");
    let config = files.config();
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!((config.hidden_size, config.intermediate_size), (640, 2048));
    assert_eq!((config.num_heads, config.num_kv_heads, config.head_dim), (4, 1, 256));
    assert_eq!((config.vocab_size, config.context_length), (262_144, 32_768));
    assert_eq!((config.norm_eps, config.activation), (1e-6, Activation::GeluTanh));
    assert_eq!((config.embedding_scale, config.attention_scale), (640f32.sqrt(), 0.0625));
    assert!(config.tied_embeddings && config.qk_norm && config.post_norms && !config.qkv_bias);
    let windows: Vec<_> = config.layers.iter().map(|layer| layer.window).collect();
    let six = [Some(512), Some(512), Some(512), Some(512), Some(512), None];
    assert_eq!(windows, six.repeat(3));
    for layer in &config.layers {
        let theta = if layer.window.is_some() { 10_000.0 } else { 1_000_000.0 };
        assert_eq!((layer.rope.theta, &layer.rope.scaling), (theta, &RopeScaling::Plain));
    }
    let q = files.tensor(TensorRole::Layer(0, LayerTensor::AttnQ)).unwrap();
    assert_eq!((q.rows, q.cols, q.row_order), (1024, 640, RowOrder::Canonical));
    // Converters have added the 1 of Gemma's norms already.
    let norm = files.tensor(TensorRole::Layer(0, LayerTensor::PostMlpNorm)).unwrap();
    assert_eq!((norm.rows, norm.cols, norm.offset), (1, 640, 0.0));
    let special = files.special_tokens().unwrap();
    assert_eq!((special.bos, special.eos), (Some(2), vec![1]));
    assert_eq!(files.chat_template().unwrap(), None);
    let TokenizerSource::Gguf(vocabulary) = files.tokenizer().unwrap() else { panic!("not gguf") };
    assert_eq!((vocabulary.model, vocabulary.add_bos), ("llama", Some(true)));
    assert_eq!(vocabulary.scores.map(|scores| scores.len()), Some(262_144));
}

/// Pages that were given back can be read again.
#[test]
fn tensors_survive_advice() {
    let files = open("smollm2.gguf");
    let role = TensorRole::Layer(3, LayerTensor::MlpUp);
    let before = files.tensor(role).unwrap().bytes.to_vec();
    files.advise_dont_need(role).unwrap();
    assert!(files.tensor(role).unwrap().bytes == before);
}
