//! Fine-tuning over HTTP with a real, tiny model: a file goes in, a model comes out and answers;
//! and a server that is killed in the middle leaves nothing behind that hangs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "support/tiny.rs"]
mod tiny;
#[path = "support/served.rs"]
mod up;

use tiny::{World, words};
use up::Up;

const JOBS: &str = "/v1/fine_tuning/jobs";
/// No single wait takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(world: &World) -> Up {
    let base = world.text("runs/base/model");
    let args = ["up", "--listen", "127.0.0.1:0", "--threads", "1", "--memory", "2", "--model"];
    Up::start_command(world.command(&words(&[&args[..], &[base.as_str()][..]].concat())))
}

#[track_caller]
fn wait_for(up: &Up, job: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, found) = up.get(job);
        if is_it(&found) {
            return found;
        }
        let is_over = found["status"] == "failed" || Instant::now() > deadline;
        assert!(!is_over, "{found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn create(up: &Up, body: &Value) -> String {
    let (status, job) = up.ask(JOBS, None, body);
    assert_eq!(status, 200, "{job}");
    format!("{JOBS}/{}", job["id"].as_str().unwrap())
}

fn question(model: &str) -> Value {
    json!({"model": model, "temperature": 0, "max_tokens": 8, "logprobs": true,
        "messages": [{"role": "user", "content": "3²?"}]})
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

#[test]
fn a_file_becomes_a_model_that_answers() {
    let world = World::with_base();
    let up = start(&world);
    let chats = fs::read_to_string(world.path("chats.jsonl")).unwrap();
    // What is no example is refused with its line.
    let (status, refused) = up.upload(&format!("{chats}{{\"messages\": []}}\n"));
    assert_eq!(status, 400, "{refused}");
    assert!(
        refused["error"]["message"].as_str().unwrap().starts_with("file: line 61:"),
        "{refused}"
    );
    let (status, file) = up.upload(&chats);
    assert_eq!((status, &file["bytes"]), (200, &json!(chats.len())), "{file}");
    // Conversations are no pairs.
    let pairs = json!({"model": "model", "training_file": id(&file), "method": {"type": "dpo"}});
    assert_eq!(up.ask(JOBS, None, &pairs).0, 400);

    let parameters = json!({"n_epochs": 8, "batch_size": 8, "learning_rate_multiplier": 20.0});
    let job = create(
        &up,
        &json!({"model": "model", "training_file": id(&file), "suffix": "squares", "seed": 1,
            "hyperparameters": parameters}),
    );
    // Serving goes on beside it.
    let (status, before) = up.ask("/v1/chat/completions", None, &question("model"));
    assert_eq!(status, 200, "{before}");
    let done = wait_for(&up, &job, |job| job["status"] == "succeeded");
    let name = done["fine_tuned_model"].as_str().unwrap();
    assert!(name.starts_with("ft-model-squares-"), "{name}");
    assert!(done["trained_tokens"].as_u64().unwrap() > 1000, "{done}");
    let (_, events) = up.get(&format!("{job}/events?limit=1000"));
    let of_steps = |event: &&Value| event["data"]["train_loss"].is_number();
    let losses: Vec<f64> = events["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(of_steps)
        .map(|event| event["data"]["train_loss"].as_f64().unwrap())
        .collect();
    // The newest first.
    assert!(losses[0] < losses[losses.len() - 1], "{losses:?}");

    // It is there without anybody having loaded it, and answers in its own way.
    let (_, models) = up.get("/v1/models");
    let models = models["data"].as_array().unwrap();
    let listed = models.iter().find(|model| model["id"] == name).unwrap();
    assert_eq!(listed["loaded"], false);
    let (status, after) = up.ask("/v1/chat/completions", None, &question(name));
    assert_eq!(status, 200, "{after}");
    assert_ne!(after["choices"][0]["logprobs"], before["choices"][0]["logprobs"]);
    let (_, again) = up.ask("/v1/chat/completions", None, &question("model"));
    assert_eq!(again["choices"][0]["logprobs"], before["choices"][0]["logprobs"]);
    let (_, model) = up.get(&format!("/v1/models/{name}"));
    assert_eq!(model["loaded"], true);
    assert!(model["base"].is_string(), "{model}");
    // An alias may point to it.
    let alias = json!({"name": "squares@production", "model": name, "expected": null});
    let request = up::agent().put(format!("{}/v1/aliases", up.url));
    let moved = request.content_type("application/json").send(alias.to_string()).unwrap();
    assert_eq!(moved.status(), 200);
    // Away and back again: the alias finds it on the shelf.
    let (status, unloaded) = up.ask("/v1/models/model/unload", None, &json!({}));
    assert_eq!(status, 200, "{unloaded}");
    let (status, by_alias) = up.ask("/v1/chat/completions", None, &question("squares@production"));
    assert_eq!(status, 200, "{by_alias}");
    assert_eq!(by_alias["choices"][0]["logprobs"], after["choices"][0]["logprobs"]);
    up.terminate();
}

#[test]
fn a_killed_server_leaves_no_job_that_hangs() {
    let world = World::with_base();
    let mut up = start(&world);
    let chats = fs::read_to_string(world.path("chats.jsonl")).unwrap();
    let (_, file) = up.upload(&chats);
    let parameters = json!({"n_epochs": 50, "batch_size": 1});
    let body = json!({"model": "model", "training_file": id(&file), "hyperparameters": parameters});
    let job = create(&up, &body);
    let has_begun = |job: &Value| job["status"] == "running";
    wait_for(&up, &job, has_begun);
    let steps = |up: &Up| {
        let (_, events) = up.get(&format!("{job}/events?limit=1000"));
        let events = events["data"].as_array().unwrap().clone();
        events.iter().filter(|event| event["type"] == "metrics").count()
    };
    let deadline = Instant::now() + PATIENCE;
    while steps(&up) == 0 {
        assert!(Instant::now() < deadline, "no step was done");
        std::thread::sleep(Duration::from_millis(100));
    }
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    // The next one goes on with it; the process that was left over makes room by itself.
    let up = start(&world);
    let before = steps(&up);
    let deadline = Instant::now() + PATIENCE;
    while steps(&up) <= before && up.get(&job).1["status"] == "running" {
        assert!(Instant::now() < deadline, "it does not go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (_, found) = up.get(&job);
    assert!(found["status"] == "running" || found["status"] == "succeeded", "{found}");
    if found["status"] == "running" {
        let (status, cancelled) = up.ask(&format!("{job}/cancel"), None, &json!({}));
        assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")), "{cancelled}");
    }
    up.terminate();
}
