//! `feilun eval`: the same command twice, broken off and taken up, looked at afterwards, and asked
//! which of two models is better.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "support/tiny.rs"]
mod tiny;

use tiny::{World, said, words};

/// No single wait takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn smollm2() -> String {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join("smollm2.gguf");
    assert!(path.exists(), "{path:?} is missing: run the tests with `cargo xtask test`");
    path.display().to_string()
}

fn write_lines(world: &World, name: &str, lines: &[Value]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(world.path(name), text).unwrap();
    world.text(name)
}

/// Answers to write and choices to make, short enough for a context of 64 bytes.
fn many(world: &World) -> String {
    let mut lines =
        vec![json!({"suite": "many", "scorer": {"kind": "contains"}, "max_tokens": 40})];
    for number in 0..160 {
        lines.push(json!({"id": format!("write-{number}"), "prompt": format!("Number {number} "),
            "reference": ["square"], "skill": if number % 2 == 0 { "even" } else { "odd" }}));
        lines.push(json!({"id": format!("choose-{number}"), "prompt": "Number", "skill": "choose",
            "choices": [number.to_string(), "?!"], "answer": number % 2}));
    }
    lines.push(json!({"id": "long", "prompt": "x".repeat(70), "reference": ["y"]}));
    write_lines(world, "many.jsonl", &lines)
}

/// The command on the tiny model, with a data directory of its own.
fn args(world: &World, data: &str, suite: &str, more: &[&str]) -> Vec<String> {
    let (data, model) = (world.text(data), world.text("runs/base/model"));
    let fixed = ["--data", &data, "eval", "--model", &model, "--suite", suite, "--threads", "1"];
    words(&[&fixed, more].concat())
}

fn items(world: &World, data: &str) -> Vec<u8> {
    fs::read(only_evaluation(world, data).join("items.jsonl")).unwrap_or_default()
}

fn only_evaluation(world: &World, data: &str) -> PathBuf {
    let Ok(entries) = fs::read_dir(world.path(data).join("evaluations")) else {
        return PathBuf::from("not-there");
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| !path.ends_with("suites"));
    assert!(found.len() <= 1, "{found:?}");
    found.pop().unwrap_or("not-there".into())
}

/// Starts the command and waits until a few more results are on the disk.
fn begin(world: &World, data: &str, suite: &str, more_lines: usize) -> Child {
    let num_lines = || items(world, data).iter().filter(|&&byte| byte == b'\n').count();
    let before = num_lines();
    let mut child = world.command(&args(world, data, suite, &[])).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while num_lines() < before + more_lines && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing happens");
        std::thread::sleep(Duration::from_micros(200));
    }
    child
}

#[test]
fn results_are_the_same_twice_killed_and_interrupted() {
    let world = World::with_base();
    let suite = many(&world);
    let twice = ["calm", "again"].map(|data| {
        let found = world.json(&args(&world, data, &suite, &["--json"]));
        assert_eq!(found["num_results"], 321);
        assert_eq!(found["problems"][0]["id"], "long");
        (items(&world, data), found["evaluation"].clone(), found["metrics"].clone())
    });
    assert_eq!(twice[0], twice[1]);
    let calm = &twice[0].0;

    // Killed twice, then asked to stop, then let be.
    let mut num_broken = 0;
    for _ in 0..2 {
        let mut child = begin(&world, "wild", &suite, 20);
        child.kill().unwrap();
        num_broken += usize::from(child.wait().unwrap().code().is_none());
    }
    let child = begin(&world, "wild", &suite, 20);
    let id = i32::try_from(child.id()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(130) {
        num_broken += 1;
        let said = said(&output);
        assert!(said.contains("of 321 items, all saved"), "{said}");
        let listed = world.json(&words(&["--data", &world.text("wild"), "eval", "list", "--json"]));
        assert_eq!(listed[0]["finished"], Value::Null);
    }
    assert!(num_broken > 0, "every run was too fast to be broken off");
    let found = world.json(&args(&world, "wild", &suite, &["--json"]));
    assert_eq!(found["evaluation"], twice[0].1);
    assert_eq!(found["metrics"], twice[0].2);
    assert_eq!(&items(&world, "wild"), calm);

    look_at(&world, found["evaluation"].as_str().unwrap());
}

/// What is stored can be listed and shown, down to the single answer.
fn look_at(world: &World, id: &str) {
    let show = |more: &[&str]| {
        let data = world.text("wild");
        let output = world.run(&words(&[&["--data", &data, "eval"], more].concat()));
        assert_eq!(output.status.code(), Some(0), "{more:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = show(&["list"]);
    assert!(
        listed.contains(id) && listed.contains("many") && listed.contains("score 0."),
        "{listed}"
    );
    let shown = show(&["show", &id[..6]]);
    for part in ["321 of 321 items", "choose", "even", " to 0.", "window 63"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(show(&["show", id, "--items"]).lines().count(), 321);
    let item = show(&["show", id, "--item", "write-3"]);
    assert!(item.contains("\"Number 3 \"") && item.contains("answer:"), "{item}");
    let result: Value =
        serde_json::from_str(&show(&["show", id, "--item", "long", "--json"])).unwrap();
    assert!(result["result"]["problem"].as_str().unwrap().contains("exceed 64"), "{result}");
    let card = fs::read_to_string(only_evaluation(world, "wild").join("card.html")).unwrap();
    assert!(card.contains("<svg") && !card.contains("<script"), "{card}");
    let output = world.run(&words(&["--data", &world.text("wild"), "eval", "show", "zz"]));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn a_limit_is_the_beginning_of_the_whole() {
    let world = World::with_base();
    let suite = many(&world);
    world.json(&args(&world, "whole", &suite, &["--json"]));
    world.json(&args(&world, "part", &suite, &["--json", "--limit", "30"]));
    let part = items(&world, "part");
    assert_eq!(part.iter().filter(|&&byte| byte == b'\n').count(), 30);
    assert!(items(&world, "whole").starts_with(&part));
}

/// Questions that any model of English answers.
fn easy(world: &World, name: &str) -> String {
    let things = ["sun", "rain", "house", "cat", "sea", "tree", "bread", "milk", "book", "night"];
    let mut lines = Vec::new();
    for (number, thing) in things.iter().enumerate() {
        // The same letters: no model tells them apart by letters alone.
        let backwards: String = thing.chars().rev().collect();
        for (kind, begin) in
            [("a", "Look at the"), ("b", "I like the"), ("c", "We saw a"), ("d", "The big")]
        {
            lines.push(json!({"id": format!("{kind}{number}"), "prompt": begin,
                "choices": [thing, backwards], "answer": 0}));
        }
    }
    // Every fourth the other way round, so that no model is right by the order.
    for line in lines.iter_mut().step_by(4) {
        let choices = line["choices"].as_array_mut().unwrap();
        choices.reverse();
        line["answer"] = json!(1);
    }
    write_lines(world, name, &lines)
}

#[test]
fn the_gate_answers_with_its_exit_code_and_a_card() {
    let world = World::with_base();
    let (suite, model) = (easy(&world, "easy.jsonl"), smollm2());
    let base = world.text("runs/base/model");
    let against = |candidate: &str, incumbent: &str, more: &[&str]| {
        let fixed = ["eval", "--suite", &suite, "--model", candidate, "--against", incumbent];
        let output = world.run(&words(&[&fixed, more].concat()));
        (output.status.code(), output)
    };
    // A model that has seen nothing but numbers is beaten.
    let guard = guard(&world);
    let (code, output) =
        against(&model, &base, &["--json", "--guardrail", &format!("{guard}=0.2")]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code, Some(0), "{found:#}: {}", said(&output));
    assert_eq!(found["gate"]["decision"], "promote");
    assert_eq!(found["gate"]["guardrails"][0]["num_items"], 40);
    let card = PathBuf::from(found["gate"]["card"].as_str().unwrap());
    for file in [card.clone(), card.with_extension("md")] {
        assert!(fs::read_to_string(&file).unwrap().contains("easy"), "{file:?}");
    }
    // The other way round it is refused, and so is a model against itself.
    let (code, output) = against(&base, &model, &[]);
    assert_eq!(code, Some(3), "{}", said(&output));
    assert!(said(&output).contains("refused: reject: "), "{}", said(&output));
    let (code, output) = against(&base, &base, &[]);
    assert_eq!(code, Some(3), "{}", said(&output));
}

/// The same questions with names of their own, so that they are another suite.
fn guard(world: &World) -> String {
    let path = easy(world, "guard.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{}\n{text}", json!({"suite": "guard"}))).unwrap();
    path
}

#[test]
fn what_is_wrong_is_said_before_a_model_is_loaded() {
    let world = World::new();
    let refused = |lines: &str, code: i32, expected: &str| {
        fs::write(world.path("bad.jsonl"), lines).unwrap();
        let suite = world.text("bad.jsonl");
        // There is no such model: nobody looks for it.
        let said = world.refusal(&words(&["eval", "--model", "none", "--suite", &suite]), code);
        assert!(said.contains(expected), "{said}");
    };
    refused("", 2, "the suite has no items");
    refused("{\"id\":\"a\"}\n", 2, "line 1: no task");
    refused(
        "{\"id\":\"a\",\"text\":\"t\"}\n{\"id\":\"a\",\"text\":\"t\"}\n",
        2,
        "line 2: the id `a`",
    );
    refused("{\"id\":\"a\",\"text\":\"t\"}\n", 1, "there is no model `none`");
    let missing = world.refusal(&words(&["eval"]), 2);
    assert!(missing.contains("--suite"), "{missing}");
    let suite = world.text("bad.jsonl");
    let alone = ["eval", "--suite", &suite, "--guardrail", &suite];
    assert!(world.refusal(&words(&alone), 2).contains("--against"));
    assert!(!Path::new(&world.text("evaluations")).exists());
}

#[test]
fn where_nothing_can_be_asked_the_command_fails() {
    let world = World::with_base();
    let line = json!({"id": "long", "prompt": "x".repeat(70), "reference": ["y"],
        "scorer": {"kind": "contains"}});
    let suite = write_lines(&world, "long.jsonl", &[line]);
    let said = world.refusal(&args(&world, "long", &suite, &[]), 1);
    assert!(said.contains("no item has a result"), "{said}");
    assert!(said.contains("long: ") && said.contains("exceed 64"), "{said}");
}

#[test]
fn a_capability_suite_is_made_from_its_seed() {
    let world = World::new();
    let made = |more: &[&str]| {
        let args = words(&[&["eval", "capability", "--per-skill", "2"], more].concat());
        let output = world.command(&args).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let suite = made(&["--seed", "3"]);
    assert_eq!(suite, made(&["--seed", "3"]));
    assert_ne!(suite, made(&["--seed", "4"]));
    let lines: Vec<Value> = suite.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1 + 7 * 2 * 2);
    assert_eq!(lines[0]["suite"], "capability-3");
    assert_eq!(lines[1]["id"], "recall/en/1/000");
    assert_eq!(made(&["--language", "zh"]).lines().count(), 1 + 7 * 2);
}
