//! `cargo xtask lm-eval`: a real server, scored by EleutherAI's evaluation harness through its
//! `local-completions` model, on two small tasks of our own.
//!
//! The harness counts tokens itself: it is given the tokenizer that `feilun export` writes, so
//! prompts travel as token ids, and a wrong id anywhere shows in the scores. Bits per byte are
//! compared with what `feilun score` says of the same texts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::clients::environment;
use crate::server::Server;
use crate::side_by_side::json_of;
use crate::{cargo, metadata, models, run, say};

/// The harness, and what reads the tokenizer for it.
const PACKAGES: [&str; 2] = ["lm-eval[api]==0.4.13", "transformers==5.23.0"];
/// The test model's file without its ending.
const MODEL: &str = "smollm2";
const FILES: [(&str, &str); 4] = [
    ("capitals.yaml", include_str!("capitals.yaml")),
    ("capitals.jsonl", include_str!("capitals.jsonl")),
    ("texts.yaml", include_str!("texts.yaml")),
    ("texts.jsonl", include_str!("texts.jsonl")),
];
/// One in four would be chance. The model knows more, if its scores arrive.
const ACCURACY_MIN: f64 = 0.6;
/// The harness begins a text with the token that ends texts, `feilun score` with the one that
/// begins them: that is a few bits of the first token in some six hundred.
const BITS_PER_BYTE_TOLERANCE: f64 = 0.05;

/// Runs the command.
pub(crate) fn run_all() -> anyhow::Result<()> {
    let model = models::fetch()?.join(format!("{MODEL}.gguf"));
    let harness = environment(&PACKAGES)?.join("lm_eval");
    run(&mut cargo(&["build", "--locked", "-p", "feilun"]))?;
    let program = metadata::load()?.target_directory.join("debug").join("feilun");
    let folder = std::env::temp_dir().join(format!("feilun-lm-eval-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = evaluate(&program, &harness, &model, &folder);
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;
    outcome
}

fn evaluate(program: &Path, harness: &Path, model: &Path, folder: &Path) -> anyhow::Result<()> {
    for (name, text) in FILES {
        let text = text.replace("FOLDER", &folder.display().to_string());
        std::fs::write(folder.join(name), text)?;
    }
    let tokenizer = folder.join("tokenizer");
    let mut export = Command::new(program);
    export.args(["export", "--format", "safetensors", "--model"]).arg(model);
    run(export.arg("--out").arg(&tokenizer).env("FEILUN_DATA_DIR", folder.join("data")))?;
    let server = Server::start(program, &folder.join("data"), model, &[])?;
    let found = folder.join("found");
    let mut command = Command::new(harness);
    command.args(["--model", "local-completions", "--model_args"]);
    command.arg(format!(
        "model={MODEL},base_url={}/v1/completions,tokenizer={},tokenizer_backend=huggingface,\
         num_concurrent=4,max_length=2048",
        server.url(),
        tokenizer.display()
    ));
    command.args(["--tasks", "feilun_capitals,feilun_texts", "--include_path"]).arg(folder);
    command.args(["--batch_size", "2"]).arg("--output_path").arg(&found);
    // Everything it needs is here.
    command.env("HF_HOME", folder.join("cache")).env("HF_HUB_OFFLINE", "1");
    run(&mut command)?;
    let results = results(&found)?;
    let figure = |task: &str, metric: &str| {
        let value = results["results"][task][format!("{metric},none")].as_f64();
        value.with_context(|| format!("no {metric} of {task} in {results}"))
    };
    let accuracy = figure("feilun_capitals", "acc")?;
    let bits = figure("feilun_texts", "bits_per_byte")?;
    let own = own_bits_per_byte(program, model, folder)?;
    say(&format!(
        "lm-eval: accuracy {accuracy:.3} on capitals, {bits:.4} bits per byte on texts, of which \
         `feilun score` says {own:.4}"
    ));
    if accuracy < ACCURACY_MIN {
        bail!("accuracy {accuracy}: expected at least {ACCURACY_MIN}");
    }
    if (bits - own).abs() > BITS_PER_BYTE_TOLERANCE {
        bail!("bits per byte differ: {bits} over HTTP, {own} by `feilun score`");
    }
    Ok(())
}

/// The newest file of results in the folders that the harness makes.
fn results(folder: &Path) -> anyhow::Result<Value> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_results(&path) {
                return Ok(serde_json::from_slice(&std::fs::read(&path)?)?);
            }
        }
    }
    bail!("the harness left no results in {}", folder.display())
}

fn is_results(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("results") && name.ends_with(".json")
}

/// What `feilun score` says of the same texts, each by itself.
fn own_bits_per_byte(program: &Path, model: &Path, folder: &Path) -> anyhow::Result<f64> {
    let lines = std::fs::read_to_string(folder.join("texts.jsonl"))?;
    let (mut nats, mut bytes) = (0.0, 0.0);
    for line in lines.lines() {
        let item: Value = serde_json::from_str(line)?;
        let path: PathBuf = folder.join("text.txt");
        std::fs::write(&path, item["text"].as_str().unwrap_or_default())?;
        let mut score = Command::new(program);
        score.arg("score").arg("--model").arg(model).arg(&path).arg("--json");
        let said = json_of(score.env("FEILUN_DATA_DIR", folder.join("data")))?;
        nats += said["nll_nats"].as_f64().context("no nll_nats")?;
        bytes += said["bytes"].as_f64().context("no bytes")?;
    }
    Ok(nats / bytes / std::f64::consts::LN_2)
}
