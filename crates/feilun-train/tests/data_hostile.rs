//! Bad data: every refusal names the file, the line, what was found and what was expected.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use common::{chat_line, file, renderer};
use feilun_train::data::{BadLines, DataError, Examples, ReadOptions, Shape};

fn read(contents: impl AsRef<[u8]>, options: ReadOptions) -> Result<Examples, String> {
    let (folder, path) = file(contents);
    let found = Examples::open(&[path], renderer(), options, &mut |_, _| ());
    // The folder has another name each time.
    let name = folder.path().display().to_string();
    found.map_err(|error| error.to_string().replace(&name, "."))
}

#[track_caller]
fn refused(contents: impl AsRef<[u8]>, expected: &str) {
    let error = read(contents, ReadOptions::new(Shape::Chat)).unwrap_err();
    assert_eq!(error, expected);
}

fn good() -> String {
    chat_line("2+2?", "4")
}

const MEND: &str = "; correct the line, or choose to skip bad lines";

#[test]
fn the_line_is_named_and_what_was_expected() {
    let shape = r#"{"messages":[..]}"#;
    refused(
        format!("{0}{0}{{\"messages\": [\n", good()),
        &format!(
            "`./data.jsonl` line 3: not JSON at column 14: EOF while parsing a list; expected \
             {shape}{MEND}"
        ),
    );
    refused(
        [good().as_bytes(), b"\n", b"{\"a\": \"\xff\"}\n"].concat(),
        &format!("`./data.jsonl` line 3: byte 7 is not UTF-8; convert the file to UTF-8{MEND}"),
    );
    refused(
        format!("{}{}", good(), r#"{"messages":{"role":"user"}}"#),
        &format!("`./data.jsonl` line 2: messages is an object, expected a list of messages{MEND}"),
    );
}

#[test]
fn roles_out_of_order_are_refused() {
    let line = |roles: &[&str]| {
        let messages: Vec<_> =
            roles.iter().map(|role| serde_json::json!({"role": role, "content": "x"})).collect();
        serde_json::json!({ "messages": messages }).to_string()
    };
    refused(
        line(&["user", "system", "assistant"]),
        &format!(
            "`./data.jsonl` line 1: message 1 has the role system, expected user, assistant or \
             tool (a system message comes first){MEND}"
        ),
    );
    refused(
        line(&["user", "tool", "assistant"]),
        &format!(
            "`./data.jsonl` line 1: message 1 has the role tool, expected something else (a tool \
             answers an assistant that calls it){MEND}"
        ),
    );
}

#[test]
fn empty_data_is_refused() {
    let shape = r#"{"messages":[..]}"#;
    let expected = |blank| {
        format!(
            "no examples in `./data.jsonl`: found {blank} blank and 0 bad lines, expected at least \
             one line with {shape}"
        )
    };
    refused("", &expected(0));
    refused("\n \r\n\t\n", &expected(3));
    refused(b"\xef\xbb\xbf\n", &expected(1));
    let none = Examples::open(&[], renderer(), ReadOptions::new(Shape::Chat), &mut |_, _| ());
    assert!(none.unwrap_err().to_string().starts_with("no examples in no files"));
}

#[test]
fn a_long_line_is_refused_without_being_read_into_memory() {
    let long = chat_line("x", &"y".repeat(100 << 20));
    let contents = format!("{}{long}{}", good(), good());
    let num_bytes = long.len() - 1;
    refused(
        &contents,
        &format!("`./data.jsonl` line 2: {num_bytes} bytes long, expected at most 8388608{MEND}"),
    );
    let options = ReadOptions { bad_lines: BadLines::Skip, ..ReadOptions::new(Shape::Chat) };
    let examples = read(&contents, options).unwrap();
    assert_eq!((examples.len(), examples.report().num_skipped), (2, 1));
    assert_eq!(examples.location(1).1, 3);
}

#[test]
fn bad_lines_are_skipped_if_asked_and_counted() {
    let mut contents = good();
    for _ in 0..150 {
        contents += "{\"messages\": 1}\n";
    }
    contents += "\n";
    contents += &good();
    let options = ReadOptions { bad_lines: BadLines::Skip, ..ReadOptions::new(Shape::Chat) };
    let examples = read(contents, options).unwrap();
    let report = examples.report();
    assert_eq!((examples.len(), report.num_lines), (2, 153));
    assert_eq!((report.num_blank, report.num_skipped, report.skipped.len()), (1, 150, 100));
    assert_eq!(report.skipped[0].line, 2);
    assert_eq!(report.skipped[0].problem, "messages is a number, expected a list of messages");

    // Nothing but bad lines is still no data.
    let error = read("{}\n[]\n", options).unwrap_err();
    assert!(error.contains("0 blank and 2 bad lines"), "{error}");
}

#[test]
fn hostile_json_is_refused() {
    for (line, expected) in [
        ("[".repeat(10_000), "recursion limit exceeded"),
        (format!("{{\"messages\":[{}1]}}", "1,".repeat(1 << 20)), "JSON values, expected at most"),
        (
            format!("{{\"messages\":[{}]}}", r#"{"role":"user","content":""},"#.repeat(5000) + "1"),
            "messages[5000] is a number",
        ),
        (r#"{"messages":[{"role":"assistant","content":"\ud800"}]}"#.into(), "hex escape"),
        ("null".into(), "the line is null"),
        ("\0".into(), "not JSON"),
        ("PAR1".into(), "is this a JSONL file?"),
    ] {
        let error = read(line, ReadOptions::new(Shape::Chat)).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(error.len() < 400, "a message is short whatever the line is: {}", error.len());
    }
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions::new(Shape::Chat);
    for path in [folder.path().to_owned(), folder.path().join("absent.jsonl"), "/dev/null".into()] {
        let error = Examples::open(&[path], renderer(), options, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, DataError::Read { .. }), "{error}");
    }
}

#[test]
fn a_file_that_changes_under_a_run_is_noticed() {
    let (_folder, path) = file(good() + &chat_line("3+3?", "6"));
    let options = ReadOptions::new(Shape::Chat);
    let paths = std::slice::from_ref(&path);
    let examples = Examples::open(paths, renderer(), options, &mut |_, _| ()).unwrap();
    let before = examples.render(1).unwrap();

    let appended = std::fs::read_to_string(&path).unwrap() + "{}\n";
    std::fs::write(&path, appended).unwrap();
    assert_eq!(examples.render(1).unwrap(), before, "what comes behind changes nothing");

    std::fs::write(&path, good() + &chat_line("3+3?", "7")).unwrap();
    let error = examples.render(1).unwrap_err().to_string();
    assert!(error.contains("line 2 is not what it was when the run began"), "{error}");
    std::fs::write(&path, good()).unwrap();
    let error = examples.render(1).unwrap_err();
    assert!(matches!(error, DataError::Changed { line: 2, .. }), "{error}");
}

#[test]
fn files_of_other_systems_are_read() {
    let contents = format!("\u{feff}{}", good().replace('\n', "\r\n"));
    let examples = read(&contents, ReadOptions::new(Shape::Chat)).unwrap();
    let plain = read(good(), ReadOptions::new(Shape::Chat)).unwrap();
    assert_eq!(examples.render(0).unwrap(), plain.render(0).unwrap());
    assert_ne!(examples.digest(), plain.digest());
    let without_end = read(good().trim_end(), ReadOptions::new(Shape::Chat)).unwrap();
    assert_eq!(without_end.len(), 1);
}
