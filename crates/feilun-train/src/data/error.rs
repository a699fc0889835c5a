//! What can be wrong with data: each error names the file and the line, what was found, what was
//! expected, and what to do.

use std::io;
use std::path::PathBuf;

use feilun_text::{ChatError, TokenizerError};

use super::shard::ShardError;

/// Why data cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DataError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("{found} files of examples, at most {limit} are read; join some of them")]
    TooManyFiles { found: usize, limit: usize },
    #[error("`{path}` line {line}: {problem}; correct the line, or choose to skip bad lines")]
    Line { path: PathBuf, line: u64, problem: LineProblem },
    #[error(
        "no examples in {files}: found {num_blank} blank and {num_skipped} bad lines, expected at \
         least one line with {expected}"
    )]
    Empty { files: String, num_blank: u64, num_skipped: u64, expected: &'static str },
    #[error(
        "{found} of {total} examples are longer than {limit} tokens (the longest, {longest}, is \
         `{path}` line {line}); allow longer rows, or choose to crop or to drop long examples"
    )]
    TooLong { found: usize, total: usize, limit: usize, longest: usize, path: PathBuf, line: u64 },
    #[error("nothing is left to train on: {reason}")]
    NothingToTrain { reason: String },
    #[error(
        "`{path}` line {line} is not what it was when the run began; put the old file back, or \
         begin a new run"
    )]
    Changed { path: PathBuf, line: u64 },
    #[error("{name} is {found}, expected {expected}")]
    Setting { name: &'static str, found: String, expected: &'static str },
    #[error(transparent)]
    Shard(#[from] ShardError),
}

/// What is wrong with a line, or with a text.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum LineProblem {
    #[error("{found} bytes long, expected at most {limit}")]
    TooLong { found: u64, limit: usize },
    #[error("byte {offset} is not UTF-8; convert the file to UTF-8")]
    NotUtf8 { offset: u64 },
    #[error("not JSON at column {column}: {reason}; expected {expected}{hint}")]
    Json { column: usize, reason: String, expected: &'static str, hint: &'static str },
    #[error("found {found} JSON values, expected at most {limit}")]
    TooManyValues { found: usize, limit: usize },
    #[error("{field} is {found}, expected {expected}")]
    Type { field: String, found: &'static str, expected: &'static str },
    #[error("found the keys {found}, expected {expected}")]
    Keys { found: String, expected: &'static str },
    #[error("{field} is not known, expected {expected}; remove it, or write it into the content")]
    UnknownKey { field: String, expected: &'static str },
    #[error("{field} is `{found}`, expected {expected}")]
    Value { field: String, found: String, expected: &'static str },
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("nothing to learn: {reason}")]
    NothingLearned { reason: &'static str },
    #[error("found {found} stretches to learn for {expected} turns, so turns cannot be told apart")]
    Turns { found: usize, expected: usize },
}
