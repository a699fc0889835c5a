//! `feilun pretrain`, from texts to a model that the other commands use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;

use feilun_train::run::{Record, read_metrics};
use serde_json::Value;

#[path = "support/tiny.rs"]
mod tiny;

use tiny::{World, said, words};

/// Enough to learn the one sentence of the texts.
const LEARNING: [&str; 8] =
    ["--tokens", "38400", "--held-out", "0.2", "--evaluate-every", "100", "--save-every", "0"];

#[test]
fn a_model_learns_texts_and_is_used_by_the_other_commands() {
    let world = World::new();
    let report = world.json(&world.pretrain("first", &LEARNING));
    assert_eq!((&report["steps"], &report["parameters"]), (&300.into(), &69_952.into()));
    let bits = report["bits_per_byte"].as_f64().unwrap();
    assert!((0.05..2.5).contains(&bits), "a byte has 8, and the texts are alike: {bits}");
    let records = read_metrics(&world.path("runs/first/metrics.jsonl")).unwrap();
    let measured: Vec<f64> = records
        .iter()
        .filter_map(|record| match record {
            Record::Evaluation { bits_per_byte, .. } => *bits_per_byte,
            _ => None,
        })
        .collect();
    assert!(measured.len() == 3 && measured[2] == bits && measured[0] > bits, "{measured:?}");
    assert!(!report["sample"]["text"].as_str().unwrap().is_empty(), "{}", report["sample"]);
    let tokens = &report["ledger"]["sources"][0];
    assert_eq!(tokens["examples"]["dropped"], 0);
    assert!(tokens["tokens"]["held_out"].as_u64().unwrap() > 0);

    let model = world.text("runs/first/model");
    let text = world.path("one");
    fs::write(&text, "Number 7 has the square 49, and the next is 8.\n".repeat(3)).unwrap();
    let score = ["score", "--json", "--model", &model, text.to_str().unwrap()];
    let score = world.json(&words(&score));
    let found = score["bits_per_byte"].as_f64().unwrap();
    assert!((found - bits).abs() < 0.5, "{found}, in training {bits}");
    let prompt = "Number 7 has the square 49, and the next";
    let complete =
        ["complete", "--json", "--model", &model, "--prompt", prompt, "--max-tokens", "4"];
    let complete = world.json(&words(&complete));
    assert_eq!(complete["text"], " is ", "{complete}");
    let out = world.text("exported");
    let export = ["export", "--json", "--model", &model, "--format", "safetensors", "--out", &out];
    assert!(world.json(&words(&export))["bytes"].as_u64().unwrap() > 2 * 69_952);

    // The same texts are not encoded again, and a finished run is finished.
    let shards = || fs::read_dir(world.path("tokens")).unwrap().count();
    assert_eq!(shards(), 2, "a shard and its report");
    let again = world.json(&world.pretrain("first", &LEARNING));
    assert_eq!(again["values_digest"], report["values_digest"]);
    assert_eq!(again["bits_per_byte"], report["bits_per_byte"]);
    assert_eq!(shards(), 2);
}

#[test]
fn shards_of_an_earlier_run_are_data_and_damage_is_found() {
    let world = World::new();
    let few = ["--tokens", "256"];
    let first = world.json(&world.pretrain("first", &few));
    let shard = fs::read_dir(world.path("tokens"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().unwrap() == "tokens")
        .unwrap();
    let (bytes, path) = (world.text("bytes"), shard.to_str().unwrap());
    let args = ["pretrain", "--json", "--depth", "1", "--threads", "1", "--context", "64"];
    let ours = ["--batch-tokens", "128", "--data", path, "--tokenizer", &bytes, "--out", "second"];
    let args = words(&[&args[..], &ours, &few].concat());
    assert_eq!(world.json(&args)["values_digest"], first["values_digest"]);
    let mut content = fs::read(&shard).unwrap();
    content[1000] ^= 1;
    fs::write(&shard, content).unwrap();
    let said = world.refusal(&args, 1);
    assert!(said.contains("the digest of the contents is"), "{said}");
    // Of other tokens, too.
    let tokenizer = world.path("bytes/tokenizer.json");
    let text = fs::read_to_string(&tokenizer).unwrap().replace("<|im_start|>", "<|start|>");
    fs::write(&tokenizer, text).unwrap();
    let said = world.refusal(&args, 1);
    assert!(said.contains("was made with another tokenizer"), "{said}");
}

#[test]
fn muon_and_other_settings_are_part_of_the_run() {
    let world = World::new();
    let args = |name, more: &[&str]| world.pretrain(name, &[&["--tokens", "2560"], more].concat());
    let adamw = world.json(&args("adamw", &[]));
    let muon = world.json(&args("muon", &["--optimizer", "muon"]));
    assert_ne!(adamw["values_digest"], muon["values_digest"]);
    assert!(muon["loss"].as_f64().unwrap() < 5.5, "{}", muon["loss"]);
    let config = fs::read_to_string(world.path("runs/muon/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["training"]["optimizer"]["kind"], "muon");
    assert_eq!(config["training"]["optimizer"]["matrix_rate"], 1.6);
    let said = world.refusal(&args("muon", &["--seed", "7"]), 1);
    assert!(said.contains("training.seed: 0, found 7"), "{said}");
}

#[test]
fn hours_become_a_depth_that_a_resumed_run_keeps() {
    let world = World::new();
    let (texts, bytes) = (world.text("texts"), world.text("bytes"));
    let args = |hours: &str| {
        let fixed = ["pretrain", "--json", "--hours", hours, "--context", "64", "--threads", "1"];
        let ours = ["--data", &texts, "--tokenizer", &bytes, "--out", "timed"];
        words(&[&fixed[..], &ours].concat())
    };
    let first = world.run(&args("0.0001"));
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    assert!(said(&first).contains("depth 1: width 64"), "{}", said(&first));
    let again = world.run(&args("0.0001"));
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert!(!said(&again).contains("measuring"), "{}", said(&again));
    let digest = |output: &std::process::Output| -> Value {
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["values_digest"].take()
    };
    assert_eq!(digest(&first), digest(&again));
    let said = world.refusal(&words(&["pretrain", "--data", &texts, "--out", "x"]), 2);
    assert!(said.contains("--depth") && said.contains("--hours"), "{said}");
}

#[test]
fn muon_tunes_all_weights() {
    let world = World::with_base();
    let full = ["--method", "full", "--steps", "3", "--held-out", "0"];
    let adamw = world.json(&world.tune("adamw", "chats.jsonl", &full));
    let muon = [&full[..], &["--optimizer", "muon"]].concat();
    let muon = world.json(&world.tune("muon", "chats.jsonl", &muon));
    assert_ne!(adamw["values_digest"], muon["values_digest"]);
    assert!(muon["loss"].as_f64().unwrap().is_finite());
    let text = world.path("texts/1.txt");
    let (model, text) = (muon["path"].as_str().unwrap(), text.to_str().unwrap());
    assert!(world.json(&words(&["score", "--json", "--model", model, text]))["tokens"] != 0);
}
