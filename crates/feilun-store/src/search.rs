//! Searching in what was said, the same in both databases: a text is brought to lower case when
//! it is stored, and what is searched for when it is searched, so the databases compare bytes.

use serde_json::Value as Json;

use crate::error::StoreError;
use crate::limits::{NEEDLE_BYTES_MAX, SEARCH_TEXT_BYTES_MAX, check_text_length};

/// The text of a message in OpenAI's shape, or of a text; empty where there is none.
pub(crate) fn spoken_text(message: &Json) -> String {
    let content = message.get("content").unwrap_or(message);
    match content {
        Json::String(text) => text.clone(),
        Json::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Json::as_str));
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// These texts, as they are stored to be found.
pub(crate) fn searchable(texts: &[&str]) -> String {
    let mut found_by = String::new();
    for text in texts {
        let text = crate::limits::shortened(text, SEARCH_TEXT_BYTES_MAX);
        // PostgreSQL has no text with a NUL byte.
        found_by.push_str(&text.to_lowercase().replace('\0', " "));
        found_by.push('\n');
    }
    found_by
}

/// A pattern for `LIKE ... ESCAPE '!'` that finds `needle` anywhere.
pub(crate) fn pattern(needle: &str) -> Result<String, StoreError> {
    check_text_length("search", needle, NEEDLE_BYTES_MAX)?;
    let mut pattern = String::from("%");
    for character in needle.to_lowercase().replace('\0', " ").chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_said_is_found_in_every_shape() {
        assert_eq!(spoken_text(&json!("prompt")), "prompt");
        assert_eq!(spoken_text(&json!({"role": "user", "content": "hello"})), "hello");
        let parts = json!({"content": [{"type": "text", "text": "a"}, {"type": "image"}]});
        assert_eq!(spoken_text(&parts), "a");
        assert_eq!(spoken_text(&json!({"content": null})), "");
        assert_eq!(spoken_text(&json!(7)), "");
    }

    #[test]
    fn signs_of_the_pattern_are_plain_characters() {
        assert_eq!(pattern("50%_Ä!").unwrap(), "%50!%!_ä!!%");
    }
}
