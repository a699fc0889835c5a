//! The real models against PyTorch and transformers: per-token log-probabilities and greedy
//! continuations. The goldens are made by `scripts/goldens`.

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
use feilun_model::{KvKind, Session};
use reference::{Goldens, differences};

fn goldens(name: &str) -> Goldens {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    Goldens::read(&folder.join(format!("{name}.json")))
}

fn session(name: &str, numerics: Numerics, kv_kind: KvKind) -> Session {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    reference::session(&folder.join(name), numerics, kv_kind)
}

fn check_f32(name: &str) {
    let mut session = session(&format!("{name}.gguf"), Numerics::F32, KvKind::F32);
    reference::check_f32(name, &mut session, &goldens(name), None);
}

fn check_native(name: &str) {
    let goldens = goldens(name);
    let mut session = session(&format!("{name}.gguf"), Numerics::Native, KvKind::Bf16);
    let (mean, largest) = differences(&mut session, &goldens, None);
    assert!(mean <= 0.02 && largest <= 0.15, "{name}: mean {mean}, max {largest} nats off");
}

#[test]
fn smollm2_in_f32() {
    check_f32("smollm2");
}

#[test]
fn gemma3_in_f32() {
    check_f32("gemma3");
}

#[test]
fn smollm2_as_served() {
    check_native("smollm2");
}

#[test]
fn gemma3_as_served() {
    check_native("gemma3");
}
