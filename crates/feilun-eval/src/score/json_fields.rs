//! Fields of a JSON answer, compared with those of a reference.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{not_json, unfenced};
use super::limits::{JSON_ANSWER_BYTES_MAX, check_answer};
use super::{Reference, Score, ScoreError};

/// The answer is a JSON text with the reference's fields, each with the same value.
///
/// A field is what is not an object itself, named by its JSON pointer (`/address/city`): lists are
/// compared whole. Numbers are compared by value, `1` equals `1.0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonFields {
    /// The fields that count, as JSON pointers; without any, all of the reference.
    pub fields: Vec<String>,
    /// The score is the share of fields that are right; else it is 1 only when all are.
    pub partial: bool,
    /// Fields that the reference does not have are no mistake. They are looked for only where all
    /// fields count.
    pub allow_extra: bool,
    /// Where the answer has a Markdown code block, the first one is read instead of all of it.
    pub fenced: bool,
}

impl Default for JsonFields {
    fn default() -> JsonFields {
        JsonFields { fields: Vec::new(), partial: false, allow_extra: true, fenced: false }
    }
}

impl JsonFields {
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        let json = reference.json()?;
        if let Some(missing) = self.fields.iter().find(|field| json.pointer(field).is_none()) {
            return Err(ScoreError::Setting {
                setting: "fields",
                found: format!("{missing:?}"),
                expected: "JSON pointers to fields of every reference".to_owned(),
            });
        }
        Ok(())
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        check_answer(answer, JSON_ANSWER_BYTES_MAX)?;
        self.check(reference)?;
        let wanted = reference.json()?;
        let text = if self.fenced { unfenced(answer) } else { answer };
        let found: Value = match serde_json::from_str(text) {
            Ok(found) => found,
            Err(error) => return Ok(Score::item(0.0, Some(not_json(error)))),
        };
        let mut fields = self.fields.clone();
        if fields.is_empty() {
            list_fields(wanted, &mut String::new(), &mut fields);
        }
        let wrong: Vec<&String> = fields
            .iter()
            .filter(|field| !same_field(wanted.pointer(field), found.pointer(field)))
            .collect();
        let mut num_extra = 0;
        if !self.allow_extra && self.fields.is_empty() {
            let mut others = Vec::new();
            list_fields(&found, &mut String::new(), &mut others);
            num_extra = others.iter().filter(|field| wanted.pointer(field).is_none()).count();
        }
        let num_wrong = wrong.len() + num_extra;
        let note = wrong.first().map_or_else(
            || format!("{num_extra} fields that the reference does not have"),
            |first| {
                format!("{} of {} fields are wrong, `{first}` first", wrong.len(), fields.len())
            },
        );
        let share = 1.0 - num_wrong as f64 / (fields.len() + num_extra).max(1) as f64;
        let value = if self.partial { share } else { f64::from(u8::from(num_wrong == 0)) };
        Ok(Score::item(value, (num_wrong > 0).then_some(note)))
    }
}

/// The pointers of all values that are no objects with fields, in order. Depth is bounded by
/// the JSON reader (128).
fn list_fields(value: &Value, at: &mut String, fields: &mut Vec<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                let len = at.len();
                at.push('/');
                *at += &name.replace('~', "~0").replace('/', "~1");
                list_fields(value, at, fields);
                at.truncate(len);
            }
        }
        _ => fields.push(at.clone()),
    }
}

fn same_field(wanted: Option<&Value>, found: Option<&Value>) -> bool {
    matches!((wanted, found), (Some(wanted), Some(found)) if same(wanted, found))
}

/// Equal but for how a number is written.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            // Large integers differ in digits that f64 does not have.
            left == right || (left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| same_field(Some(value), right.get(name)))
        }
        _ => left == right,
    }
}
