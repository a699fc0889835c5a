//! `feilun up`, `keys` and `forget` on a real model: what a first user does, and an operator.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

#[path = "support/served.rs"]
mod up;

use up::{Up, feilun, model_file};

#[track_caller]
fn run(data: &Path, args: &[&str]) -> Output {
    let output = feilun(data, args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    output
}

fn start(data: &Path) -> Up {
    let mut command = feilun(data, &["up", "--listen", "127.0.0.1:0", "--model"]);
    command.arg(model_file());
    Up::start_command(command)
}

fn chat() -> Value {
    json!({
        "model": "smollm2", "temperature": 0, "max_tokens": 12, "user": "ada",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    })
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_model_is_served_and_what_it_says_outlives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let up = start(folder.path());
    let (status, answer) = up.ask(CHAT, None, &chat());
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("Paris"), "{text}");
    let mut streamed = chat();
    streamed["stream"] = json!(true);
    let (_, events) = up.ask(CHAT, None, &streamed);
    assert!(events.as_str().unwrap().trim_end().ends_with("data: [DONE]"), "{events}");
    let (_, embedded) = up.ask("/v1/embeddings", None, &json!({"model": "smollm2", "input": "x"}));
    assert_eq!(embedded["data"][0]["embedding"].as_array().map(Vec::len), Some(576), "{embedded}");
    let rating = json!({"turn_id": answer["id"], "kind": "rating", "value": true});
    assert_eq!(up.ask("/v1/feedback", None, &rating).0, 201);
    up.terminate();

    // Another server knows the turn, and forgets it.
    let up = start(folder.path());
    assert_eq!(up.ask("/v1/feedback", None, &rating).0, 201);
    let report = run(folder.path(), &["forget", "--user", "ada", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["turns"], &report["feedback"]), (&json!(2), &json!(2)), "{report}");
    assert_eq!(up.ask("/v1/feedback", None, &rating).0, 404);
    up.terminate();
}

#[test]
fn keys_come_and_go_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let up = start(data);
    let made = run(data, &["keys", "create", "website", "--role", "app", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    // How long the server may believe that there is none.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(up.ask(CHAT, None, &chat()).0, 401);
    assert_eq!(up.ask(CHAT, Some(key), &chat()).0, 200);
    let listed = String::from_utf8(run(data, &["keys", "list"]).stdout).unwrap();
    assert!(listed.contains(id) && listed.contains("website") && !listed.contains(key), "{listed}");
    run(data, &["keys", "revoke", id]);
    assert_eq!(up.ask(CHAT, Some(key), &chat()).0, 401);
    up.terminate();
}

#[test]
fn strangers_are_not_let_in_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = feilun(folder.path(), &["up", "--listen", "0.0.0.0:0", "--model"]);
    let output = command.arg(model_file()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("feilun keys create"), "{said}");
}
