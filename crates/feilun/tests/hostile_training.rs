//! Data that are no data: `tune` and `pretrain` say which line of which file, and why, and make
//! nothing; or skip, count and tell.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;

#[path = "support/tiny.rs"]
mod tiny;

use tiny::{World, words};

const GOOD: &str =
    r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
const GOOD_PAIR: &str = r#"{"prompt":[{"role":"user","content":"a"}],"chosen":[{"role":"assistant","content":"b"}],"rejected":[{"role":"assistant","content":"c"}]}"#;

/// One bad line behind a good one, and what is said of it.
#[track_caller]
fn check_line(world: &World, good: &str, bad: &[u8], expected: &str, more: &[&str]) {
    let path = world.path("bad.jsonl");
    fs::write(&path, [good.as_bytes(), b"\n", bad, b"\n"].concat()).unwrap();
    let name = "refused";
    let args = world.tune(name, "bad.jsonl", &[more, &["--steps", "1"]].concat());
    let said = world.refusal(&args, 1);
    assert!(said.contains("bad.jsonl` line 2: "), "{said}");
    assert!(said.contains(expected), "{said}");
    assert!(said.len() < 2000, "{} bytes of message", said.len());
    assert!(!world.path("runs").join(name).exists(), "nothing is made");
}

#[test]
fn bad_lines_of_conversations_are_named() {
    let world = World::with_base();
    for (bad, expected) in [
        (r#"{"messages":["#, "not JSON at column"),
        (r#"{"messages":[{"role":"user","content":"a"},]}"#, "not JSON at column"),
        ("hello", "is this a JSONL file?"),
        (r#"{"messages":{"role":"user"}}"#, "messages is an object, expected a list"),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "content is a number"),
        (r#"{"messages":[{"role":7,"content":"a"}]}"#, "role is a number"),
        (r#"[1,2]"#, "the line is a list"),
        ("{\"messages\":[]}", "nothing to learn: no message of an assistant"),
        (r#"{"prompt":"a"}"#, "found the keys"),
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"},{"role":"assistant","content":"c"}]}"#,
            "message 1 has the role tool",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"},{"role":"assistant","content":"c"}]}"#,
            "system",
        ),
        (r#"{"messages":[{"role":"user","content":"a"}]}"#, "nothing to learn"),
        (r#"{"messages":[{"role":"wizard","content":"a"}]}"#, "wizard"),
    ] {
        check_line(&world, GOOD, bad.as_bytes(), expected, &[]);
    }
    check_line(&world, GOOD, b"{\"messages\":\"\xff\xfe\"}", "byte 13 is not UTF-8", &[]);
}

#[test]
fn bad_lines_of_pairs_are_named() {
    let world = World::with_base();
    let dpo = ["--objective", "dpo"];
    for (bad, expected) in [
        (GOOD, "found the keys"),
        (
            r#"{"prompt":[{"role":"user","content":"a"}],"chosen":5,"rejected":"c"}"#,
            "chosen is a number",
        ),
        (
            r#"{"prompt":[{"role":"user","content":"a"}],"chosen":[{"role":"user","content":"b"}],"rejected":[{"role":"assistant","content":"c"}]}"#,
            "chosen",
        ),
    ] {
        check_line(&world, GOOD_PAIR, bad.as_bytes(), expected, &dpo);
    }
}

#[test]
fn a_line_of_100_megabytes_is_refused_by_its_length() {
    let world = World::with_base();
    let mut file = fs::File::create(world.path("long.jsonl")).unwrap();
    writeln!(file, "{GOOD}").unwrap();
    file.write_all(b"{\"text\":\"").unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        file.write_all(&megabyte).unwrap();
    }
    drop(file);
    let said = world.refusal(&world.tune("t", "long.jsonl", &[]), 1);
    assert!(said.contains("long.jsonl` line 2: 104857609 bytes long, expected at most"), "{said}");
    let (data, bytes) = (world.text("long.jsonl"), world.text("bytes"));
    let fixed = ["pretrain", "--depth", "1", "--out", "p", "--data", &data, "--tokenizer", &bytes];
    let said = world.refusal(&words(&fixed), 1);
    assert!(said.contains("long.jsonl` line 1: text is null"), "{said}");
    let said = world.refusal(&words(&[&fixed[..], &["--skip-bad"]].concat()), 1);
    assert!(said.contains("0 blank and 2 bad lines"), "{said}");
}

#[test]
fn bad_lines_are_skipped_counted_and_told() {
    let world = World::with_base();
    let lines = format!("{GOOD}\n{{\n{GOOD}\n[]\n{}\n", GOOD.repeat(2));
    fs::write(world.path("mixed.jsonl"), lines).unwrap();
    let args = world.tune("t", "mixed.jsonl", &["--skip-bad", "--steps", "2", "--held-out", "0"]);
    let output = world.run(&args);
    let said = tiny::said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("mixed.jsonl:2: not JSON"), "{said}");
    assert!(said.contains("mixed.jsonl:4: the line is a list"), "{said}");
    assert!(said.contains("3 of 5 lines skipped"), "{said}");
}

#[test]
fn files_with_nothing_in_them_are_refused() {
    let world = World::with_base();
    for content in ["", "\n\n \n"] {
        fs::write(world.path("empty.jsonl"), content).unwrap();
        let said = world.refusal(&world.tune("t", "empty.jsonl", &[]), 1);
        assert!(said.contains("empty.jsonl"), "{said}");
        assert!(!world.path("runs/t").exists());
    }
    let said = world.refusal(&world.tune("t", "absent.jsonl", &[]), 1);
    assert!(said.contains("absent.jsonl"), "{said}");
}

#[test]
fn settings_out_of_any_sane_range_are_refused_by_a_guard() {
    let world = World::with_base();
    for rate in ["-0.1", "0", "7", "NaN"] {
        let rate = format!("--learning-rate={rate}");
        world.refusal(&world.tune("rate", "chats.jsonl", &[&rate]), 3);
        world.refusal(&world.pretrain("rate", &[&rate]), 3);
    }
    let args = world.tune("muon", "chats.jsonl", &["--optimizer", "muon"]);
    let said = world.refusal(&args, 2);
    assert!(said.contains("--method full"), "{said}");
}

#[test]
fn an_adapter_of_other_shapes_is_refused() {
    let world = World::with_base();
    world.json(&world.tune("a", "chats.jsonl", &["--steps", "1", "--rank", "2"]));
    let (bytes, texts) = (world.text("bytes"), world.text("texts"));
    let deeper = ["pretrain", "--json", "--depth", "2", "--context", "64", "--batch-tokens", "128"];
    let ours = ["--tokens", "128", "--out", "two", "--data", &texts, "--tokenizer", &bytes];
    world.json(&words(&[&deeper[..], &ours].concat()));
    let (adapter, other) = (world.text("runs/a/adapter"), world.text("runs/two/model"));
    let complete = ["complete", "--prompt", "a", "--model", &other, "--adapter", &adapter];
    let said = world.refusal(&words(&complete), 1);
    assert!(said.contains("expected"), "{said}");
    let out = world.text("merged");
    let export = ["export", "--model", &other, "--adapter", &adapter, "--format", "safetensors"];
    world.refusal(&words(&[&export[..], &["--out", &out]].concat()), 1);
    assert!(!world.path("merged").exists());
}

#[test]
fn texts_that_are_none_are_refused_by_name() {
    let world = World::new();
    let refused = |files: &[(&str, &[u8])], expected: &str| {
        let folder = world.path("hostile");
        fs::create_dir(&folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        let (data, bytes) = (world.text("hostile"), world.text("bytes"));
        let args = ["pretrain", "--depth", "1", "--out", "p", "--data", &data];
        let said = world.refusal(&words(&[&args[..], &["--tokenizer", &bytes]].concat()), 1);
        assert!(said.contains(expected), "{said}");
        assert!(!world.path("runs/p").exists(), "nothing is made");
        fs::remove_dir_all(&folder).unwrap();
    };
    refused(&[], "there is no file in");
    refused(&[(".hidden", b"text")], "there is no file in");
    refused(&[("a.txt", b"a\nb \xff")], "a.txt` line 2: byte 2 is not UTF-8");
    refused(&[("a.txt", b"")], "a.txt` line 1: nothing to learn: the file is empty");
    refused(&[("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":1}\n")], "line 2: text is a number");
    refused(&[("a.jsonl", b"{\"text\":\"a\"\n")], "line 1: not JSON");
    refused(&[("a.jsonl", b"\n")], "no examples in");
    refused(&[("a.tokens", b"feilunts")], "token shard");
    let absent = world.text("absent");
    let args = ["pretrain", "--depth", "1", "--out", "p", "--data", &absent, "--tokenizer"];
    let said = world.refusal(&words(&[&args[..], &[&world.text("bytes")]].concat()), 1);
    assert!(said.contains("cannot read"), "{said}");
}
