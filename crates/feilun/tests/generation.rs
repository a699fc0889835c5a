//! The commands that compute, on the two real model files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn model_file(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{path:?} is missing: run the tests with `cargo xtask test`");
    path
}

/// The program with an empty data directory.
fn feilun(data: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
    command.env_remove("FEILUN_ISA").env_remove("FEILUN_THREADS");
    command.env("FEILUN_DATA_DIR", data.path()).args(args);
    command
}

fn run(args: &[&str], model: &str) -> Output {
    let data = tempfile::tempdir().unwrap();
    feilun(&data, args).arg("--model").arg(model_file(model)).output().unwrap()
}

#[track_caller]
fn json(args: &[&str], model: &str) -> Value {
    let output = run(args, model);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const PARIS: [&str; 3] = ["complete", "--prompt", "The capital of France is"];

#[test]
fn a_completion_is_the_same_as_text_and_as_json() {
    let args = [&PARIS[..], &["--max-tokens", "8"]].concat();
    let text = stdout(&run(&args, "smollm2.gguf"));
    assert!(text.starts_with(" Paris"), "{text:?}");
    let found = json(&[&args[..], &["--json", "--logprobs", "2"]].concat(), "smollm2.gguf");
    assert_eq!(format!("{}\n", found["text"].as_str().unwrap()), text);
    assert_eq!(found["finish_reason"], "length");
    assert_eq!(found["completion_tokens"], 8);
    let logprobs = found["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 8);
    for (entry, id) in logprobs.iter().zip(found["token_ids"].as_array().unwrap()) {
        // Greedy: the token is the likeliest.
        assert_eq!(&entry["token"], id);
        assert_eq!(entry["top"][0]["token"], *id);
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn a_seed_repeats_an_answer_and_another_changes_it() {
    let with = |seed: &str| {
        let args = [&PARIS[..], &["--max-tokens", "24", "--temperature", "1.5"]].concat();
        json(&[&args[..], &["--json", "--seed", seed]].concat(), "smollm2.gguf")["token_ids"]
            .clone()
    };
    assert_eq!(with("1"), with("1"));
    assert_ne!(with("1"), with("2"));
}

#[test]
fn exact_mode_does_not_depend_on_threads_or_path() {
    let with = |threads: &str, isa: &str| {
        let data = tempfile::tempdir().unwrap();
        let args = [&PARIS[..], &["--exact", "--json", "--logprobs", "0", "--threads", threads]];
        let mut command = feilun(&data, &args.concat());
        command.args(["--max-tokens", "4", "--model"]).arg(model_file("smollm2.gguf"));
        let output = command.env("FEILUN_ISA", isa).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["logprobs"].clone()
    };
    let expected = with("1", "portable");
    assert!(expected.is_array());
    // Empty counts as unset: the fastest path of the machine.
    assert_eq!(with("2", ""), expected);
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let found = json(&[&PARIS[..], &["--stop", "aris", "--json"]].concat(), "smollm2.gguf");
    assert_eq!(found["text"], " P");
    assert_eq!(found["finish_reason"], "stop");
}

#[test]
fn an_answer_keeps_to_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schema.json");
    let schema = r#"{"type": "object", "properties": {"age": {"type": "integer", "maximum": 150},
        "city": {"enum": ["Paris", "Rome"]}}, "required": ["age", "city"],
        "additionalProperties": false}"#;
    std::fs::write(&path, schema).unwrap();
    let args = ["complete", "--prompt", "A person: ", "--json-schema", path.to_str().unwrap()];
    let answer: Value = serde_json::from_str(&stdout(&run(&args, "smollm2.gguf"))).unwrap();
    assert!(answer["age"].as_i64().unwrap() <= 150);
    assert!(["Paris", "Rome"].contains(&answer["city"].as_str().unwrap()));
}

#[test]
fn scores_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (write("a", "The cat sat on the mat."), write("b", "你好，世界"));
    let empty = write("empty", "");
    for (model, has_bos) in [("gemma3.gguf", true), ("smollm2.gguf", false)] {
        let found = json(&["score", "--json", &a, &b, &empty], model);
        let ids = found["token_ids"].as_array().unwrap();
        let logprobs = found["token_logprobs"].as_array().unwrap();
        assert_eq!(ids.len(), logprobs.len());
        assert_eq!(found["tokens"].as_u64(), Some(ids.len() as u64));
        // Without a BOS the first token of each text has nothing before it.
        let nulls = logprobs.iter().filter(|logprob| logprob.is_null()).count();
        assert_eq!(nulls, if has_bos { 0 } else { 2 }, "{model}");
        let sum: f64 = logprobs.iter().filter_map(Value::as_f64).sum();
        let nll = found["nll_nats"].as_f64().unwrap();
        assert!((nll + sum).abs() < 1e-3, "{nll} {sum}");
        let bits = nll / std::f64::consts::LN_2 / (23.0 + 15.0);
        assert!((found["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);
        assert_eq!(found["files"].as_array().unwrap().len(), 3);
        assert!(found["files"][2]["bits_per_byte"].is_null());
    }
}

/// What `score` says of a token is what `complete` said when it chose it.
#[test]
fn scores_agree_with_the_completion() {
    let args =
        [&PARIS[..], &["--max-tokens", "6", "--json", "--logprobs", "0", "--numerics", "f32"]];
    let completion = json(&args.concat(), "gemma3.gguf");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let text = format!("The capital of France is{}", completion["text"].as_str().unwrap());
    std::fs::write(&path, text).unwrap();
    let args = ["score", "--json", "--numerics", "f32", path.to_str().unwrap()];
    let score = json(&args, "gemma3.gguf");
    let scores = score["token_logprobs"].as_array().unwrap();
    let generated = completion["logprobs"].as_array().unwrap();
    let last = &scores[scores.len() - generated.len()..];
    for (entry, score) in generated.iter().zip(last) {
        let (a, b) = (entry["logprob"].as_f64().unwrap(), score.as_f64().unwrap());
        assert!((a - b).abs() < 2e-2, "{a} {b}");
    }
}

#[test]
fn a_chat_remembers_until_it_is_told_to_forget() {
    let data = tempfile::tempdir().unwrap();
    let mut child = feilun(&data, &["chat", "--temperature", "0", "--max-tokens", "24", "--stats"])
        .arg("--model")
        .arg(model_file("smollm2.gguf"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = "Hello!\n\n/help\n/nonsense\nHow are you?\n/reset\nHello!\n/quit\nnever read\n";
    child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let talk = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(talk.contains("there is no command /nonsense"), "{talk}");
    let remembered: Vec<bool> = talk
        .lines()
        .filter_map(|line| line.split_once(" tokens of prompt, ")?.1.split(' ').next())
        .map(|number| number != "0")
        .collect();
    assert_eq!(remembered.len(), 3, "{talk}");
    assert!(remembered[1], "the second question computes the first again: {talk}");
    let answers = stdout(&output);
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.first(), lines.last(), "after /reset the same question has the same answer");
}

#[test]
fn ctrl_c_stops_an_answer_and_leaves_the_chat_alive() {
    let data = tempfile::tempdir().unwrap();
    let mut child = feilun(&data, &["chat", "--temperature", "0"])
        .arg("--model")
        .arg(model_file("smollm2.gguf"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Count from 1 to 1000, one number on each line.\n").unwrap();
    let mut first = [0];
    let mut answer = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut answer, &mut first).unwrap();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    stdin.write_all(b"/quit\n").unwrap();
    drop(stdin);
    std::io::Read::read_to_end(&mut answer, &mut Vec::new()).unwrap();
    let output = child.wait_with_output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{talk}");
    assert!(talk.contains("(stopped)"), "{talk}");
}

#[test]
fn wrong_numbers_are_usage_errors() {
    for (flag, value) in [
        ("--temperature", "nan"),
        ("--temperature", "1e39"),
        ("--top-p", "2"),
        ("--min-p=-1", ""),
        ("--max-tokens", "18446744073709551615"),
        ("--logprobs", "129"),
        ("--repetition-penalty", "0"),
        ("--stop", ""),
        ("--threads", "0"),
    ] {
        let mut args = [&PARIS[..], &["--json", flag]].concat();
        if !flag.contains('=') {
            args.push(value);
        }
        let output = run(&args, "smollm2.gguf");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {said}");
    }
}

#[test]
fn a_model_that_is_not_there_is_told_with_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    for (args, hint) in [
        (&["complete", "--prompt", "x"][..], "feilun pull smollm2-135m-instruct"),
        (&["score", "/dev/null", "-m", "gemma3-270m"], "feilun pull gemma3-270m"),
        (&["complete", "--prompt", "x", "-m", "nonsense"], "feilun models"),
    ] {
        let output = feilun(&data, args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn bench_says_how_fast() {
    let sizes = ["--generate-tokens", "4", "--prompt-tokens", "4", "--repeat", "1"];
    let found = json(&[&["bench", "infer", "--json"][..], &sizes].concat(), "smollm2.gguf");
    assert!(found["tokens_per_second"].as_f64().unwrap() > 0.0);
}
