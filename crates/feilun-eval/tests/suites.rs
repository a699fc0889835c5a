//! Suites from files: what is read, and what is refused with its line and its reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use feilun_eval::suite::{Item, LINE_BYTES_MAX, Prompt, Suite, SuiteError, Task, names};

fn read(text: &str) -> Result<Suite, SuiteError> {
    Suite::read(text.as_bytes(), "file").unwrap()
}

/// An error and its causes.
fn said(error: &SuiteError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if !text.ends_with(&cause.to_string()) {
            text += &format!(": {cause}");
        }
        source = cause.source();
    }
    text
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let found = said(&read(text).unwrap_err());
    assert!(found.starts_with(expected), "found:    {found}\nexpected: {expected}");
}

const GOOD: &str = r#"{"id":"a","prompt":"p","reference":["r"],"scorer":{"kind":"exact"}}"#;

#[test]
fn all_tasks_with_a_header() {
    let suite = read(
        r#"{"suite":"all","scorer":{"kind":"exact"},"max_tokens":7,"stop":["\n"]}

{"id":"a","prompt":"p","reference":["r"],"skill":"s","cluster":"c"}
{"id":"b","messages":[{"role":"user","content":"u"}],"reference":"r","max_tokens":9}
{"id":"c","prompt":"","choices":["x","y"],"answer":1}
{"id":"d","text":"t"}
{"id":"e","prompt":"p","chosen":"x","rejected":"y"}
{"id":"f","prompt":"p","first":"x","second":"y","label":"tie"}
"#,
    )
    .unwrap();
    assert_eq!(suite.name(), "all");
    let kinds: Vec<_> = suite.items().iter().map(|item| item.task.kind()).collect();
    let expected =
        ["generate", "generate", "multiple_choice", "bits_per_byte", "preference", "judge"];
    assert_eq!(kinds, expected);
    assert_eq!(suite.items()[0].skill.as_deref(), Some("s"));
    assert_eq!((suite.max_tokens(None), suite.max_tokens(Some(9))), (7, 9));
    let Task::Generate { prompt: Prompt::Chat { messages, .. }, .. } = &suite.items()[1].task
    else {
        panic!("{:?}", suite.items()[1]);
    };
    assert_eq!(messages[0].content, "u");
    // Different tasks have the score in common.
    assert_eq!(suite.metrics()[0].name, names::SCORE);
}

#[test]
fn what_is_written_is_read_again() {
    let suite =
        read(&format!("{{\"suite\":\"s\",\"metric\":\"acc_norm\"}}\n{}\n", choices())).unwrap();
    assert_eq!(suite.metrics()[0].name, names::ACC_NORM);
    let again = read(&suite.to_lines()).unwrap();
    assert_eq!(again, suite);
    // The digest is of the content, not of how it is written.
    let spaced = suite.to_lines().replace(',', " , ").replace('\n', "\n\n");
    assert_eq!(read(&spaced).unwrap().digest(), suite.digest());
    let other = suite.to_lines().replace("\"answer\":1", "\"answer\":0");
    assert_ne!(read(&other).unwrap().digest(), suite.digest());
    let items: Vec<Item> = suite.items().to_vec();
    assert_eq!(Suite::new(suite.header().clone(), items).unwrap(), suite);
}

fn choices() -> &'static str {
    r#"{"id":"c","prompt":"p","choices":["x","y"],"answer":1}"#
}

#[test]
fn lines_that_are_no_items() {
    refused("", "the suite has no items");
    refused("{\"suite\":\"s\"}\n", "the suite has no items");
    refused("[1]", "line 1: ");
    refused("{", "line 1: not JSON: EOF");
    refused(&format!("{GOOD}\nnull\n"), "line 2: invalid type: null");
    refused(r#"{"prompt":"p","reference":["r"]}"#, "line 1: `id` is missing");
    refused(r#"{"id":"","text":"t"}"#, "line 1: `id` is empty");
    refused(r#"{"id":7,"text":"t"}"#, "line 1: invalid type: integer `7`");
    refused(r#"{"id":"a"}"#, "line 1: no task");
    refused(r#"{"id":"a","prompt":"p","answers":[]}"#, "line 1: unknown field `answers`");
    refused(
        &format!("{GOOD}\n{{\"id\":\"b\",\"text\":\"t\"}}\n\n{GOOD}"),
        "line 4: the id `a` was given before, in line 1",
    );
    let long = format!(r#"{{"id":"{}","text":"t"}}"#, "x".repeat(300));
    refused(&long, "line 1: `id` has 300 bytes, at most 256 are allowed");
    let huge = format!("{GOOD}\n{{\"id\":\"b\",\"text\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX));
    refused(&huge, "line 2 has ");
    refused(r#"{"id":"a\u001b[2J","text":"t"}"#, "line 1: `id` has a control character");
    // A second header is no item.
    refused("{\"suite\":\"s\"}\n{\"suite\":\"s\"}", "line 2: unknown field `suite`");
    refused("{\"suite\":\"s\",\"sewer\":1}", "line 1: unknown field `sewer`");
    refused(&format!("{{\"suite\":\"s\",\"max_tokens\":0}}\n{GOOD}"), "line 1: `max_tokens` is 0");
}

#[test]
fn deep_nesting_does_not_break_the_reader() {
    let deep = format!(r#"{{"id":"a","tools":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    refused(&deep, "line 1: not JSON: recursion limit");
}

#[test]
fn tasks_that_cannot_be_asked() {
    refused(r#"{"id":"a","prompt":"p","reference":["r"]}"#, "line 1: no `scorer`");
    refused(
        r#"{"id":"a","reference":["r"],"scorer":{"kind":"exact"}}"#,
        "line 1: `prompt or messages` is missing",
    );
    refused(
        r#"{"id":"a","prompt":"","reference":["r"],"scorer":{"kind":"exact"}}"#,
        "line 1: `prompt` is empty",
    );
    refused(
        r#"{"id":"a","prompt":"p","messages":[],"reference":["r"]}"#,
        "line 1: both `prompt` and `messages`",
    );
    refused(
        r#"{"id":"a","messages":[],"reference":["r"],"scorer":{"kind":"exact"}}"#,
        "line 1: `messages`: a conversation needs",
    );
    refused(
        r#"{"id":"a","messages":[{"role":"king","content":""}],"reference":["r"]}"#,
        "line 1: unknown variant `king`",
    );
    refused(r#"{"id":"a","prompt":"p","choices":["x"],"answer":0}"#, "line 1: `choices`: found 1");
    refused(
        r#"{"id":"a","prompt":"p","choices":["x",""],"answer":0}"#,
        "line 1: `choices` is empty",
    );
    refused(r#"{"id":"a","prompt":"p","choices":["x","y"],"answer":2}"#, "line 1: `answer` is 2");
    refused(r#"{"id":"a","prompt":"p","choices":["x","y"],"answer":-1}"#, "line 1: invalid value");
    refused(r#"{"id":"a","prompt":"p","choices":["x","y"]}"#, "line 1: `answer` is missing");
    refused(
        r#"{"id":"a","prompt":"p","choices":["x","y"],"answer":0,"stop":["z"]}"#,
        "line 1: `stop` has no meaning in a task of the kind multiple_choice",
    );
    refused(r#"{"id":"a","text":"t","prompt":"p"}"#, "line 1: `prompt` has no meaning");
    refused(r#"{"id":"a","text":""}"#, "line 1: `text` is empty");
    refused(r#"{"id":"a","prompt":"p","chosen":"x"}"#, "line 1: `rejected` is missing");
    refused(
        r#"{"id":"a","prompt":"p","first":"x","second":"y","label":"third"}"#,
        "line 1: unknown variant `third`",
    );
}

#[test]
fn what_a_scorer_objects_to_is_said_before_anything_is_generated() {
    let item = |reference: &str, scorer: &str| {
        format!(r#"{{"id":"a","prompt":"p","reference":{reference},"scorer":{scorer}}}"#)
    };
    refused(&item("[]", r#"{"kind":"exact"}"#), "line 1: reference: found none, expected texts");
    refused(&item("[\"r\"]", r#"{"kind":"magic"}"#), "line 1: unknown variant `magic`");
    // The same where the scorer is the suite's.
    let header = "{\"suite\":\"s\",\"scorer\":{\"kind\":\"exact\"}}\n";
    let bare = r#"{"id":"a","prompt":"p","reference":[]}"#;
    refused(&format!("{header}{bare}"), "line 2: reference: found none");
}

#[test]
fn metrics_follow_from_the_tasks() {
    let first = |text: &str| read(text).unwrap().metrics()[0].clone();
    assert_eq!(first(GOOD).name, names::SCORE);
    assert_eq!(first(choices()).name, names::ACC);
    let bits = first(r#"{"id":"d","text":"t"}"#);
    assert_eq!((bits.name.as_str(), bits.higher_is_better), (names::BITS_PER_BYTE, false));
    let chrf = r#"{"id":"x","prompt":"p","reference":["r"],"scorer":{"kind":"chrf"}}"#;
    assert_eq!(first(chrf).name, names::CHRF);
    refused(
        &format!("{{\"suite\":\"s\",\"metric\":\"f1\"}}\n{GOOD}"),
        "line 1: `metric` is `f1`, which no item of this suite has; expected one of score",
    );
}

#[test]
fn a_byte_order_mark_is_no_item() {
    assert_eq!(read(&format!("\u{feff}{GOOD}\r\n")).unwrap().items().len(), 1);
}
