//! JSON of one line, bounded before it is parsed, and errors that name the field.

use serde_json::Value;

use super::error::LineProblem;

/// The most JSON values in a line. A value takes dozens of bytes in memory however few it takes
/// in the file.
const NUM_VALUES_MAX: usize = 1 << 18;

/// Parses a line. `expected` is for the message.
pub(crate) fn parse(line: &[u8], expected: &'static str) -> Result<Value, LineProblem> {
    let text = std::str::from_utf8(line)
        .map_err(|error| LineProblem::NotUtf8 { offset: error.valid_up_to() as u64 })?;
    let num_values = num_values(line);
    if num_values > NUM_VALUES_MAX {
        return Err(LineProblem::TooManyValues { found: num_values, limit: NUM_VALUES_MAX });
    }
    serde_json::from_str(text).map_err(|error| LineProblem::Json {
        column: error.column(),
        reason: without_place(&error),
        expected,
        hint: hint(text),
    })
}

/// At least as many as there are values: marks that begin or part them, outside of strings.
fn num_values(line: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// serde_json counts lines within the text, and ours is always the first.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_string())
}

/// What the file may be instead.
fn hint(text: &str) -> &'static str {
    match text.trim() {
        "[" | "{" => "; the JSON goes over several lines: write each example on one line",
        trimmed if trimmed.starts_with(['{', '[']) => "",
        _ => "; is this a JSONL file?",
    }
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A refusal of a value's type.
pub(crate) fn wrong_type(
    field: impl Into<String>,
    found: &Value,
    expected: &'static str,
) -> LineProblem {
    LineProblem::Type { field: field.into(), found: kind(found), expected }
}

/// A key's value; one that is null counts as absent, as exporters of tables write it.
pub(crate) fn get<'v>(object: &'v serde_json::Map<String, Value>, key: &str) -> Option<&'v Value> {
    object.get(key).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        assert_eq!(num_values(br#"{"a":[1,2,"x,[{\",y"]}"#), 5);
        let many = format!("[{}1]", "1,".repeat(NUM_VALUES_MAX));
        let error = parse(many.as_bytes(), "x").unwrap_err();
        assert!(matches!(error, LineProblem::TooManyValues { .. }), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let error = parse("[".repeat(100_000).as_bytes(), "x").unwrap_err();
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }

    #[test]
    fn messages_say_where_and_what_else_it_may_be() {
        let message = |line: &[u8]| parse(line, "an object").unwrap_err().to_string();
        assert_eq!(
            message(b"{"),
            "not JSON at column 1: EOF while parsing an object; expected an object; the JSON goes \
             over several lines: write each example on one line"
        );
        assert_eq!(
            message(b"{\"a\": 1,}"),
            "not JSON at column 9: trailing comma; expected an object"
        );
        assert_eq!(message(b"{\"a\xff"), "byte 3 is not UTF-8; convert the file to UTF-8");
        assert!(message(b"PK\x03\x04").ends_with("is this a JSONL file?"));
    }
}
