use serde_json::json;

use super::*;

fn scorer(line: serde_json::Value) -> Scorer {
    serde_json::from_value(line).unwrap()
}

fn texts(texts: &[&str]) -> Reference {
    Reference::Texts(texts.iter().map(|&text| text.to_owned()).collect())
}

#[track_caller]
fn value(line: serde_json::Value, reference: &Reference, answer: &str) -> f64 {
    let scorer = scorer(line);
    scorer.check(reference).unwrap();
    let score = scorer.score(reference, answer).unwrap();
    assert_eq!(score.sums.len(), scorer.aggregate().width());
    if scorer.aggregate().width() == 2 {
        assert_eq!(scorer.aggregate().value(&score.sums), score.value);
    }
    score.value
}

#[track_caller]
fn refused(line: serde_json::Value, reference: &Reference) -> String {
    scorer(line).check(reference).unwrap_err().to_string()
}

#[test]
fn scorers_are_read_and_written_and_unknown_settings_refused() {
    for line in [
        json!({"kind": "exact", "normalise": {"nfkc": true, "lowercase": false,
            "drop_punctuation": false, "spaces": "collapse"}}),
        json!({"kind": "bleu", "tokenize": "zh", "lowercase": false}),
        json!({"kind": "tool_call", "arguments": "contain", "any_order": true}),
    ] {
        assert_eq!(serde_json::to_value(scorer(line.clone())).unwrap(), line);
    }
    for line in [
        json!({"kind": "exact", "lower": true}),
        json!({"kind": "bleu", "tokenize": "mecab"}),
        json!({"kind": "guess"}),
        json!({}),
    ] {
        assert!(serde_json::from_value::<Scorer>(line.clone()).is_err(), "{line}");
    }
}

#[test]
fn references_are_read_in_three_forms() {
    let read = |text| serde_json::from_str::<Reference>(text);
    assert_eq!(read(r#""a""#).unwrap(), texts(&["a"]));
    assert_eq!(read(r#"["a", "b"]"#).unwrap(), texts(&["a", "b"]));
    let json = read(r#"{"json": ["a"]}"#).unwrap();
    assert_eq!(json, Reference::Json(json!(["a"])));
    assert_eq!(serde_json::to_value(json).unwrap(), json!({"json": ["a"]}));
    for text in ["1", "[1]", "{}", r#"{"json": 1, "x": 2}"#, r#"{"text": 1}"#, "null"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn exact_match_normalises_what_it_says_and_no_more() {
    let exact = json!({"kind": "exact"});
    assert_eq!(value(exact.clone(), &texts(&["Paris", "巴黎"]), " 巴黎\n"), 1.0);
    assert_eq!(value(exact.clone(), &texts(&["Paris"]), "paris"), 0.0);
    assert_eq!(value(exact.clone(), &texts(&["Paris"]), "Paris."), 0.0);
    assert_eq!(value(exact, &texts(&[""]), " "), 1.0);
    let keep = json!({"kind": "exact", "normalise": {"spaces": "keep"}});
    assert_eq!(value(keep, &texts(&["a"]), "a "), 0.0);
    let all = json!({"kind": "exact", "normalise":
        {"nfkc": true, "lowercase": true, "drop_punctuation": true, "spaces": "remove"}});
    assert_eq!(value(all, &texts(&["ÉTÉ 12"]), "“e\u{301}te\u{301}”: １ 2"), 1.0);
}

#[test]
fn containment_wants_one_or_all() {
    let both = texts(&["red", "blue"]);
    assert_eq!(value(json!({"kind": "contains"}), &both, "a red cup"), 1.0);
    assert_eq!(value(json!({"kind": "contains"}), &both, "a Red cup"), 0.0);
    assert_eq!(value(json!({"kind": "contains", "all": true}), &both, "a red cup"), 0.0);
    assert_eq!(value(json!({"kind": "contains", "all": true}), &both, "blue, red"), 1.0);
}

#[test]
fn patterns_match_or_extract() {
    let none = Reference::default();
    assert_eq!(value(json!({"kind": "regex", "pattern": "^[0-9]+$"}), &none, "42"), 1.0);
    assert_eq!(value(json!({"kind": "regex", "pattern": "^[0-9]+$"}), &none, "42!"), 0.0);
    assert_eq!(value(json!({"kind": "regex"}), &texts(&["x", "(?i)YES"]), "yes"), 1.0);
    let extract =
        |which| json!({"kind": "regex", "pattern": "-?[0-9]+", "extract": {"which": which}});
    assert_eq!(value(extract("first"), &texts(&["3"]), "3 and 4 are 7."), 1.0);
    assert_eq!(value(extract("last"), &texts(&["7"]), "3 and 4 are 7."), 1.0);
    assert_eq!(value(extract("last"), &texts(&["7"]), "seven"), 0.0);
    let group = json!({"kind": "regex", "pattern": "(?i)answer: *(\\w+)|none", "extract":
        {"normalise": {"lowercase": true}}});
    assert_eq!(value(group.clone(), &texts(&["b"]), "Answer: B"), 1.0);
    // The group took no part.
    assert_eq!(value(group, &texts(&["b"]), "none"), 0.0);
}

#[test]
fn json_is_judged_by_the_standard() {
    let valid = |answer: &str| value(json!({"kind": "json_valid"}), &Reference::default(), answer);
    for answer in ["{}", " [1, 2.5e3, null]\n", "\"\\u0041\"", "1"] {
        assert_eq!(valid(answer), 1.0, "{answer}");
    }
    for answer in ["", "{} {}", "{'a': 1}", "[1,]", "NaN", "01", "\"\t\"", "```json\n{}\n```"] {
        assert_eq!(valid(answer), 0.0, "{answer}");
    }
    let fenced = json!({"kind": "json_valid", "fenced": true});
    for answer in ["Here:\n```json\n{}\n```\nDone", "```\n1\n```", "{}", "```json\n{}"] {
        assert_eq!(value(fenced.clone(), &Reference::default(), answer), 1.0, "{answer}");
    }
}

#[test]
fn fields_are_compared_by_value() {
    let reference = Reference::Json(json!({"a": 1, "b": {"c": [1, 2], "d/e": "x"}, "f": {}}));
    let right = r#"{"f": {}, "b": {"d/e": "x", "c": [1, 2.0], "new": 0}, "a": 1.0}"#;
    let wrong = r#"{"a": "1", "b": {"c": [2, 1], "d/e": "x"}, "f": {}}"#;
    let all = json!({"kind": "json_fields"});
    assert_eq!(value(all.clone(), &reference, right), 1.0);
    assert_eq!(value(all.clone(), &reference, wrong), 0.0);
    assert_eq!(value(all.clone(), &reference, "{"), 0.0);
    let partial = json!({"kind": "json_fields", "partial": true});
    assert_eq!(value(partial, &reference, wrong), 0.5);
    let strict = json!({"kind": "json_fields", "partial": true, "allow_extra": false});
    assert_eq!(value(strict, &reference, right), 0.8);
    let some = json!({"kind": "json_fields", "fields": ["/b/d~1e"]});
    assert_eq!(value(some, &reference, wrong), 1.0);
    let score = scorer(all).score(&reference, wrong).unwrap();
    assert_eq!(score.note.unwrap(), "2 of 4 fields are wrong, `/a` first");
    let large = Reference::Json(json!({"n": 9_007_199_254_740_993_u64}));
    assert_eq!(value(json!({"kind": "json_fields"}), &large, r#"{"n": 9007199254740992}"#), 0.0);
}

#[test]
fn calls_are_compared_by_name_and_arguments() {
    let weather =
        r#"<tool_call>{"name": "weather", "arguments": {"city": "Basel", "days": 2}}</tool_call>"#;
    let time = "<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";
    let both = Reference::Json(json!([
        {"name": "weather", "arguments": {"days": 2.0, "city": "Basel"}},
        {"name": "time", "arguments": {}},
    ]));
    let call = json!({"kind": "tool_call"});
    assert_eq!(value(call.clone(), &both, &format!("Let me see. {weather}\n{time}")), 1.0);
    assert_eq!(value(call.clone(), &both, &format!("{time}{weather}")), 0.0);
    let any = json!({"kind": "tool_call", "any_order": true});
    assert_eq!(value(any, &both, &format!("{time}{weather}")), 1.0);

    let one = Reference::Json(json!({"name": "weather", "arguments": {"city": "Basel"}}));
    assert_eq!(value(call.clone(), &one, weather), 0.0);
    assert_eq!(value(json!({"kind": "tool_call", "arguments": "contain"}), &one, weather), 1.0);
    assert_eq!(value(json!({"kind": "tool_call", "arguments": "ignore"}), &one, time), 0.0);
    let none = Reference::Json(json!([]));
    assert_eq!(value(call.clone(), &none, "No call."), 1.0);
    assert_eq!(value(call.clone(), &none, time), 0.0);
    for broken in ["<tool_call>{}", "<tool_call>oops</tool_call>", "<tool_call>{}</tool_call>"] {
        assert_eq!(value(call.clone(), &none, broken), 0.0, "{broken}");
    }
}

#[test]
fn calls_in_any_order_find_the_partners_that_leave_none_alone() {
    let wanted = Reference::Json(json!([
        {"name": "f", "arguments": {"x": 1}},
        {"name": "f", "arguments": {"x": 1, "y": 2}},
    ]));
    let scorer = json!({"kind": "tool_call", "any_order": true, "arguments": "contain"});
    let call =
        |arguments| format!(r#"<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>"#);
    // The first wanted call fits both, and must leave the first made one to the second.
    let made = call(r#"{"x": 1, "y": 2}"#) + &call(r#"{"x": 1}"#);
    assert_eq!(value(scorer, &wanted, &made), 1.0);
}

#[test]
fn what_is_wrong_with_a_scorer_or_reference_is_said_beforehand() {
    let exact = json!({"kind": "exact"});
    assert_eq!(refused(exact.clone(), &texts(&[])), "reference: found none, expected texts");
    assert_eq!(
        refused(exact.clone(), &Reference::Json(json!(1))),
        "reference: found a JSON value, expected texts"
    );
    let many = Reference::Texts(vec!["a".to_owned(); 65]);
    assert_eq!(refused(exact, &many), "references: found 65 texts, at most 64 are allowed");
    let long = Reference::Texts(vec!["a".repeat(5 << 20)]);
    assert!(refused(json!({"kind": "chrf"}), &long).contains("bytes, at most 4194304"));
    for line in [json!({"kind": "bleu"}), json!({"kind": "chrf"}), json!({"kind": "contains"})] {
        assert_eq!(refused(line, &texts(&["a", " \u{3000}"])), "reference 1 is empty");
    }
    assert_eq!(
        refused(json!({"kind": "chrf", "char_order": 7}), &texts(&["a"])),
        "`char_order`: found 7, expected 1 to 6"
    );
    assert!(refused(json!({"kind": "regex", "pattern": "("}), &texts(&[])).contains("`(`"));
    assert!(
        refused(json!({"kind": "regex", "pattern": "\\w{1000}"}), &texts(&[])).contains("w{1000}")
    );
    assert!(refused(json!({"kind": "regex"}), &texts(&["["])).contains("`[`"));
    assert!(refused(json!({"kind": "regex", "extract": {}}), &texts(&["a"])).contains("pattern"));
    assert!(refused(json!({"kind": "json_fields"}), &texts(&["{}"])).contains("JSON value"));
    let fields = json!({"kind": "json_fields", "fields": ["/x"]});
    assert!(refused(fields, &Reference::Json(json!({"a": 1}))).contains("/x"));
    for call in [json!("f"), json!({"name": "f"}), json!([{"name": 1, "arguments": {}}])] {
        let said = refused(json!({"kind": "tool_call"}), &Reference::Json(call));
        assert!(said.contains("calls"), "{said}");
    }
}

/// Answers of 10 MB: scored, or refused with a reason.
#[test]
fn long_answers_are_scored_or_refused_by_name() {
    let long = "ab, ".repeat(10_000_000 / 4);
    let reference = texts(&["ab, ab"]);
    for (line, expected) in [
        (json!({"kind": "exact"}), 0.0),
        (json!({"kind": "contains"}), 1.0),
        (json!({"kind": "regex", "pattern": "b, $"}), 1.0),
        (json!({"kind": "regex", "pattern": "(ab, )*x"}), 0.0),
        (json!({"kind": "json_valid"}), 0.0),
    ] {
        assert_eq!(value(line.clone(), &reference, &long), expected, "{line}");
    }
    // Neither is 0: a few n-grams are right.
    for line in [json!({"kind": "bleu"}), json!({"kind": "chrf", "char_order": 2})] {
        let found = value(line.clone(), &reference, &long);
        assert!(found > 0.0 && found < 1.0, "{line}: {found}");
    }
    let too_long = |line, reference: &Reference, answer: &str| {
        let error = scorer(line).score(reference, answer).unwrap_err();
        assert!(matches!(error, ScoreError::AnswerTooLong { .. }), "{error}");
    };
    let last = json!({"kind": "regex", "pattern": "a", "extract": {"which": "last"}});
    too_long(last.clone(), &reference, &long);
    too_long(json!({"kind": "json_fields"}), &Reference::Json(json!({})), &long);
    too_long(json!({"kind": "tool_call"}), &Reference::Json(json!([])), &long);
    too_long(json!({"kind": "chrf"}), &texts(&["a", "b"]), &long);
    too_long(json!({"kind": "exact"}), &reference, &long.repeat(2));
    let error = scorer(last).score(&reference, &"a".repeat(10_001)).unwrap_err();
    assert!(matches!(error, ScoreError::TooManyMatches { max: 10_000 }), "{error}");
}

#[test]
fn json_may_nest_as_deep_as_it_likes() {
    let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
    assert_eq!(value(json!({"kind": "json_valid"}), &Reference::default(), &deep), 1.0);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let fields = scorer(json!({"kind": "json_fields"}));
    let score = fields.score(&Reference::Json(json!({"a": 1})), &deep).unwrap();
    assert_eq!(score.value, 0.0);
    assert!(score.note.unwrap().starts_with("not JSON: recursion limit"));
}

#[test]
fn notes_are_short_whatever_the_answer_is() {
    let extract = scorer(json!({"kind": "regex", "pattern": ".*", "extract": {}}));
    let score = extract.score(&texts(&["a"]), &"é".repeat(1_000_000)).unwrap();
    assert_eq!(score.note.unwrap().chars().count(), limits::NOTE_CHARS_MAX + 1);
}
