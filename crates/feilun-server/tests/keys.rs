//! Keys, roles, rates; and what belongs to whom.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TestServer, chat, expired};
use feilun_server::stub::{StubBackend, StubOptions};
use feilun_server::{Parts, ServeError, ServerConfig};
use feilun_store::audit::Actor;
use feilun_store::users::Role;
use feilun_store::{Store, StoreOptions, StoreUrl};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn with_key(
    server: &TestServer,
    key: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> (u16, String) {
    let bearer = format!("Bearer {key}");
    let answer = server.send(method, path, &[("authorization", &bearer)], body);
    let code = if answer.status >= 400 { answer.code() } else { String::new() };
    (answer.status, code)
}

#[test]
fn without_keys_whoever_is_on_this_machine_may_ask() {
    let server = TestServer::start();
    assert_eq!(server.chat(json!({})).status, 200);
    // Clients insist on sending something.
    let body = chat(json!({}));
    assert_eq!(with_key(&server, "unused", "POST", CHAT, Some(&body)).0, 200);
    // But what looks like a key of ours is looked at.
    let forged = format!("fl-{}", "A".repeat(43));
    assert_eq!(with_key(&server, &forged, "POST", CHAT, Some(&body)).0, 401);
}

#[test]
fn with_a_key_every_request_needs_one() {
    let server = TestServer::start();
    let (id, key) = server.key_with(Role::App, |_| {});
    let body = chat(json!({}));
    for path in ["/v1/models", "/v1/aliases", "/metrics"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let refused = server.post(CHAT, &body);
    assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"));
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!(with_key(&server, &key, "POST", CHAT, Some(&body)).0, 200);
    for wrong in ["", "unused", "sk-123", &key[..40], &format!("{key}A"), &key.to_uppercase()] {
        let found = with_key(&server, wrong, "POST", CHAT, Some(&body));
        assert_eq!(found, (401, "invalid_api_key".to_owned()), "{wrong}");
    }
    for header in [key.clone(), format!("Basic {key}"), "Bearer".to_owned()] {
        let answer = server.send("GET", "/v1/models", &[("authorization", &header)], None);
        assert_eq!(answer.status, 401, "{header}");
    }
    let lapsed = server.key_with(Role::App, |key| key.expires_at = expired()).1;
    assert_eq!(with_key(&server, &lapsed, "POST", CHAT, Some(&body)).0, 401);
    server.runtime.block_on(server.store.revoke_key(id, Actor::Operator)).unwrap();
    assert_eq!(with_key(&server, &key, "POST", CHAT, Some(&body)).0, 401);
}

#[test]
fn nobody_reaches_further_than_the_role() {
    let server = TestServer::start();
    let keys: Vec<(Role, String)> = [Role::App, Role::Member, Role::Curator, Role::Admin]
        .into_iter()
        .map(|role| (role, server.key(role)))
        .collect();
    let alias = json!({"name": "a@prod", "model": null, "expected": null});
    for (role, key) in &keys {
        assert_eq!(with_key(&server, key, "GET", "/v1/models", None).0, 200);
        let reached = if *role == Role::Admin { 200 } else { 403 };
        assert_eq!(with_key(&server, key, "GET", "/metrics", None).0, reached, "{role}");
        let (status, code) = with_key(&server, key, "PUT", "/v1/aliases", Some(&alias));
        assert_eq!(status == 403, *role != Role::Admin, "{role}: {status} {code}");
    }
}

#[test]
fn what_others_did_is_not_there() {
    let server = TestServer::start();
    let (mine, theirs) = (server.key(Role::App), server.key(Role::App));
    let (member, curator) = (server.key(Role::Member), server.key(Role::Curator));
    let bearer = format!("Bearer {mine}");
    let answer = server.send("POST", CHAT, &[("authorization", &bearer)], Some(&chat(json!({}))));
    let turn = answer.json()["id"].clone();
    let feedback = json!({"turn_id": turn, "kind": "rating", "value": true});
    let event = json!({"turn_id": turn, "kind": "copy"});
    for (path, body) in [("/v1/feedback", &feedback), ("/v1/events", &event)] {
        for stranger in [&theirs, &member] {
            let found = with_key(&server, stranger, "POST", path, Some(body));
            assert_eq!(found, (404, "not_found".to_owned()));
        }
        for allowed in [&mine, &curator] {
            assert_eq!(with_key(&server, allowed, "POST", path, Some(body)).0, 201);
        }
    }
    // Nor does anybody share what the engine keeps.
    let body = chat(json!({}));
    for key in [&mine, &theirs, &mine] {
        assert_eq!(with_key(&server, key, "POST", CHAT, Some(&body)).0, 200);
    }
    assert_eq!(server.stub.num_tenants(), 2);
}

#[test]
fn rates_are_kept() {
    let server = TestServer::start();
    let (_, key) = server.key_with(Role::App, |key| key.requests_per_minute = Some(2));
    let body = chat(json!({}));
    let bearer = format!("Bearer {key}");
    let ask = || server.send("POST", CHAT, &[("authorization", &bearer)], Some(&body));
    assert_eq!((ask().status, ask().status), (200, 200));
    let refused = ask();
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limit_exceeded"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    // Looking around costs nothing.
    assert_eq!(with_key(&server, &key, "GET", "/v1/models", None).0, 200);

    let (_, key) = server.key_with(Role::App, |key| key.tokens_per_minute = Some(40));
    assert_eq!(with_key(&server, &key, "POST", CHAT, Some(&body)).0, 200);
    let (status, code) = with_key(&server, &key, "POST", CHAT, Some(&body));
    assert_eq!((status, code.as_str()), (429, "rate_limit_exceeded"));
}

#[test]
fn beyond_loopback_it_does_not_start_without_keys() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::sqlite(folder.path().join("feilun.db"));
    let options = StoreOptions::new(folder.path().join("blobs"));
    let store = runtime.block_on(Store::open(&url, options)).unwrap();
    let stub = Arc::new(StubBackend::new(StubOptions::default()).unwrap());
    let config = ServerConfig::new("0.0.0.0:0".parse().unwrap());
    let parts = Parts { backend: stub, store, trainer: None };
    let refused = runtime.block_on(feilun_server::bind(config, parts));
    assert!(matches!(refused, Err(ServeError::NoKeys { .. })), "{refused:?}");
}

#[test]
fn a_secret_is_in_no_log() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("trace")
        .with_writer(move || writer.clone())
        .try_init()
        .unwrap();
    let server = TestServer::start();
    let key = server.key(Role::App);
    let secret_text = "my-private-question";
    let body = chat(json!({"messages": [{"role": "user", "content": secret_text}]}));
    assert_eq!(with_key(&server, &key, "POST", CHAT, Some(&body)).0, 200);
    assert_eq!(with_key(&server, &format!("{key}x"), "POST", CHAT, Some(&body)).0, 401);
    server.get(&format!("/v1/models?key={key}"));
    std::thread::sleep(Duration::from_millis(200));
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("answered"), "the log is empty");
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("feilun")).collect();
    assert!(!ours.is_empty());
    for line in ours {
        assert!(!line.contains(&key[3..]) && !line.contains(secret_text), "{line}");
    }
}
