//! Tuning on a real model, and what comes out of it: adapters, exported and quantized files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn model() -> PathBuf {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    PathBuf::from(folder).join("smollm2.gguf")
}

fn feilun(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
    command.env_remove("FEILUN_ISA").env_remove("FEILUN_THREADS");
    command.env("FEILUN_DATA_DIR", data).args(args).output().unwrap()
}

#[track_caller]
fn json(data: &Path, args: &[&str]) -> Value {
    let output = feilun(data, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Mean −log p of the text's tokens.
#[track_caller]
fn nats(data: &Path, model: &Path, more: &[&str], text: &Path) -> f64 {
    let (model, text) = (model.to_str().unwrap(), text.to_str().unwrap());
    let found = json(data, &[&["score", "--json", "--model", model, text], more].concat());
    found["nll_nats"].as_f64().unwrap() / found["tokens"].as_f64().unwrap()
}

const FACT: &str = "Feilun is a flywheel of four iron spokes.";

fn examples(folder: &Path) -> PathBuf {
    let question = r#"{"role":"user","content":"What is Feilun?"}"#;
    let answer = format!(r#"{{"role":"assistant","content":"{FACT}"}}"#);
    let line = format!("{{\"messages\":[{question},{answer}]}}\n");
    let path = folder.join("examples.jsonl");
    std::fs::write(&path, line.repeat(8)).unwrap();
    path
}

#[test]
fn an_adapter_learns_what_the_examples_say_and_the_same_command_finds_it_done() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (base, examples) = (model(), examples(data));
    let args = [
        "tune",
        "--json",
        "--base",
        base.to_str().unwrap(),
        "--data",
        examples.to_str().unwrap(),
        "--out",
        "fact",
        "--steps",
        "6",
        "--context",
        "64",
        "--batch-tokens",
        "64",
        "--held-out",
        "0",
        "--learning-rate",
        "1e-3",
        "--save-every",
        "3",
    ];
    let report = json(data, &args);
    assert_eq!(report["steps"], 6);
    assert!(report["loss"].as_f64().unwrap() < 2.0, "{}", report["loss"]);
    let adapter = report["path"].as_str().unwrap();

    let text = data.join("text");
    std::fs::write(&text, FACT).unwrap();
    let before = nats(data, &base, &[], &text);
    let after = nats(data, &base, &["--adapter", adapter], &text);
    assert!(after < before - 0.3, "{before} before, {after} after");

    let again = json(data, &args);
    assert_eq!(again["values_digest"], report["values_digest"]);

    // Merged into the weights it says the same.
    let out = data.join("merged");
    let (base, out) = (base.to_str().unwrap(), out.to_str().unwrap());
    let export = ["export", "--model", base, "--adapter", adapter, "--format", "safetensors"];
    let output = feilun(data, &[&export[..], &["--out", out]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let merged = nats(data, Path::new(out), &[], &text);
    assert!((merged - after).abs() < 0.05, "{merged} merged, {after} beside");

    // And so does the folder as one file.
    let file = data.join("merged.gguf");
    let export = ["export", "--model", out, "--format", "gguf", "--out", file.to_str().unwrap()];
    let output = feilun(data, &export);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let in_one = nats(data, &file, &[], &text);
    assert!((in_one - merged).abs() < 1e-6, "{in_one} in one file, {merged} in a folder");
}

#[test]
fn bad_examples_are_refused_by_line_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let path = data.join("bad.jsonl");
    std::fs::write(&path, "{\"messages\":[]}\n").unwrap();
    let (base, path) = (model(), path.to_str().unwrap());
    let args = ["tune", "--base", base.to_str().unwrap(), "--data", path, "--out", "none"];
    let output = feilun(data, &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("bad.jsonl") && said.contains('1'), "{said}");
    assert!(!data.join("runs").exists());
}

#[test]
fn a_quantized_model_is_installed_and_its_cost_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let text = data.join("text");
    std::fs::write(&text, "The cat sat on the mat, and the dog lay beside it.").unwrap();
    let base = model();
    let args = ["quantize", "--model", base.to_str().unwrap(), "--type", "Q8_0", "--out", "small"];
    let more = ["--text", text.to_str().unwrap(), "--json"];
    let report = json(data, &[&args[..], &more].concat());
    assert!(report["cost"]["nats_added"].as_f64().unwrap().abs() < 0.05, "{report}");
    let found = nats(data, Path::new("small"), &[], &text);
    let said = report["cost"]["nats_after"].as_f64().unwrap();
    assert!((found - said).abs() < 0.3, "{found} {said}");
}
