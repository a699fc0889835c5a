//! Tiny random models of every family, in safetensors, against PyTorch and transformers.
//!
//! Each turns on switches that the two real models leave alone: biases, QK-norm, windows, scaled
//! rotary embeddings, untied heads, shards, adapters. `scripts/goldens` made them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod reference;

use std::path::{Path, PathBuf};

use feilun_kernels::matmul::Numerics;
use feilun_model::{Adapter, KvKind};
use reference::{Goldens, check_f32, session};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[track_caller]
fn check(name: &str) {
    let folder = fixture(name);
    let goldens = Goldens::read(&folder.join("goldens.json"));
    check_f32(name, &mut session(&folder, Numerics::F32, KvKind::F32), &goldens, None);
}

#[test]
fn llama_with_grouped_queries_and_llama3_scaling() {
    check("llama");
}

#[test]
fn llama_with_biases_in_f32() {
    check("llama-bias-f32");
}

#[test]
fn llama_with_linear_scaling_in_f16() {
    check("llama-linear");
}

#[test]
fn llama_with_yarn_scaling() {
    check("llama-yarn");
}

#[test]
fn mistral_with_a_window() {
    check("mistral");
}

#[test]
fn qwen2_with_biases_and_a_window_that_is_not_used() {
    check("qwen2");
}

#[test]
fn qwen2_with_a_window_from_the_second_layer_on() {
    check("qwen2-window");
}

#[test]
fn qwen3_with_qk_norm_in_four_shards() {
    check("qwen3");
}

#[test]
fn gemma3_with_both_kinds_of_layers() {
    check("gemma3");
}

#[test]
fn gemma3_with_linear_scaling_of_its_global_layers() {
    check("gemma3-linear");
}

#[track_caller]
fn check_adapter(base: &str) {
    let mut session = session(&fixture(base), Numerics::F32, KvKind::F32);
    let name = format!("{base}-lora");
    let folder = fixture(&name);
    let adapter = Adapter::open(&folder, session.config()).unwrap();
    let goldens = Goldens::read(&folder.join("goldens.json"));
    check_f32(&name, &mut session, &goldens, Some(&adapter));
    // The adapter belongs to a segment and leaves nothing behind.
    let goldens = Goldens::read(&fixture(base).join("goldens.json"));
    check_f32(base, &mut session, &goldens, None);
}

#[test]
fn a_lora_adapter_changes_a_llama_as_peft_says() {
    check_adapter("llama");
}

#[test]
fn a_lora_adapter_changes_a_gemma3_as_peft_says() {
    check_adapter("gemma3");
}
