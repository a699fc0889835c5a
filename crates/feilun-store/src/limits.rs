//! How large things may be. Everything that comes from outside is measured against these before
//! it is queued; what the store accepts, it can read back.

use serde_json::Value;

use crate::error::StoreError;

/// Names: of users, keys, aliases, apps, files.
pub const NAME_BYTES_MAX: usize = 255;
/// Free text that is no conversation: titles, reasons, errors.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// One JSON document: the messages of a request, an answer, a demonstration.
pub const JSON_BYTES_MAX: usize = 16 << 20;
/// Nesting of a JSON document. `serde_json` refuses to read more than 128 levels.
pub const JSON_DEPTH_MAX: usize = 100;
/// Tokens of a prompt, and of an answer.
pub const TOKENS_MAX: usize = 1 << 22;
/// Tags of one piece of feedback.
pub const TAGS_MAX: usize = 32;
/// What of a turn can be found by searching.
pub(crate) const SEARCH_TEXT_BYTES_MAX: usize = 32 << 10;
/// What may be searched for.
pub const NEEDLE_BYTES_MAX: usize = 200;
/// Rows of one page.
pub const PAGE_ROWS_MAX: u32 = 1000;

fn invalid(field: &'static str, found: String, expected: String) -> StoreError {
    StoreError::Invalid { field, found, expected }
}

/// A text that is shown in one line: not empty, no control characters.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), StoreError> {
    check_text_length(field, name, NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(invalid(field, "an empty text".to_owned(), "at least one byte".to_owned()));
    }
    // NUL is among these: PostgreSQL has no text with it.
    if let Some(control) = name.chars().find(|character| character.is_control()) {
        return Err(invalid(field, format!("{control:?}"), "no control character".to_owned()));
    }
    Ok(())
}

pub(crate) fn check_name_if_any(field: &'static str, name: Option<&str>) -> Result<(), StoreError> {
    name.map_or(Ok(()), |name| check_name(field, name))
}

pub(crate) fn check_text_length(
    field: &'static str,
    text: &str,
    bytes_max: usize,
) -> Result<(), StoreError> {
    if text.len() > bytes_max {
        let expected = format!("at most {bytes_max} bytes");
        return Err(invalid(field, format!("{} bytes", text.len()), expected));
    }
    Ok(())
}

pub(crate) fn check_count(
    field: &'static str,
    count: usize,
    count_max: usize,
) -> Result<(), StoreError> {
    if count > count_max {
        return Err(invalid(field, count.to_string(), format!("at most {count_max}")));
    }
    Ok(())
}

pub(crate) fn check_finite(field: &'static str, number: f64) -> Result<(), StoreError> {
    if !number.is_finite() {
        return Err(invalid(field, number.to_string(), "a finite number".to_owned()));
    }
    Ok(())
}

/// The text of a JSON document that is not too deep and not too long.
///
/// A document's text has no NUL byte, whatever its strings hold, so every database takes it.
pub(crate) fn json_text(field: &'static str, value: &Value) -> Result<String, StoreError> {
    if !depth_is_within(value, JSON_DEPTH_MAX) {
        let expected = format!("at most {JSON_DEPTH_MAX} levels");
        return Err(invalid(field, "deeper JSON".to_owned(), expected));
    }
    let text = value.to_string();
    check_text_length(field, &text, JSON_BYTES_MAX)?;
    Ok(text)
}

fn depth_is_within(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| depth_is_within(item, left)),
        Value::Object(map) => map.values().all(|item| depth_is_within(item, left)),
        _ => true,
    }
}

/// At most `bytes_max` bytes of `text`, whole characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (1..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn depth_is_bounded_at_the_limit() {
        assert!(json_text("x", &nested(JSON_DEPTH_MAX)).is_ok());
        assert!(json_text("x", &nested(JSON_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn names_have_bounds() {
        assert!(check_name("x", &"a".repeat(NAME_BYTES_MAX)).is_ok());
        for name in ["", "a\0b", "a\nb", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert!(check_name("x", name).is_err(), "{name:?}");
        }
        // Not our business: it is bound as a value, never put into a statement.
        assert!(check_name("x", "'; DROP TABLE turns; --").is_ok());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("飞轮", 4), "飞");
        assert_eq!(shortened("飞轮", 6), "飞轮");
    }
}
