//! Constraints: whatever is sampled under one satisfies it, and hostile ones are errors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ToyVocabulary, bytes};
use feilun_infer::constraint::{
    ConstraintCompiler, ConstraintError, ConstraintLimits, ConstraintSource,
};
use feilun_infer::engine::{Engine, EngineConfig};
use feilun_infer::event::{EventKind, Finish, FinishReason, StopCause};
use feilun_infer::request::Request;
use feilun_infer::sampling::SamplingParams;
use proptest::prelude::*;
use serde_json::{Value, json};

fn compiler(canonical: bool) -> ConstraintCompiler {
    ConstraintCompiler::new(Arc::new(ToyVocabulary { canonical }), ConstraintLimits::default())
        .unwrap()
}

struct Answer {
    tokens: Vec<u32>,
    text: String,
    finish: Finish,
    num_forwards: usize,
}

/// Samples an answer under a constraint from a model that knows nothing.
fn sample(
    compiler: &ConstraintCompiler,
    canonical: bool,
    source: &ConstraintSource,
    sampling: SamplingParams,
) -> Answer {
    let mut engine = Engine::new(
        common::FakeDecoder::new(130, 64),
        Arc::new(ToyVocabulary { canonical }),
        EngineConfig::default(),
        Box::new(|| Duration::ZERO),
    );
    let constraint = Some(compiler.compile(source).unwrap());
    let request = Request { constraint, sampling, ..Request::new(bytes("x"), 1900) };
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let finish = engine
        .generate(request, |event| {
            match &event.kind {
                EventKind::Token(token) => {
                    tokens.push(token.token);
                    text.push_str(&token.text);
                }
                EventKind::Finished(finish) => text.push_str(&finish.text),
                EventKind::PromptLogprobs { .. } | EventKind::Embedding(_) => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    Answer { tokens, text, finish, num_forwards: engine.decoder().num_forwards }
}

fn seeded(seed: u64) -> SamplingParams {
    SamplingParams { seed, ..SamplingParams::default() }
}

fn schema(value: Value) -> ConstraintSource {
    ConstraintSource::JsonSchema(value)
}

/// A validator for the keywords of the schemas below, written from the standard.
fn is_valid(schema: &Value, value: &Value) -> bool {
    let Value::Object(schema) = schema else { return schema.as_bool() == Some(true) };
    schema.iter().all(|(keyword, arg)| match keyword.as_str() {
        "type" => match arg {
            Value::Array(types) => types.iter().any(|t| has_type(t, value)),
            one => has_type(one, value),
        },
        "enum" => arg.as_array().unwrap().contains(value),
        "const" => arg == value,
        "anyOf" => arg.as_array().unwrap().iter().any(|s| is_valid(s, value)),
        "minimum" => value.as_f64().is_none_or(|x| x >= arg.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|x| x <= arg.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 >= as_u64(arg)),
        "maxLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 <= as_u64(arg)),
        "minItems" => value.as_array().is_none_or(|a| a.len() as u64 >= as_u64(arg)),
        "maxItems" => value.as_array().is_none_or(|a| a.len() as u64 <= as_u64(arg)),
        "items" => value.as_array().is_none_or(|a| a.iter().all(|v| is_valid(arg, v))),
        "required" => value.as_object().is_none_or(|o| {
            arg.as_array().unwrap().iter().all(|name| o.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value
            .as_object()
            .is_none_or(|o| o.iter().all(|(name, v)| arg.get(name).is_none_or(|s| is_valid(s, v)))),
        "additionalProperties" => value.as_object().is_none_or(|o| {
            let known = schema.get("properties");
            o.iter()
                .all(|(name, v)| known.is_some_and(|k| k.get(name).is_some()) || is_valid(arg, v))
        }),
        other => panic!("the test's validator does not know `{other}`"),
    })
}

fn as_u64(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|x| x.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

/// Schemas whose values are finite in length, so that a random model comes to an end.
fn leaf_schema() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        Just(json!({"enum": ["red", "绿", 3, null, ""]})),
        Just(json!({"const": "a \"quoted\" \\ word\n"})),
        (-50i64..0, 0i64..50)
            .prop_map(|(a, b)| json!({"type": "integer", "minimum": a, "maximum": b})),
        (0u64..3, 3u64..9)
            .prop_map(|(a, b)| json!({"type": "string", "minLength": a, "maxLength": b})),
    ]
}

fn any_schema() -> impl Strategy<Value = Value> {
    leaf_schema().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0u64..2, 2u64..4).prop_map(
                |(items, a, b)| json!({"type": "array", "items": items, "minItems": a, "maxItems": b})
            ),
            (prop::collection::vec(inner.clone(), 1..4), any::<bool>()).prop_map(|(all, some)| {
                let names = ["name", "é", "true", "a b"];
                let properties: serde_json::Map<String, Value> =
                    names.iter().map(|n| (*n).to_owned()).zip(all).collect();
                let mut required: Vec<String> = properties.keys().cloned().collect();
                if some {
                    required.pop();
                }
                json!({
                    "type": "object", "properties": properties, "required": required,
                    "additionalProperties": false,
                })
            }),
            prop::collection::vec(inner, 1..3).prop_map(|all| json!({"anyOf": all})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn whatever_is_sampled_satisfies_its_schema(
        schema in any_schema(),
        seed: u64,
        canonical: bool,
        temperature in prop_oneof![Just(0.0f32), Just(1.0), Just(5.0)],
    ) {
        let compiler = compiler(canonical);
        let source = ConstraintSource::JsonSchema(schema.clone());
        let sampling = SamplingParams { temperature, ..seeded(seed) };
        let found = sample(&compiler, canonical, &source, sampling.clone());
        let ended = matches!(found.finish.reason, FinishReason::Stop(_));
        // A greedy model of hashes may write the white space it likes until the end.
        prop_assert!(ended || found.tokens.len() == 1900, "{:?}", found.finish.reason);
        if ended {
            let value: Value = serde_json::from_str(&found.text)
                .map_err(|e| TestCaseError::fail(format!("{e}: {}", found.text)))?;
            prop_assert!(is_valid(&schema, &value), "{} does not fit {schema}", found.text);
        }
        // Tokens without a choice are not computed singly; asking for log-probabilities turns
        // that off, and must change nothing else.
        let with_logprobs = SamplingParams { logprobs: Some(0), ..sampling };
        let slow = sample(&compiler, canonical, &source, with_logprobs);
        prop_assert_eq!(&slow.tokens, &found.tokens);
        prop_assert_eq!(slow.text, found.text);
        prop_assert!(slow.num_forwards >= found.num_forwards);
    }
}

#[test]
fn forced_text_is_not_computed_token_by_token() {
    let source = schema(json!({
        "type": "object",
        "properties": {"a_rather_long_property_name": {"enum": ["x", "y"]}},
        "required": ["a_rather_long_property_name"],
        "additionalProperties": false,
    }));
    let found = sample(&compiler(true), true, &source, seeded(1));
    assert!(found.num_forwards * 2 < found.tokens.len(), "{} passes", found.num_forwards);
}

#[test]
fn json_object_mode_gives_an_object() {
    let compiler = compiler(true);
    let mut num_ended = 0;
    for seed in 0..10 {
        let found = sample(&compiler, true, &ConstraintSource::JsonObject, seeded(seed));
        if matches!(found.finish.reason, FinishReason::Stop(_)) {
            num_ended += 1;
            let value: Value = serde_json::from_str(&found.text).unwrap();
            assert!(value.is_object());
        }
    }
    assert!(num_ended > 0);
}

#[test]
fn regular_expressions_match_the_whole_answer() {
    let compiler = compiler(true);
    let source = ConstraintSource::Regex("(ab|好){2,4}[0-9]{3}".to_owned());
    for seed in 0..20 {
        let found = sample(&compiler, true, &source, seeded(seed));
        assert!(matches!(found.finish.reason, FinishReason::Stop(StopCause::Constraint)));
        let (words, digits) = found.text.split_at(found.text.len() - 3);
        assert!(digits.bytes().all(|b| b.is_ascii_digit()), "{}", found.text);
        let num_words = words.matches("ab").count() + words.matches('好').count();
        assert!((2..=4).contains(&num_words), "{}", found.text);
        assert_eq!(words.replace("ab", "").replace('好', ""), "");
    }
}

#[test]
fn grammars_are_followed() {
    let compiler = compiler(false);
    let grammar = "start: pair (\";\" pair){0,3}\npair: WORD \"=\" NUMBER\n\
                   WORD: /[a-z]{1,5}/\nNUMBER: /[1-9][0-9]{0,3}/\n";
    for seed in 0..20 {
        let source = ConstraintSource::Lark(grammar.to_owned());
        let found = sample(&compiler, false, &source, seeded(seed));
        assert!(matches!(found.finish.reason, FinishReason::Stop(_)));
        for pair in found.text.split(';') {
            let (word, number) = pair.split_once('=').unwrap();
            assert!((1..=5).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()));
            assert!((1..=9999).contains(&number.parse::<u32>().unwrap()));
        }
    }
}

#[test]
fn white_space_is_bounded() {
    let compiler = compiler(true);
    let bias = vec![(common::byte(b' '), 60.0), (common::byte(b'\n'), 60.0)];
    let sampling = SamplingParams { logit_bias: bias, ..seeded(1) };
    let source = schema(json!({"type": "array", "items": {"enum": [1]}, "maxItems": 3}));
    let found = sample(&compiler, true, &source, sampling);
    assert!(matches!(found.finish.reason, FinishReason::Stop(_)));
    assert!(found.text.len() < 400, "{} bytes", found.text.len());
}

#[track_caller]
fn refused(source: &ConstraintSource) -> ConstraintError {
    let start = Instant::now();
    let error = match compiler(true).compile(source) {
        Ok(_) => panic!("this was accepted: {source:?}"),
        Err(error) => error,
    };
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    assert!(error.to_string().len() < 2000, "{error}");
    error
}

#[test]
fn keywords_that_cannot_be_enforced_are_named() {
    let cases = [
        (json!({"not": {"type": "null"}}), "not", "/not"),
        (
            json!({"properties": {"a/b": {"uniqueItems": true}}}),
            "uniqueItems",
            "/properties/a~1b/uniqueItems",
        ),
        (json!({"items": {"if": {}, "then": {}}}), "if", "/items/if"),
        (json!({"anyOf": [{"contains": {}}]}), "contains", "/anyOf/contains"),
        (
            json!({"$defs": {"x": {"dependentRequired": {}}}}),
            "dependentRequired",
            "/$defs/x/dependentRequired",
        ),
        (json!({"type": "string", "x-guidance": {"lenient": true}}), "x-guidance", "/x-guidance"),
        (json!({"type": "string", "minLenght": 3}), "minLenght", "/minLenght"),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{}]}),
            "prefixItems",
            "/prefixItems",
        ),
        (json!({"items": {"$id": "elsewhere"}}), "$id", "/items/$id"),
    ];
    for (value, keyword, path) in cases {
        let expected =
            ConstraintError::UnsupportedKeyword { keyword: keyword.into(), path: path.into() };
        assert_eq!(refused(&schema(value)), expected);
    }
}

#[test]
fn schemas_that_can_only_be_approximated_are_refused() {
    for value in [
        // Both of these may hold at once, which oneOf forbids and the grammar cannot see.
        json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        json!({"type": "string", "format": "no-such-format"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"type": "strnig"}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"type": "integer", "minimum": i64::MIN}),
        json!({"type": "number", "maximum": 1e300}),
        json!({"enum": [u64::MAX]}),
        json!({"properties": []}),
        json!({"anyOf": {}}),
        json!({"items": 3}),
        json!([1, 2]),
        json!(null),
        json!(false),
    ] {
        refused(&schema(value));
    }
}

/// Nesting and chains that make recursive compilers run out of stack, and sizes that make them
/// run out of memory or time (serving.md section 6: llama.cpp#25308, vLLM#17313, #17248).
#[test]
fn hostile_sources_are_errors() {
    let deep = (0..100).fold(json!({}), |inner, _| json!({"items": inner}));
    assert!(matches!(refused(&schema(deep)), ConstraintError::SchemaTooDeep { .. }));
    let wide = json!({"enum": (0..10_000).collect::<Vec<_>>()});
    assert!(matches!(refused(&schema(wide)), ConstraintError::SchemaTooLarge { .. }));
    let long = json!({"const": "x".repeat(100_000)});
    assert!(matches!(refused(&schema(long)), ConstraintError::SourceTooLong { .. }));

    for text in
        ["(", "[", "a{", "(?P<", "\\", "(?=a)", "(?x)a\nb", "\\p{Nonsense}", "(a)\\1", "\u{0}("]
    {
        refused(&ConstraintSource::Regex(text.to_owned()));
    }
    refused(&ConstraintSource::Regex("(".repeat(4000) + &")".repeat(4000)));
    refused(&ConstraintSource::Regex("a".repeat(10_000)));
    let patterns = json!({"anyOf": [{"pattern": "a".repeat(5000)}, {"pattern": "b".repeat(5000)}]});
    assert!(matches!(refused(&schema(patterns)), ConstraintError::SourceTooLong { .. }));
    refused(&schema(json!({"pattern": "a\\"})));
    refused(&schema(json!({"patternProperties": {"(": {}}})));

    for text in [
        "",
        "start: missing",
        "start: \"a",
        "nothing: \"a\"",
        "start: /(/",
        "start: <|no_such_token|>",
        "%json {\"not\": {}}",
        "start: %json {\"not\": {}}",
        "start: %json {\"type\": \"string\", \"x-guidance\": {\"lenient\": true}, \"not\": {}}",
        "start: @other",
    ] {
        refused(&ConstraintSource::Lark(text.to_owned()));
    }
    let parens = "start: ".to_owned() + &"(".repeat(8000);
    assert!(matches!(
        refused(&ConstraintSource::Lark(parens)),
        ConstraintError::SourceTooDeep { .. }
    ));
}

/// Sources that a limit may or may not refuse: they must end soon, without a crash.
#[test]
fn costly_sources_end_soon() {
    let chain = |n: usize| {
        let mut defs = serde_json::Map::new();
        for i in 0..n {
            defs.insert(format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)}));
        }
        defs.insert(format!("d{n}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    let doubling = |n: usize| {
        let mut defs = serde_json::Map::new();
        for i in 0..n {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            defs.insert(format!("d{i}"), json!({"allOf": [next, next]}));
        }
        defs.insert(format!("d{n}"), json!({"type": "object", "properties": {"a": {}}}));
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    let alternatives: Vec<Value> =
        (0..60).map(|i| json!({"properties": {format!("p{i}"): {"type": "string"}}})).collect();
    let rules: String = (0..600).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
    let doubled: String = (0..40).map(|i| format!("r{i}: r{0} r{0}\n", i + 1)).collect();
    let sources = [
        schema(chain(1300)),
        schema(doubling(25)),
        schema(json!({"allOf": [
            {"anyOf": alternatives}, {"anyOf": alternatives}, {"anyOf": alternatives},
        ]})),
        schema(json!({"type": "array", "minItems": 1_000_000_000u64})),
        schema(json!({"type": "array", "items": {"type": "null"}, "maxItems": u64::MAX})),
        schema(json!({"type": "string", "minLength": 1_000_000_000u64})),
        schema(json!({"type": "string", "maxLength": u64::MAX})),
        schema(json!({"type": "string", "pattern": "((((a{1,1000}){1,1000}){1,1000}){1,1000})"})),
        schema(json!({"type": "integer", "minimum": -1e18, "maximum": 1e18})),
        ConstraintSource::Lark("start: ".to_owned()),
        schema(json!({"type": "number", "multipleOf": 1e-300})),
        schema(json!({"minProperties": 1_000_000_000u64, "type": "object"})),
        schema(json!({"required": ["a".repeat(60_000)]})),
        ConstraintSource::Regex("(a|aa|aaa)*".repeat(600)),
        ConstraintSource::Regex("((a{1,1000}){1,1000}){1,1000}b".to_owned()),
        ConstraintSource::Regex("x".repeat(8000)),
        ConstraintSource::Regex("a?".repeat(4000)),
        ConstraintSource::Regex("a|".repeat(4000)),
        ConstraintSource::Regex("[^\\p{L}]&&[a-z]".to_owned()),
        ConstraintSource::Regex("(?i)\\p{L}{1,5000}".to_owned()),
        ConstraintSource::Lark(format!("start: r0\n{rules}r600: \"a\"\n")),
        ConstraintSource::Lark(format!("start: r0\n{doubled}r40: \"a\"\n")),
        ConstraintSource::Lark("start: start start | \"a\" | \n".to_owned()),
        ConstraintSource::Lark("start: start\n".to_owned()),
        ConstraintSource::Lark("start: \"a\"{1,1000000000}\n".to_owned()),
        ConstraintSource::Lark(format!("start: {}\n", "\"a\"|".repeat(1900))),
        ConstraintSource::Lark(format!("start: {}\n", "\"a\"? ".repeat(1500))),
    ];
    let compiler = compiler(true);
    for (index, source) in sources.iter().enumerate() {
        let start = Instant::now();
        let compiled = compiler.compile(source);
        let elapsed = start.elapsed();
        println!("{index}: {elapsed:?} {:?}", compiled.as_ref().map(|_| ()));
        assert!(elapsed < Duration::from_secs(5), "source {index} took {elapsed:?}");
        if let Ok(constraint) = compiled {
            let mut matcher = constraint.start();
            let start = Instant::now();
            for _ in 0..50 {
                let Ok(mask) = matcher.mask() else { break };
                let allowed = (3..common::NUM_TOKENS as u32).rev().find(|&t| mask.allows(t));
                let Some(token) = allowed else { break };
                if matcher.accept(token).is_err() || matcher.is_complete() {
                    break;
                }
            }
            println!("    50 tokens: {:?}", start.elapsed());
            assert!(start.elapsed() < Duration::from_secs(10), "source {index}: 50 tokens");
        }
    }
}

#[test]
fn the_cache_is_bounded_in_bytes() {
    let limits = ConstraintLimits { cache_bytes: 1 << 20, ..ConstraintLimits::default() };
    let compiler =
        ConstraintCompiler::new(Arc::new(ToyVocabulary { canonical: true }), limits).unwrap();
    for i in 0..50 {
        compiler.compile(&ConstraintSource::Regex(format!("a{{{i}}}b"))).unwrap();
    }
    let num_cached = compiler.num_cached();
    assert!((1..50).contains(&num_cached), "{num_cached}");
    // The latest is there: a second compilation adds nothing.
    compiler.compile(&ConstraintSource::Regex("a{49}b".to_owned())).unwrap();
    assert_eq!(compiler.num_cached(), num_cached);
}

/// What one compiled constraint takes. A measurement, from which the constants of the cache come:
/// `cargo test -p feilun-infer --test constraint -- --ignored --nocapture memory`
#[test]
#[ignore = "a measurement"]
fn memory_of_a_grammar() {
    let resident_bytes = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let compiler = compiler(true);
    for (name, num_properties) in [("small", 2), ("large", 300)] {
        let build = |i: usize| {
            let names = (0..num_properties).map(|p| {
                (format!("property_{i}_{p}"), json!({"type": "string", "maxLength": 10 + p}))
            });
            json!({"type": "object", "properties": names.collect::<serde_json::Map<_, _>>()})
        };
        let source_bytes = build(100).to_string().len();
        let before = resident_bytes();
        let kept: Vec<_> = (0..100).map(|i| compiler.compile(&schema(build(i))).unwrap()).collect();
        let each = (resident_bytes() - before) / kept.len();
        println!("{name}: {source_bytes} bytes of schema, {each} bytes compiled");
    }
}
