//! Calls of functions in an answer, compared with the calls it should make.
//!
//! Calls are written as the server asks models to write them:
//!
//! ```text
//! <tool_call>
//! {"name": "weather", "arguments": {"city": "Basel"}}
//! </tool_call>
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::not_json;
use super::json_fields::same;
use super::limits::{CALLS_MAX, JSON_ANSWER_BYTES_MAX, check_answer};
use super::{Reference, Score, ScoreError};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// The answer makes the calls of the reference: `{"json": [{"name": ..., "arguments": {...}}]}`,
/// or one call without the list. An empty list: the answer should make none. Text around calls is
/// no mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolCall {
    /// How arguments are compared.
    pub arguments: CompareArguments,
    /// Several calls may come in any order.
    pub any_order: bool,
}

/// How arguments are compared. Numbers are compared by value, `1` equals `1.0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareArguments {
    /// The same arguments with the same values.
    #[default]
    Equal,
    /// Those of the reference; others may be there too.
    Contain,
    /// Names of functions count alone.
    Ignore,
}

#[derive(Debug)]
struct Call {
    name: String,
    arguments: Map<String, Value>,
}

impl ToolCall {
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        wanted_calls(reference).map(drop)
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        check_answer(answer, JSON_ANSWER_BYTES_MAX)?;
        let wanted = wanted_calls(reference)?;
        Ok(Score::verdict(calls(answer).and_then(|made| self.compare(&wanted, &made))))
    }

    fn compare(&self, wanted: &[Call], made: &[Call]) -> Result<(), String> {
        if wanted.len() != made.len() {
            return Err(format!("{} calls, expected {}", made.len(), wanted.len()));
        }
        let wrong = if self.any_order {
            self.unmatched(wanted, made)
        } else {
            wanted.iter().zip(made).position(|(wanted, made)| !self.fits(wanted, made))
        };
        match wrong {
            Some(index) => Err(format!("no call fits that of `{}`", wanted[index].name)),
            None => Ok(()),
        }
    }

    /// A call of the reference that finds no partner when as many as possible do (augmenting
    /// paths): with `contain` a call may fit several.
    fn unmatched(&self, wanted: &[Call], made: &[Call]) -> Option<usize> {
        let mut partners = vec![None; made.len()];
        (0..wanted.len()).find(|&index| {
            let mut tried = vec![false; made.len()];
            !self.find_partner(index, wanted, made, &mut partners, &mut tried)
        })
    }

    fn find_partner(
        &self,
        index: usize,
        wanted: &[Call],
        made: &[Call],
        partners: &mut [Option<usize>],
        tried: &mut [bool],
    ) -> bool {
        for candidate in 0..made.len() {
            if tried[candidate] || !self.fits(&wanted[index], &made[candidate]) {
                continue;
            }
            tried[candidate] = true;
            let is_free = partners[candidate]
                .is_none_or(|other| self.find_partner(other, wanted, made, partners, tried));
            if is_free {
                partners[candidate] = Some(index);
                return true;
            }
        }
        false
    }

    fn fits(&self, wanted: &Call, made: &Call) -> bool {
        let contains = || {
            let mut arguments = wanted.arguments.iter();
            arguments.all(|(name, value)| {
                made.arguments.get(name).is_some_and(|found| same(value, found))
            })
        };
        wanted.name == made.name
            && match self.arguments {
                CompareArguments::Equal => {
                    wanted.arguments.len() == made.arguments.len() && contains()
                }
                CompareArguments::Contain => contains(),
                CompareArguments::Ignore => true,
            }
    }
}

/// The calls of a reference.
fn wanted_calls(reference: &Reference) -> Result<Vec<Call>, ScoreError> {
    let json = reference.json()?;
    let single = std::slice::from_ref(json);
    let values = json.as_array().map_or(single, Vec::as_slice);
    if values.len() > CALLS_MAX {
        let (found, max) = (values.len(), CALLS_MAX);
        return Err(ScoreError::ReferenceTooLarge { found, unit: "calls", max });
    }
    let expected = r#"calls, {"name": TEXT, "arguments": {...}}"#;
    let wrong = || ScoreError::ReferenceKind { found: "another JSON value", expected };
    values.iter().map(|value| call(value).ok_or_else(wrong)).collect()
}

/// The calls of an answer, or why one of them is none.
fn calls(answer: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    let mut rest = answer;
    while let Some((_, after)) = rest.split_once(OPEN) {
        let (body, after) = after.split_once(CLOSE).ok_or("a call is cut off")?;
        if calls.len() == CALLS_MAX {
            return Err(format!("more than {CALLS_MAX} calls"));
        }
        let value: Value = serde_json::from_str(body.trim()).map_err(not_json)?;
        calls.push(call(&value).ok_or("a call without `name` or `arguments`")?);
        rest = after;
    }
    Ok(calls)
}

fn call(value: &Value) -> Option<Call> {
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = value.get("arguments")?.as_object()?.clone();
    Some(Call { name, arguments })
}
