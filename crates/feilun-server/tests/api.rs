//! The other endpoints: completions, embeddings, models, aliases, feedback, events, operations.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{TestServer, chat};
use feilun_server::stub::StubOptions;
use feilun_store::models::{ModelKind, NewModel};
use serde_json::{Value, json};

fn complete(server: &TestServer, fields: Value) -> common::Answer {
    let mut body = json!({"model": "stub", "prompt": "abc"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post("/v1/completions", &body)
}

#[test]
fn completions_as_evaluation_harnesses_ask() {
    let server = TestServer::start();
    let answer = complete(
        &server,
        json!({
            "prompt": [[104, 105], [97, 98, 99]],
            "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234,
        }),
    );
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    assert_eq!(json["object"], "text_completion");
    assert_eq!(json["choices"].as_array().unwrap().len(), 2);
    let choice = &json["choices"][1];
    assert_eq!(choice["index"], 1);
    assert_eq!(choice["text"], "abca");
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", "b", "c", "a"]));
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3]));
    for index in 1..4 {
        let logprob = logprobs["token_logprobs"][index].as_f64().unwrap();
        let top = logprobs["top_logprobs"][index].as_object().unwrap();
        assert_eq!(top.values().next().unwrap().as_f64(), Some(logprob));
    }
    assert_eq!(json["usage"]["prompt_tokens"], 5);
    // The prompt alone.
    let scored = complete(&server, json!({"echo": true, "logprobs": 0, "max_tokens": 0})).json();
    assert_eq!(scored["choices"][0]["text"], "abc");
    assert_eq!(scored["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(scored["choices"][0]["finish_reason"], "length");
}

#[test]
fn completions_in_their_other_forms() {
    let server = TestServer::start();
    assert_eq!(complete(&server, json!({"max_tokens": 2})).json()["choices"][0]["text"], "ab");
    let several = complete(&server, json!({"prompt": ["ab", "飞"], "n": 2})).json();
    let texts: Vec<&str> = several["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["ab", "ab", "飞", "飞"]);
    let events = complete(
        &server,
        json!({
            "stream": true, "echo": true, "stream_options": {"include_usage": true},
        }),
    )
    .events();
    assert_eq!(events.last(), Some(&Value::Null));
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "abcabc");
    assert_eq!(events[events.len() - 2]["usage"]["completion_tokens"], 4);
    for (fields, code) in [
        (json!({"suffix": "x"}), "unsupported_parameter"),
        (json!({"best_of": 3}), "unsupported_parameter"),
        (json!({"prompt": []}), "invalid_value"),
        (json!({"prompt": [[]]}), "invalid_value"),
        (json!({"prompt": [99999]}), "invalid_value"),
        (json!({"prompt": [-1]}), "invalid_value"),
        (json!({"prompt": [1.5]}), "invalid_value"),
        (json!({"prompt": {"a": 1}}), "invalid_value"),
        (json!({"prompt": vec!["a"; 65]}), "invalid_value"),
        (json!({"prompt": vec!["a"; 33], "n": 2}), "invalid_value"),
        (json!({"logprobs": 21}), "invalid_value"),
        (json!({"messages": []}), "unknown_parameter"),
    ] {
        let refused = complete(&server, fields.clone());
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{fields}");
    }
}

#[test]
fn embeddings_as_numbers_and_as_bytes() {
    let server = TestServer::start();
    let ask = |fields: Value| {
        let mut body = json!({"model": "stub", "input": ["abc", "abcd"]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        server.post("/v1/embeddings", &body)
    };
    let json = ask(json!({})).json();
    assert_eq!(json["usage"]["prompt_tokens"], 7);
    let vector: Vec<f64> = json["data"][1]["embedding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect();
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    let base64 = ask(json!({"encoding_format": "base64", "input": "abcd"})).json();
    // Four floats are 16 bytes, and those 24 characters.
    assert_eq!(base64["data"][0]["embedding"].as_str().unwrap().len(), 24);
    assert_eq!(ask(json!({"dimensions": 2})).code(), "unsupported_parameter");
    assert_eq!(ask(json!({"input": []})).code(), "invalid_value");
    assert_eq!(ask(json!({"input": ""})).code(), "invalid_value");
}

#[test]
fn models_and_aliases() {
    let server = TestServer::start();
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "stub");
    let digest = models["data"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/models/{}", &digest[..12])).json()["id"], "stub");
    assert_eq!(server.get("/v1/models/none").code(), "model_not_found");
    let model = NewModel {
        digest: digest.parse().unwrap(),
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
    let put = |body: Value| server.send("PUT", "/v1/aliases", &[], Some(&body));
    let made = put(json!({"name": "a@prod", "model": "stub", "expected": null, "reason": "first"}));
    assert_eq!(made.status, 200, "{}", made.text);
    let answer = server.chat(json!({"model": "a@prod"}));
    assert_eq!(answer.json()["model"], "a@prod");
    let turn = answer.header("x-feilun-turn-id").unwrap().parse().unwrap();
    let turn = server.runtime.block_on(server.store.turn(turn)).unwrap().recorded;
    assert_eq!(turn.alias.as_deref(), Some("a@prod"));
    assert_eq!(server.get("/v1/models").json()["data"][1]["id"], "a@prod");
    assert_eq!(server.get("/v1/aliases").json()["data"][0]["model"], json!(digest));
    // Who thinks that it is elsewhere moves nothing.
    let again = put(json!({"name": "a@prod", "model": "stub", "expected": null}));
    assert_eq!((again.status, again.code().as_str()), (409, "conflict"));
    assert_eq!(put(json!({"name": "stub", "model": "stub", "expected": null})).status, 409);
    assert_eq!(put(json!({"name": "b", "model": "none", "expected": null})).status, 404);
    let gone = put(json!({"name": "a@prod", "model": null, "expected": digest}));
    assert_eq!(gone.status, 200, "{}", gone.text);
    assert_eq!(server.chat(json!({"model": "a@prod"})).status, 404);
    let audit = server.store.audit_log(feilun_store::Page::newest(10));
    assert_eq!(server.runtime.block_on(audit).unwrap().len(), 2);
}

#[test]
fn feedback_of_every_kind() {
    let server = TestServer::start();
    let id = |answer: common::Answer| answer.json()["id"].as_str().unwrap().to_owned();
    let (turn, other) = (id(server.chat(json!({}))), id(server.chat(json!({}))));
    let say = |kind: &str, value: Value| {
        server.post(
            "/v1/feedback",
            &json!({"turn_id": turn, "kind": kind, "value": value, "tags": {"a": "b"}}),
        )
    };
    for (kind, value) in [
        ("rating", json!(true)),
        ("score", json!(0.5)),
        ("comment", json!("too long")),
        ("demonstration", json!({"role": "assistant", "content": "Better."})),
        ("comparison", json!({"preferred": turn, "over": other})),
    ] {
        let answer = say(kind, value);
        assert_eq!(answer.status, 201, "{kind}: {}", answer.text);
        assert_eq!(answer.json()["object"], "feedback");
    }
    let recorded = server.store.feedback_of(turn.parse().unwrap());
    assert_eq!(server.runtime.block_on(recorded).unwrap().len(), 5);
    for (kind, value) in [
        ("rating", json!(1)),
        ("score", json!("x")),
        ("comment", json!(1)),
        ("demonstration", json!({"role": "user", "content": "x"})),
        ("demonstration", json!({"role": "assistant", "content": "x", "y": 1})),
        ("comparison", json!({"preferred": turn, "over": turn})),
        ("comparison", json!({"preferred": turn})),
        ("applause", json!(true)),
    ] {
        assert_eq!(say(kind, value.clone()).status, 400, "{kind} {value}");
    }
    let nowhere = "0192f0c4-0000-7000-8000-000000000000";
    let unknown = json!({"turn_id": nowhere, "kind": "rating", "value": true});
    assert_eq!(server.post("/v1/feedback", &unknown).status, 404);
    let event = server
        .post("/v1/events", &json!({"turn_id": turn, "kind": "edit", "detail": {"text": "x"}}));
    assert_eq!(event.status, 201);
    assert_eq!(server.post("/v1/events", &json!({"turn_id": turn, "kind": "jump"})).status, 400);
    assert_eq!(
        server.post("/v1/events", &json!({"turn_id": turn, "kind": "copy", "detail": 1})).status,
        400
    );
}

#[test]
fn the_document_knows_every_route() {
    let server = TestServer::start();
    let document = server.get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 11);
    for (path, methods) in paths {
        let path = ["{model}", "{file}", "{job}"]
            .into_iter()
            .fold(path.clone(), |path, name| path.replace(name, "none"));
        for method in ["get", "post", "put", "delete", "patch"] {
            let answer = server.send(&method.to_uppercase(), &path, &[], None);
            let is_there = answer.status != 405;
            assert_eq!(is_there, methods.get(method).is_some(), "{method} {path}: {}", answer.text);
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let request = &document["components"]["schemas"]["CreateChatCompletionRequest"];
    assert_eq!(request["additionalProperties"], false);
    assert_eq!(request["properties"]["temperature"]["maximum"], 2, "{request}");
    assert!(request["properties"]["service_tier"].is_object());
}

#[test]
fn figures_are_counted() {
    let server = TestServer::start();
    server.chat(json!({"max_tokens": 5}));
    server.get("/nowhere");
    let text = server.get("/metrics").text;
    for line in [
        "feilun_tokens_total{kind=\"generated\"} 5",
        "feilun_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "feilun_http_requests_total{route=\"(none)\",status=\"404\"} 1",
        "feilun_time_to_first_token_seconds_count 1",
        "feilun_capture_seconds_count 1",
        "feilun_requests_running{model=\"stub\"}",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn stopping_lets_answers_end() {
    let options = StubOptions {
        token_time: Duration::from_millis(10),
        answer: Some("x".repeat(80)),
        ..StubOptions::default()
    };
    let mut server = TestServer::with(options, |_| {});
    let address = server.address;
    let asked = std::thread::spawn(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let body = chat(json!({})).to_string();
        let url = format!("http://{address}/v1/chat/completions");
        let answer = agent.post(url).content_type("application/json").send(body).unwrap();
        answer.into_body().read_to_string().unwrap()
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(server.stub.num_running(), 1);
    server.stop();
    let answer: Value = serde_json::from_str(&asked.join().unwrap()).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "x".repeat(80));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn nothing_is_acknowledged_that_is_not_recorded() {
    let server = TestServer::start();
    server.runtime.block_on(server.store.close()).unwrap();
    let answer = server.chat(json!({}));
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(!answer.text.contains("Hello"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn tls_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = feilun_server::TlsFiles { certificate, key };
    let server = TestServer::with(StubOptions::default(), |config| config.tls = Some(files));
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let url = format!("https://{}/healthz", server.address);
    assert_eq!(agent.get(url).call().unwrap().status(), 200);
    // Plain HTTP is no TLS.
    assert!(!server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("HTTP"));
}
