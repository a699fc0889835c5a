//! What brought down other servers, tried here. `docs/hostile.md` has the table: a row for each
//! case, and where its test is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::net::TcpListener;
use std::path::Path;

use common::{TestServer, chat};
use feilun_store::users::Role;
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

#[track_caller]
fn assert_alive(server: &TestServer) {
    let answer = server.chat(json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// llama-server wrote outside its cache for a negative `n_discard` (CVE-2026-21869).
#[test]
fn every_number_of_every_request_has_a_range() {
    let server = TestServer::start();
    let document = server.get("/openapi.json").json();
    let schemas = &document["components"]["schemas"];
    let edges = [
        "-1",
        "0",
        "1.5",
        "-0.0",
        "1e308",
        "-1e308",
        "1e-308",
        "2147483648",
        "4294967296",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "1e999",
        "NaN",
        "Infinity",
        "\"1\"",
        "[1]",
        "{}",
        "null",
        "true",
    ];
    let mut num_fields = 0;
    for (path, body) in [
        (CHAT, chat(json!({}))),
        ("/v1/completions", json!({"model": "stub", "prompt": "x"})),
        ("/v1/embeddings", json!({"model": "stub", "input": "x"})),
    ] {
        let reference = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            ["schema"]["$ref"];
        let name = reference.as_str().unwrap().rsplit('/').next().unwrap();
        for (field, schema) in schemas[name]["properties"].as_object().unwrap() {
            let kinds = schema["type"].to_string();
            if !kinds.contains("number") && !kinds.contains("integer") {
                continue;
            }
            num_fields += 1;
            for edge in edges {
                // As text: some of these are no JSON.
                let mut body = body.clone();
                body[field] = json!("EDGE");
                let body = body.to_string().replace("\"EDGE\"", edge);
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let answer = server.raw((head + &body).as_bytes());
                let is_fine = answer.starts_with("HTTP/1.1 200");
                assert!(is_fine || answer.starts_with("HTTP/1.1 400"), "{field} {edge}: {answer}");
            }
        }
    }
    assert!(num_fields >= 20, "{num_fields}: the document names its numbers differently");
    assert_alive(&server);
}

/// Fields by which callers of others reached into the engine (CVE-2025-62164, CVE-2025-62426).
#[test]
fn fields_that_reach_into_the_engine_are_unknown() {
    let server = TestServer::start();
    for field in [
        "prompt_embeds",
        "chat_template",
        "chat_template_kwargs",
        "n_discard",
        "id_slot",
        "lora",
        "grammar",
        "guided_regex",
        "multi_modal_data",
        "mm_processor_kwargs",
        "kv_transfer_params",
        "cache_salt",
        "priority",
    ] {
        let answer = server.chat(json!({field: "x"}));
        let found = (answer.status, answer.code());
        assert_eq!(found, (400, "unknown_parameter".to_owned()), "{field}");
        assert!(answer.message().contains(field), "{}", answer.text);
    }
}

/// Others fetch pictures, sounds and schemas from wherever a caller says.
#[test]
fn no_url_is_fetched_for_a_caller() {
    let server = TestServer::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.png", listener.local_addr().unwrap());
    let parts = [
        json!({"type": "image_url", "image_url": {"url": &url}}),
        json!({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        json!({"type": "input_audio", "input_audio": {"data": &url, "format": "wav"}}),
        json!({"type": "file", "file": {"file_id": &url}}),
        json!({"type": "text", "text": "x", "url": &url}),
    ];
    for part in parts {
        let answer = server.chat(json!({"messages": [{"role": "user", "content": [part]}]}));
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(!answer.text.contains("root:"));
    }
    for schema in [json!({"$ref": &url}), json!({"$schema": &url}), json!({"$id": &url})] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let answer = server.chat(json!({"response_format": format}));
        assert!([200, 400].contains(&answer.status), "{}", answer.text);
    }
    assert_eq!(server.chat(json!({"model": &url})).status, 404);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the server asked for {url}");
    assert_alive(&server);
}

/// Calls by which strangers changed or read other servers (CVE-2026-7482, CVE-2024-37032).
#[test]
fn calls_that_change_other_servers_are_not_there() {
    let server = TestServer::start();
    for (method, path) in [
        ("POST", "/api/push"),
        ("POST", "/api/pull"),
        ("POST", "/api/create"),
        ("POST", "/api/blobs/sha256:..%2f..%2fx"),
        ("DELETE", "/api/delete"),
        ("POST", "/slots/0?action=save"),
        ("POST", "/props"),
        ("POST", "/lora-adapters"),
        ("GET", "/cors-proxy?url=http://127.0.0.1/"),
        ("POST", "/tools"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/collective_rpc"),
        ("POST", "/start_profile"),
        ("GET", "/.env"),
        ("GET", "/..%2f..%2fetc%2fpasswd"),
    ] {
        let answer = server.send(method, path, &[], (method == "POST").then_some(&json!({})));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

/// A digest is not a path, and a name is not one either (CVE-2024-37032, CVE-2026-7020).
#[test]
fn digests_are_digests() {
    let server = TestServer::start();
    let digest = server.get("/v1/models/stub").header("x-feilun-model").map(str::to_owned);
    let digest = digest.unwrap_or_else(|| "0".repeat(64));
    for wrong in [
        "sha256:../../../../etc/passwd",
        "../../etc/passwd",
        &format!("{digest}/../x"),
        &format!("{}/", &digest[..63]),
        &digest.to_uppercase().replace(|c: char| c.is_ascii_digit(), "Z"),
        &"a".repeat(100_000),
        "\u{0}",
    ] {
        for field in ["model", "expected"] {
            let mut alias = json!({"name": "a@prod", "model": null, "expected": null});
            alias[field] = json!(wrong);
            let answer = server.send("PUT", "/v1/aliases", &[], Some(&alias));
            let shown: String = answer.text.chars().take(300).collect();
            assert!((400..500).contains(&answer.status), "{field}: {shown}");
            assert!(answer.text.len() < 2000, "the answer repeats what was sent: {shown}");
        }
    }
    for name in ["", "a\nb", "a\u{0}", &"x".repeat(10_000), "stub"] {
        let alias = json!({"name": name, "model": "stub", "expected": null});
        let answer = server.send("PUT", "/v1/aliases", &[], Some(&alias));
        assert!((400..500).contains(&answer.status), "{}", answer.text);
    }
    assert_alive(&server);
}

/// Others listen for pickles, tensors and remote pointers on open ports (CVE-2025-32444,
/// CVE-2024-42477).
#[test]
fn what_is_no_http_is_shown_out() {
    let server = TestServer::start();
    let pickle = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94";
    let greeting = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL";
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let remote_call = [[0xff_u8; 8], [0; 8], [0x41; 8]].concat();
    let upgrade = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    for bytes in [&pickle[..], greeting, tls_hello, http2, &remote_call, &[0; 100_000]] {
        let answer = server.raw(bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let answer = server.raw(upgrade.as_bytes());
    assert!(!answer.contains("101 Switching"), "{answer}");
    assert_alive(&server);
}

/// A caller learns neither addresses of memory nor paths, whatever goes wrong (CVE-2026-22778).
#[test]
fn errors_tell_nothing_of_the_inside() {
    let server = TestServer::start();
    let bodies = [
        json!({"model": "../../x"}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x",
            "schema": {"type": "string", "pattern": "(?<"}}}}),
        json!({"tools": [{"type": "function", "function": {"name": "f",
            "parameters": {"$ref": "#/x"}}}]}),
        json!({"max_tokens": 100_000}),
        json!({"logit_bias": {"x": 1}}),
    ];
    let home = env!("CARGO_MANIFEST_DIR");
    for body in bodies {
        let answer = server.chat(body.clone());
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text);
        for inside in ["0x", ".rs", "src/", "/tmp", "panicked", home] {
            assert!(!answer.text.contains(inside), "{inside}: {}", answer.text);
        }
    }
}

/// Who may not do something learns nothing by trying, and nobody reads others' conversations.
#[test]
fn another_users_conversation_cannot_be_continued() {
    let server = TestServer::start();
    let (mine, theirs) = (server.key(Role::Member), server.key(Role::Member));
    let (mine, theirs) = (format!("Bearer {mine}"), format!("Bearer {theirs}"));
    let body = chat(json!({}));
    let first = server.send("POST", CHAT, &[("authorization", &mine)], Some(&body));
    let conversation = first.header("x-feilun-conversation").unwrap();
    let turn = first.header("x-feilun-turn-id").unwrap();
    let go_on = |key: &str, conversation: &str, turn: &str| {
        let headers = [
            ("authorization", key),
            ("x-feilun-conversation", conversation),
            ("x-feilun-parent-turn", turn),
        ];
        let answer = server.send("POST", CHAT, &headers, Some(&body));
        (answer.status, answer.text)
    };
    assert_eq!(go_on(&mine, conversation, turn).0, 200);
    let (status, of_others) = go_on(&theirs, conversation, turn);
    assert_eq!(status, 404);
    // The same words as for one that does not exist.
    let nobody = "0192f0c4-6b3e-7c1d-9a55-3f0a1b2c3d4e";
    let (status, of_nobody) = go_on(&theirs, nobody, turn);
    assert_eq!((status, of_nobody.replace(nobody, conversation)), (404, of_others));
}

/// The table names tests that are there.
#[test]
fn the_table_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/hostile.md")).unwrap();
    let mut num_tests = 0;
    for named in table.split('`').filter(|word| word.contains(".rs::")) {
        let (file, test) = named.split_once("::").unwrap();
        let path = root.join("crates").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {path:?}"));
        assert!(text.contains(&format!("fn {test}(")), "{named} is not there");
        num_tests += 1;
    }
    let num_rows = table.lines().filter(|line| line.starts_with("| ")).count();
    assert!(num_tests >= num_rows, "{num_tests} tests in {num_rows} rows");
}
