//! What an answer is compared with.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::ScoreError;
use super::limits::{REFERENCE_BYTES_MAX, REFERENCES_MAX};

/// The reference of an item.
///
/// In a file: a text, a list of texts of which any will do, or `{"json": ...}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// Texts; none for scorers that need no reference.
    Texts(Vec<String>),
    /// A JSON value: the fields of an answer, or the calls it should make.
    Json(Value),
}

impl Default for Reference {
    fn default() -> Reference {
        Reference::Texts(Vec::new())
    }
}

impl Reference {
    fn kind(&self) -> &'static str {
        match self {
            Reference::Texts(texts) if texts.is_empty() => "none",
            Reference::Texts(_) => "texts",
            Reference::Json(_) => "a JSON value",
        }
    }

    /// The texts, of which there must be at least one.
    pub(super) fn texts(&self) -> Result<&[String], ScoreError> {
        match self {
            Reference::Texts(texts) if !texts.is_empty() => Ok(texts),
            _ => Err(ScoreError::ReferenceKind { found: self.kind(), expected: "texts" }),
        }
    }

    pub(super) fn json(&self) -> Result<&Value, ScoreError> {
        match self {
            Reference::Json(value) => Ok(value),
            Reference::Texts(_) => {
                let expected = r#"a JSON value, {"json": ...}"#;
                Err(ScoreError::ReferenceKind { found: self.kind(), expected })
            }
        }
    }

    /// The texts, checked: not too many, not too long, and none that `is_empty`.
    pub(super) fn check_texts(&self, is_empty: impl Fn(&str) -> bool) -> Result<(), ScoreError> {
        let texts = self.texts()?;
        if texts.len() > REFERENCES_MAX {
            let (found, max) = (texts.len(), REFERENCES_MAX);
            return Err(ScoreError::ReferenceTooLarge { found, unit: "texts", max });
        }
        let bytes: usize = texts.iter().map(String::len).sum();
        if bytes > REFERENCE_BYTES_MAX {
            let max = REFERENCE_BYTES_MAX;
            return Err(ScoreError::ReferenceTooLarge { found: bytes, unit: "bytes", max });
        }
        match texts.iter().position(|text| is_empty(text)) {
            Some(index) => Err(ScoreError::EmptyReference { index }),
            None => Ok(()),
        }
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reference::Texts(texts) => texts.serialize(serializer),
            Reference::Json(value) => json!({ "json": value }).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let expected = r#"a reference is a text, a list of texts or {"json": ...}"#;
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Reference::Texts(vec![text])),
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text),
                    _ => Err(D::Error::custom(expected)),
                })
                .collect::<Result<_, _>>()
                .map(Reference::Texts),
            Value::Object(mut fields) if fields.len() == 1 => {
                fields.remove("json").map(Reference::Json).ok_or(D::Error::custom(expected))
            }
            _ => Err(D::Error::custom(expected)),
        }
    }
}
