//! Files and fine-tuning jobs, with a trainer that does as it is told; loading and unloading.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::fake_trainer::Plan;
use common::{Answer, TestServer, chat};
use feilun_server::Parts;
use feilun_server::stub::StubOptions;
use feilun_store::id::RunId;
use feilun_store::models::{ModelKind, NewModel};
use feilun_store::users::Role;
use serde_json::{Value, json};

const JOBS: &str = "/v1/fine_tuning/jobs";
const LINES: &str = "{\"messages\": []}\n{\"messages\": []}\n";

fn upload(server: &TestServer) -> String {
    let answer = server.form(&[], &[("purpose", "fine-tune"), ("file", LINES)]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn create(server: &TestServer, more: Value) -> Answer {
    let mut body = json!({"model": "stub", "training_file": upload(server)});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post(JOBS, &body)
}

/// A job that was taken.
#[track_caller]
fn job(server: &TestServer, more: Value) -> String {
    let answer = create(server, more);
    assert_eq!(answer.status, 200, "{}", answer.text);
    format!("{JOBS}/{}", answer.json()["id"].as_str().unwrap())
}

#[track_caller]
fn wait_for(server: &TestServer, job: &str, status: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = server.get(job).json();
        if found["status"] == status {
            return found;
        }
        assert!(Instant::now() < deadline, "{found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn files_come_and_go() {
    let server = TestServer::start();
    let answer = server.form(&[], &[("purpose", "fine-tune"), ("file", LINES)]);
    let file = answer.json();
    assert_eq!((file["object"].as_str(), file["bytes"].as_u64()), (Some("file"), Some(34)));
    assert_eq!(
        (file["filename"].as_str(), file["status"].as_str()),
        (Some("../a b.jsonl"), Some("processed"))
    );
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json(), file);
    let content = server.get(&format!("{path}/content"));
    assert_eq!((content.status, content.text.as_str()), (200, LINES));
    upload(&server);
    let list = server.get("/v1/files?limit=1&order=asc").json();
    assert_eq!((&list["data"][0], &list["has_more"]), (&file, &json!(true)));
    let after = file["id"].as_str().unwrap();
    let rest = server.get(&format!("/v1/files?purpose=fine-tune&order=asc&after={after}")).json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (1, &json!(false)));
    assert_eq!(server.get("/v1/files?purpose=batch").json()["data"], json!([]));
    assert_eq!(server.get("/v1/files?limit=0").code(), "invalid_value");
    assert_eq!(server.get("/v1/files?page=2").code(), "unknown_parameter");
    assert_eq!(server.send("DELETE", &path, &[], None).json()["deleted"], true);
    assert_eq!(server.get(&path).code(), "not_found");
    assert_eq!(server.get(&format!("{path}/content")).status, 404);
    for id in
        ["none", "file-none", "..%2f..%2fetc%2fpasswd", "file-0192f0c4-0000-7000-8000-000000000000"]
    {
        assert_eq!(server.get(&format!("/v1/files/{id}")).status, 404, "{id}");
    }
}

#[test]
fn forms_that_are_none() {
    let server = TestServer::with(StubOptions::default(), |config| {
        config.limits.file_bytes_max = 100_000;
        config.limits.files_max = 2;
    });
    let purpose = ("purpose", "fine-tune");
    let (large, long) = ("{".repeat(100_001), "x".repeat(2000));
    for (fields, status, code) in [
        (vec![purpose], 400, "invalid_value"),
        (vec![("file", LINES)], 400, "invalid_value"),
        (vec![("purpose", "batch"), ("file", LINES)], 400, "unsupported_parameter"),
        (vec![purpose, ("file", LINES), ("file", LINES)], 400, "invalid_value"),
        (vec![purpose, ("file", LINES), ("expires", "1")], 400, "unknown_parameter"),
        (vec![purpose, ("file", "{}\nnothing\n")], 400, "invalid_value"),
        (vec![purpose, ("file", large.as_str())], 413, "body_too_large"),
        (vec![("purpose", long.as_str()), ("file", LINES)], 413, "body_too_large"),
    ] {
        let answer = server.form(&[], &fields);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text);
    }
    let bad = server.form(&[], &[purpose, ("file", "{}\nnothing\n")]);
    assert_eq!(bad.message(), "file: line 2: no object");
    assert_eq!(server.post("/v1/files", &json!({})).code(), "unsupported_media_type");
    // Nothing of them was kept.
    assert_eq!(server.get("/v1/files").json()["data"], json!([]));
    for _ in 0..2 {
        upload(&server);
    }
    assert_eq!(server.form(&[], &[purpose, ("file", LINES)]).status, 413);
    // A body that breaks off, and one without an end.
    let head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: multipart/form-data; boundary=limit\r\nContent-Length: 9\r\n\r\n";
    let answer = server.raw(format!("{head}--limit\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn files_and_jobs_are_their_owners() {
    let server = TestServer::start();
    let (own, other) = (server.key(Role::Curator), server.key(Role::Curator));
    let app = server.key(Role::App);
    let bearer = |key: &str| format!("Bearer {key}");
    let form = |key: &str| {
        let fields = [("purpose", "fine-tune"), ("file", LINES)];
        server.form(&[("authorization", &bearer(key))], &fields)
    };
    let get =
        |key: &str, path: &str| server.send("GET", path, &[("authorization", &bearer(key))], None);
    let file = form(&own).json();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(get(&own, &path).status, 200);
    // Curators look at what was captured: they see each other's.
    assert_eq!(get(&other, &path).status, 200);
    assert_eq!(form(&app).code(), "forbidden");
    assert_eq!(get(&app, &path).code(), "forbidden");
    assert_eq!(get(&app, JOBS).code(), "forbidden");
    assert_eq!(server.get("/v1/files").status, 401);
    let load = |key: &str| {
        server.send("POST", "/v1/models/stub/load", &[("authorization", &bearer(key))], None)
    };
    assert_eq!(load(&own).code(), "forbidden");
    assert_eq!(load(&server.key(Role::Admin)).status, 200);
}

#[test]
fn a_job_makes_a_model() {
    let server = TestServer::start();
    let hyperparameters = json!({"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5});
    let supervised =
        json!({"type": "supervised", "supervised": {"hyperparameters": hyperparameters}});
    let path = job(
        &server,
        json!({"method": supervised, "suffix": "Mein Bot", "seed": 7, "metadata": {"a": "b"}}),
    );
    let done = wait_for(&server, &path, "succeeded");
    let name = done["fine_tuned_model"].as_str().unwrap().to_owned();
    assert!(name.starts_with("ft-stub-mein-bot-"), "{name}");
    assert_eq!(
        (&done["trained_tokens"], &done["seed"], &done["error"]),
        (&json!(345), &json!(7), &Value::Null)
    );
    assert_eq!(done["hyperparameters"], hyperparameters);
    assert_eq!(done["method"], supervised);
    assert_eq!(done["metadata"]["a"], "b");
    let order = server.trainer.orders.lock().unwrap()[0].clone();
    assert_eq!((order.num_epochs, order.batch_size, order.rate_multiplier), (2, Some(4), 0.5));
    assert_eq!((order.name.as_str(), order.base.as_str()), (name.as_str(), "stub"));
    let recorded = server.store.model(feilun_store::digest::ModelDigest::from_bytes([7; 32]));
    let recorded = server.runtime.block_on(recorded).unwrap().recorded;
    assert_eq!((recorded.name, recorded.kind), (name, ModelKind::Adapter));
    assert!(recorded.run.is_some());
    // What happened, as a page and as a stream.
    std::thread::sleep(Duration::from_millis(100));
    let page = server.get(&format!("{path}/events?limit=3")).json();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (3, &json!(true)));
    let events = server.get(&format!("{path}/events?stream=true")).events();
    let messages: Vec<&str> = events.iter().filter_map(|event| event["message"].as_str()).collect();
    assert!(messages[0].starts_with("Created job ftjob-"), "{messages:?}");
    assert_eq!(
        messages[1..4],
        ["Job started", "Step 1/3: training loss=1.0000", "Step 2/3: training loss=0.5000"]
    );
    assert!(messages.last().unwrap().starts_with("New fine-tuned model: ft-stub"), "{messages:?}");
    assert_eq!(events.last(), Some(&Value::Null));
    assert_eq!(
        (&events[2]["type"], &events[2]["data"]["train_loss"]),
        (&json!("metrics"), &json!(1.0))
    );
    let list = server.get(&format!("{JOBS}?limit=1")).json();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&done["id"], &json!(false)));
    // It has ended: there is nothing to cancel.
    assert_eq!(server.send("POST", &format!("{path}/cancel"), &[], None).code(), "conflict");
}

#[test]
fn preferences_and_what_is_not_offered() {
    let server = TestServer::start();
    let dpo =
        json!({"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.25, "n_epochs": "auto"}}});
    let path = job(&server, json!({"method": dpo}));
    let done = wait_for(&server, &path, "succeeded");
    assert_eq!(
        done["method"]["dpo"]["hyperparameters"],
        json!({
            "beta": 0.25, "n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 1.0,
        })
    );
    for (fields, code) in [
        (json!({"model": "none"}), "model_not_found"),
        (json!({"training_file": "file-none"}), "not_found"),
        (json!({"validation_file": "x"}), "unsupported_parameter"),
        (json!({"integrations": [{"type": "wandb"}]}), "unsupported_parameter"),
        (json!({"suffix": "x".repeat(65)}), "invalid_value"),
        (json!({"metadata": {"a": "x".repeat(513)}}), "invalid_value"),
        (json!({"method": {"type": "reinforcement"}}), "invalid_value"),
        (json!({"method": {"type": "supervised", "dpo": {}}}), "unknown_parameter"),
        (json!({"hyperparameters": {"n_epochs": 0}}), "invalid_value"),
        (json!({"hyperparameters": {"n_epochs": "many"}}), "invalid_value"),
        (json!({"hyperparameters": {"learning_rate_multiplier": 0}}), "invalid_value"),
        (json!({"hyperparameters": {"epochs": 1}}), "unknown_parameter"),
        (json!({"hyperparameters": {}, "method": {"type": "dpo"}}), "invalid_value"),
        (json!({"seed": -1}), "invalid_value"),
        (json!({"priority": 1}), "unknown_parameter"),
    ] {
        let refused = create(&server, fields.clone());
        assert_eq!(refused.code(), code, "{fields}: {}", refused.text);
    }
}

#[test]
fn a_cancelled_job_ends_and_the_next_one_comes() {
    let server = TestServer::with(StubOptions::default(), |config| {
        config.limits.training_patience = Duration::from_millis(500);
        config.limits.jobs_waiting_max = 3;
    });
    let signals = || server.trainer.signals.lock().unwrap().clone();
    let cancel = |job: &str| server.send("POST", &format!("{job}/cancel"), &[], None).json();
    server.trainer.set(Plan::HearNothing);
    let first = job(&server, json!({}));
    let running = wait_for(&server, &first, "running");
    let (second, third) = (job(&server, json!({})), job(&server, json!({})));
    assert_eq!(server.get(&second).json()["status"], "queued");
    // The queue has a bound, and what a job needs stays.
    assert_eq!(create(&server, json!({})).code(), "queue_full");
    let file = format!("/v1/files/{}", running["training_file"].as_str().unwrap());
    assert_eq!(server.send("DELETE", &file, &[], None).code(), "conflict");
    // One that waits is not even begun.
    assert_eq!(cancel(&second)["status"], "cancelled");
    assert_eq!(cancel(&first)["status"], "cancelled");
    // It does not listen, so it is killed, and the third comes.
    wait_for(&server, &third, "running");
    assert_eq!((signals().first(), signals().contains(&"kill")), (Some(&"interrupt"), true));
    server.trainer.set(Plan::Finish);
    wait_for(&server, &third, "succeeded");
    assert_eq!(server.get(&first).json()["status"], "cancelled");
    assert_eq!(server.trainer.orders.lock().unwrap().len(), 2);
    assert_eq!(server.send("DELETE", &file, &[], None).status, 200);
}

#[test]
fn a_job_that_fails_says_why_and_one_that_dies_is_tried_again() {
    let server = TestServer::start();
    server.trainer.set(Plan::Fail);
    let failed = wait_for(&server, &job(&server, json!({})), "failed");
    assert_eq!(failed["error"]["message"], "line 3: no");
    assert_eq!(failed["fine_tuned_model"], Value::Null);
    server.trainer.set(Plan::Die);
    let dead = wait_for(&server, &job(&server, json!({})), "failed");
    let message = dead["error"]["message"].as_str().unwrap();
    assert!(message.contains("4 times") && message.contains("signal 9"), "{message}");
    assert_eq!(server.trainer.orders.lock().unwrap().len(), 5);
    // Serving has not noticed.
    assert_eq!(server.chat(json!({})).status, 200);
}

#[test]
fn another_server_goes_on_with_the_job() {
    let mut server = TestServer::start();
    server.trainer.set(Plan::GoOn);
    let path = job(&server, json!({}));
    wait_for(&server, &path, "running");
    server.stop();
    assert_eq!(*server.trainer.signals.lock().unwrap(), ["interrupt"]);
    let id: RunId = path.rsplit("ftjob-").next().unwrap().parse().unwrap();
    let status = || server.runtime.block_on(server.store.run(id)).unwrap().status.as_str();
    assert_eq!(status(), "running");
    server.trainer.set(Plan::Finish);
    let config = feilun_server::ServerConfig::new("127.0.0.1:0".parse().unwrap());
    let parts = Parts {
        backend: server.stub.clone(),
        store: server.store.clone(),
        trainer: Some(server.trainer.clone()),
    };
    let bound = server.runtime.block_on(feilun_server::bind(config, parts)).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let task = server.runtime.spawn(bound.run(stop.clone()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while status() != "succeeded" {
        assert!(Instant::now() < deadline, "{}", status());
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.cancel();
    server.runtime.block_on(task).unwrap();
    // No step was told twice.
    let events = server.store.run_events(id, feilun_store::Page::oldest(100));
    let events = server.runtime.block_on(events).unwrap();
    let first =
        events.iter().filter(|event| event.recorded.message.starts_with("Step 1/3")).count();
    assert_eq!(first, 1);
}

fn shelved() -> TestServer {
    let shelved = vec!["spare".to_owned()];
    TestServer::with(StubOptions { shelved, ..StubOptions::default() }, |_| {})
}

#[test]
fn models_are_loaded_when_they_are_asked_and_by_hand() {
    let server = shelved();
    let loaded = |name: &str| {
        let list = server.get("/v1/models").json();
        let data = list["data"].as_array().unwrap().clone();
        data.into_iter().find(|model| model["id"] == name).unwrap()["loaded"].clone()
    };
    let post = |path: &str| server.send("POST", path, &[], None);
    assert_eq!((loaded("stub"), loaded("spare")), (json!(true), json!(false)));
    assert_eq!(server.get("/v1/models/spare").json()["loaded"], false);
    assert_eq!(server.chat(json!({"model": "spare"})).status, 200);
    assert_eq!(loaded("spare"), true);
    let answer = post("/v1/models/spare/unload");
    assert_eq!((answer.status, answer.json()["loaded"].clone()), (200, json!(false)));
    assert_eq!(post("/v1/models/spare/unload").code(), "conflict");
    assert_eq!(post("/v1/models/spare/load?evict_idle=true").json()["loaded"], true);
    assert_eq!(post("/v1/models/spare/load?evict=true").code(), "unknown_parameter");
    assert_eq!(post("/v1/models/none/load").code(), "model_not_found");
    let audit = server.runtime.block_on(server.store.audit_log(feilun_store::Page::newest(9)));
    let actions: Vec<String> = audit.unwrap().into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["model.load", "model.unload"]);
}

#[test]
fn an_alias_that_moves_under_load_fails_nobody() {
    let options = StubOptions {
        token_time: Duration::from_millis(5),
        answer: Some("x".repeat(40)),
        shelved: vec!["spare".to_owned()],
        ..StubOptions::default()
    };
    let server = TestServer::with(options, |_| {});
    let digest = |name: &str| blake3::hash(name.as_bytes()).to_hex().to_string();
    let model = NewModel {
        digest: digest("stub").parse().unwrap(),
        name: "stub".into(),
        kind: ModelKind::Base,
        base: None,
        parent: None,
        run: None,
        config: None,
        size_bytes: 0,
        detail: json!({}),
    };
    server.runtime.block_on(server.store.record_model(model)).unwrap();
    let put = |model: &str, expected: Option<String>| {
        let body = json!({"name": "a@prod", "model": model, "expected": expected});
        let answer = server.send("PUT", "/v1/aliases", &[], Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    put("stub", None);
    let url = server.url("/v1/chat/completions");
    let over = std::sync::atomic::AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let ask = || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let body = chat(json!({"model": "a@prod"})).to_string();
            let mut models = Vec::new();
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = agent.post(&url).content_type("application/json").send(&body).unwrap();
                assert_eq!(answer.status(), 200);
                models.push(answer.headers()["x-feilun-model"].to_str().unwrap().to_owned());
                let text = answer.into_body().read_to_string().unwrap();
                assert!(text.contains(&"x".repeat(40)), "{text}");
            }
            models
        };
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(150));
            let (from, to) = if round % 2 == 0 { ("stub", "spare") } else { ("spare", "stub") };
            put(to, Some(digest(from)));
            // What it pointed to goes, under those who still get answers of it.
            assert_eq!(
                server.send("POST", &format!("/v1/models/{from}/unload"), &[], None).status,
                200
            );
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    for name in ["stub", "spare"] {
        assert!(found.contains(&digest(name)), "{name} never answered");
    }
}
