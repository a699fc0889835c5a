//! Chats over HTTP: OpenAI's shapes, and what is recorded of them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{TestServer, chat};
use feilun_server::stub::StubOptions;
use feilun_store::id::TurnId;
use serde_json::{Value, json};

#[test]
fn an_answer_has_openais_shape_and_is_recorded() {
    let server = TestServer::start();
    let answer = server.chat(json!({"seed": 7, "user": "u-1", "metadata": {"a": "b"}}));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["model"], "stub");
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "Hello, 飞轮!");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &json["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
        )
    );
    let id = json["id"].as_str().unwrap();
    assert_eq!(answer.header("x-feilun-turn-id"), Some(id));
    assert!(answer.header("x-request-id").is_some());

    let id: TurnId = id.parse().unwrap();
    let turn = server.runtime.block_on(server.store.turn(id)).unwrap().recorded;
    assert_eq!(turn.answer["content"], "Hello, 飞轮!");
    assert_eq!(turn.request[0]["content"], "Hello, 飞轮!");
    assert_eq!(turn.seed, Some(7));
    assert_eq!(turn.end_user.as_deref(), Some("u-1"));
    assert_eq!(turn.finish_reason, "stop");
    assert_eq!(turn.answer_tokens.len() as u64, usage["completion_tokens"].as_u64().unwrap());
    assert_eq!(turn.answer_logprobs.len(), turn.answer_tokens.len());
    assert_eq!(turn.sampling["request"]["metadata"]["a"], "b");
    assert!(turn.template.is_some() && turn.first_token_at.is_some());
}

#[test]
fn a_stream_adds_up_to_the_answer() {
    let server = TestServer::start();
    let answer = server.chat(json!({
        "stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 2,
    }));
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    let mut events = answer.events();
    assert_eq!(events.pop(), Some(Value::Null));
    let usage = events.pop().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["completion_tokens"].as_u64().unwrap() > 10);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let mut text = String::new();
    let mut num_logprobs = 0;
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["usage"], Value::Null);
        text += event["choices"][0]["delta"]["content"].as_str().unwrap_or("");
        if let Some(list) = event["choices"][0]["logprobs"]["content"].as_array() {
            num_logprobs += list.len();
            assert_eq!(list[0]["top_logprobs"].as_array().unwrap().len(), 2);
        }
    }
    assert_eq!(text, "Hello, 飞轮!");
    // Every byte is a token; the one that ends the answer is not told.
    assert_eq!(num_logprobs, "Hello, 飞轮!".len());
    let id = events[0]["id"].as_str().unwrap().parse().unwrap();
    assert!(server.runtime.block_on(server.store.turn(id)).is_ok());
}

#[test]
fn choices_are_turns_of_their_own() {
    let server = TestServer::start();
    let answer = server.chat(json!({"n": 3, "seed": 1}));
    assert_eq!(answer.json()["choices"].as_array().unwrap().len(), 3);
    let ids: Vec<TurnId> = answer
        .header("x-feilun-turn-ids")
        .unwrap()
        .split(',')
        .map(|id| id.parse().unwrap())
        .collect();
    let turns = ids.iter().map(|&id| server.runtime.block_on(server.store.turn(id)).unwrap());
    let seeds: std::collections::BTreeSet<_> = turns.map(|turn| turn.recorded.seed).collect();
    assert_eq!(seeds.len(), 3);
    // The prompt counts once.
    let one = server.chat(json!({})).json()["usage"]["prompt_tokens"].clone();
    assert_eq!(answer.json()["usage"]["prompt_tokens"], one);
}

#[test]
fn answers_end_where_they_are_told_to() {
    let server = TestServer::start();
    let cut = server.chat(json!({"max_tokens": 3})).json();
    assert_eq!(cut["choices"][0]["message"]["content"], "Hel");
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let stopped = server.chat(json!({"stop": [", "]})).json();
    assert_eq!(stopped["choices"][0]["message"]["content"], "Hello");
    let newer = server.chat(json!({"max_completion_tokens": 2})).json();
    assert_eq!(newer["choices"][0]["message"]["content"], "He");
    let too_long = server.chat(json!({"max_tokens": 5000}));
    assert_eq!((too_long.status, too_long.code().as_str()), (400, "context_length_exceeded"));
}

#[test]
fn formats_are_enforced() {
    let server = TestServer::start();
    let format = |format: Value| server.chat(json!({"response_format": format, "max_tokens": 200}));
    let schema = json!({
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": false,
    });
    let answer =
        format(json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}));
    let content = answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let value: Value = serde_json::from_str(&content).unwrap_or_else(|_| panic!("{content}"));
    assert!(value["ok"].is_boolean(), "{content}");

    let bad = json!({"type": "object", "uniqueItems": true, "if": {}});
    let refused =
        format(json!({"type": "json_schema", "json_schema": {"name": "x", "schema": bad}}));
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_json_schema"));
    assert!(refused.message().contains("uniqueItems"), "{}", refused.message());
}

fn weather() -> Value {
    json!([
        {"type": "function", "function": {
            "name": "weather", "description": "Tells the weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Basel", "Bern"]}},
                "required": ["city"], "additionalProperties": false,
            },
        }},
        {"type": "function", "function": {"name": "now"}},
    ])
}

#[test]
fn a_tool_is_called_where_one_must_be() {
    let server = TestServer::start();
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let fields = json!({"tools": weather(), "tool_choice": named, "parallel_tool_calls": false});
    let answer = server.chat(fields.clone());
    assert_eq!(answer.status, 200, "{}", answer.text);
    let choice = &answer.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"]["name"], "weather");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["Basel", "Bern"].contains(&arguments["city"].as_str().unwrap()));

    let mut fields = fields;
    fields["stream"] = json!(true);
    let events = server.chat(fields).events();
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["index"], 0);
    assert_eq!(calls[0]["function"]["name"], "weather");
    let finish = &events[events.len() - 2]["choices"][0]["finish_reason"];
    assert_eq!(finish, "tool_calls");
}

#[test]
fn with_auto_text_and_calls_are_told_apart() {
    let said = "Let me look. <tool_call>\n{\"name\": \"weather\", \"arguments\": \
                {\"city\": \"Bern\"}}\n</tool_call>";
    let options = StubOptions { answer: Some(said.to_owned()), ..StubOptions::default() };
    let server = TestServer::with(options, |_| {});
    let choice = server.chat(json!({"tools": weather()})).json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], "Let me look. ", "{choice}");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Bern\"}");
    // Without tools it is text like any other.
    let choice = server.chat(json!({})).json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], said);

    let said = "No tool is needed: 1 < 2.";
    let options = StubOptions { answer: Some(said.to_owned()), ..StubOptions::default() };
    let server = TestServer::with(options, |_| {});
    let choice = server.chat(json!({"tools": weather()})).json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], said);
    assert_eq!(choice["finish_reason"], "stop");

    // The city is not one that the schema has: the model is kept from saying it.
    let said = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}";
    let options = StubOptions { answer: Some(said.to_owned()), ..StubOptions::default() };
    let server = TestServer::with(options, |_| {});
    let choice =
        server.chat(json!({"tools": weather(), "max_tokens": 300})).json()["choices"][0].clone();
    let arguments = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(arguments.contains("Basel") || arguments.contains("Bern"), "{arguments}");
}

#[test]
fn a_conversation_with_tools_goes_on() {
    let server = TestServer::start();
    let answer = server.post(
        "/v1/chat/completions",
        &json!({
            "model": "stub",
            "tools": weather(),
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
                {"role": "assistant", "content": null, "refusal": null, "audio": null,
                 "function_call": null, "annotations": [], "tool_calls": [
                    {"id": "call_1", "type": "function",
                     "function": {"name": "weather", "arguments": "{\"city\": \"Bern\"}"}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "dry"},
            ],
        }),
    );
    assert_eq!(answer.status, 200, "{}", answer.text);
    let content = answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(content.contains("dry"), "{content}");
}

#[test]
fn what_has_no_effect_is_named() {
    let server = TestServer::start();
    let answer =
        server.chat(json!({"service_tier": "auto", "reasoning_effort": "low", "store": null}));
    assert_eq!(answer.header("x-feilun-ignored"), Some("reasoning_effort, service_tier"));
    assert_eq!(server.chat(json!({})).header("x-feilun-ignored"), None);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let server = TestServer::start();
    #[track_caller]
    fn refused(server: &TestServer, fields: Value, code: &str, names: &str) {
        let answer = server.chat(fields);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{}", answer.text);
        assert!(answer.text.contains(names), "{}", answer.text);
    }
    refused(&server, json!({"temprature": 1}), "unknown_parameter", "temprature");
    refused(
        &server,
        json!({"stream_options": {"x": 1}, "stream": true}),
        "unknown_parameter",
        "stream_options.x",
    );
    refused(&server, json!({"temperature": 2.5}), "invalid_value", "temperature");
    refused(&server, json!({"temperature": "1"}), "invalid_value", "temperature");
    refused(&server, json!({"top_p": -0.1}), "invalid_value", "top_p");
    refused(&server, json!({"n": 0}), "invalid_value", "n: expected");
    refused(&server, json!({"n": 1e300}), "invalid_value", "n: expected");
    refused(&server, json!({"max_tokens": -1}), "invalid_value", "max_tokens");
    refused(&server, json!({"seed": 1.5}), "invalid_value", "seed");
    refused(&server, json!({"seed": 1e30}), "invalid_value", "seed");
    refused(&server, json!({"top_logprobs": 21}), "invalid_value", "top_logprobs");
    refused(&server, json!({"top_logprobs": 2}), "invalid_value", "top_logprobs");
    refused(&server, json!({"logit_bias": {"a": 1}}), "invalid_value", "logit_bias");
    refused(&server, json!({"logit_bias": {"999999": 1}}), "invalid_value", "999999");
    refused(&server, json!({"logit_bias": {"1": 101}}), "invalid_value", "logit_bias");
    refused(&server, json!({"stop": [""]}), "invalid_value", "stop");
    refused(&server, json!({"stop": 3}), "invalid_value", "stop");
    refused(&server, json!({"messages": []}), "invalid_value", "message");
    refused(
        &server,
        json!({"messages": [{"role": "robot", "content": "x"}]}),
        "invalid_value",
        "robot",
    );
    refused(
        &server,
        json!({"messages": [{"role": "user", "content": "x", "y": 1}]}),
        "unknown_parameter",
        "y",
    );
    refused(
        &server,
        json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}]}),
        "invalid_value",
        "messages",
    );
    refused(
        &server,
        json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        "invalid_value",
        "name",
    );
    refused(
        &server,
        json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"not": {}}}}]}),
        "invalid_json_schema",
        "not",
    );
    refused(&server, json!({"tool_choice": "required"}), "invalid_value", "tool_choice");
    refused(&server, json!({"user": "a\nb"}), "invalid_value", "user");
    refused(&server, json!({"functions": []}), "unknown_parameter", "functions");
    refused(&server, json!({"stream_options": {}}), "invalid_value", "stream_options");
    let answer = server.chat(json!({"model": "gpt-4"}));
    assert_eq!((answer.status, answer.code().as_str()), (404, "model_not_found"));
    // And the server still works.
    assert_eq!(server.chat(json!({})).status, 200);
}

#[test]
fn a_conversation_goes_on_for_whom_it_belongs_to() {
    let server = TestServer::start();
    let first = server.chat(json!({}));
    let conversation = first.header("x-feilun-conversation").unwrap().to_owned();
    let parent = first.header("x-feilun-turn-id").unwrap().to_owned();
    let path = "/v1/chat/completions";
    let headers = [("x-feilun-conversation", &*conversation), ("x-feilun-parent-turn", &*parent)];
    let second = server.send("POST", path, &headers, Some(&chat(json!({}))));
    assert_eq!(second.header("x-feilun-conversation"), Some(&*conversation));
    let id = second.header("x-feilun-turn-id").unwrap().parse().unwrap();
    let turn = server.runtime.block_on(server.store.turn(id)).unwrap().recorded;
    assert_eq!(turn.parent.map(|id| id.to_string()), Some(parent));

    let unknown = [("x-feilun-conversation", "0192f0c4-0000-7000-8000-000000000000")];
    assert_eq!(server.send("POST", path, &unknown, Some(&chat(json!({})))).status, 404);
    let odd = [("x-feilun-conversation", "1 OR 1=1")];
    assert_eq!(server.send("POST", path, &odd, Some(&chat(json!({})))).status, 400);

    let key = format!("Bearer {}", server.key(feilun_store::users::Role::App));
    let others = [("authorization", &*key), ("x-feilun-conversation", &*conversation)];
    assert_eq!(server.send("POST", path, &others, Some(&chat(json!({})))).status, 404);
}

#[test]
fn who_leaves_is_a_cancelled_turn() {
    let options = StubOptions {
        token_time: Duration::from_millis(20),
        answer: Some("x".repeat(2000)),
        ..StubOptions::default()
    };
    let server = TestServer::with(options, |_| {});
    for stream in [true, false] {
        let body =
            chat(json!({"stream": stream, "user": "leaver", "max_tokens": 2000})).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = std::net::TcpStream::connect(server.address).unwrap();
        std::io::Write::write_all(&mut socket, (head + &body).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.stub.num_running(), 1);
        drop(socket);
        server.wait_until_idle();
    }
    let filter = feilun_store::turns::TurnFilter {
        end_user: Some("leaver".to_owned()),
        ..Default::default()
    };
    // The turn is recorded a moment after the engine is idle.
    std::thread::sleep(Duration::from_millis(300));
    let turns = server.store.turns(&filter, feilun_store::Page::newest(10));
    let turns = server.runtime.block_on(turns).unwrap();
    assert_eq!(turns.len(), 2);
    for turn in turns {
        assert_eq!(turn.recorded.finish_reason, "cancelled");
        assert!((1..200).contains(&turn.recorded.answer_tokens.len()));
    }
}
