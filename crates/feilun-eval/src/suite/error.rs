//! What may be wrong with a suite.

use std::path::PathBuf;

use super::item::{CHOICES_MAX, MAX_TOKENS_MAX};
use crate::score::ScoreError;

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SuiteError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("line {line} has {found} bytes, at most {max} are read")]
    LineTooLong { line: u64, found: u64, max: usize },
    #[error("more than {max} {what}")]
    TooMany { what: &'static str, max: usize },
    #[error("line {line}: not JSON: {reason}")]
    Json { line: u64, reason: String },
    #[error("line {line}: {problem}")]
    Header {
        line: u64,
        #[source]
        problem: ItemProblem,
    },
    #[error("line {line}: {problem}")]
    Item {
        line: u64,
        #[source]
        problem: ItemProblem,
    },
    #[error("line {line}: the id `{id}` was given before, in line {before}")]
    IdTwice { line: u64, id: String, before: u64 },
    #[error("the suite has no items")]
    NoItems,
}

/// What is wrong with one item, or with a suite's header.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ItemProblem {
    #[error("{reason}")]
    Shape { reason: String },
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{field}` is empty")]
    Empty { field: &'static str },
    #[error("`{field}` has {found} bytes, at most {max} are allowed")]
    TooLong { field: &'static str, found: usize, max: usize },
    #[error("`{field}` has a control character")]
    Control { field: &'static str },
    #[error(
        "no task: expected one of `reference`, `choices`, `text`, `chosen` and `rejected`, `first` \
         and `second`"
    )]
    NoTask,
    #[error("both `prompt` and `messages`, expected one of them")]
    TwoPrompts,
    #[error("`{field}` has no meaning in a task of the kind {task}")]
    Foreign { field: &'static str, task: &'static str },
    #[error("`choices`: found {found}, expected 2 to {CHOICES_MAX}")]
    NumChoices { found: usize },
    #[error("`answer` is {found}, expected the index of one of {num_choices} choices, from 0")]
    Answer { found: usize, num_choices: usize },
    #[error("`max_tokens` is {found}, expected 1 to {MAX_TOKENS_MAX}")]
    MaxTokens { found: u32 },
    #[error("`messages`: {reason}")]
    Messages { reason: String },
    #[error("the arguments of a tool call: {reason}")]
    Arguments { reason: String },
    #[error("no `scorer`, neither in the item nor in the suite's header")]
    NoScorer,
    #[error("`metric` is `{found}`, which no item of this suite has; expected one of {expected}")]
    UnknownMetric { found: String, expected: String },
    #[error("several scorers for the metric `{metric}`, expected one for all items")]
    MixedScorers { metric: String },
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error(transparent)]
    Stop(#[from] feilun_infer::stop::StopError),
}
