//! Why stored evaluations cannot be used.

use std::io;
use std::path::PathBuf;

use crate::suite::SuiteError;

/// Why a stored evaluation cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ResultsError {
    #[error("cannot use `{path}`")]
    Io { path: PathBuf, source: io::Error },
    #[error("evaluation {id} is being worked on by another process: wait for it or stop it")]
    Locked { id: String },
    #[error("`{path}` is damaged")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{path}`, line {line}: no result of an item")]
    Item { path: PathBuf, line: u64, source: serde_json::Error },
    #[error("`{path}`: more than {max} {what}")]
    TooMuch { path: PathBuf, what: &'static str, max: usize },
    #[error("there is no evaluation `{wanted}`")]
    NotFound { wanted: String },
    #[error("`{wanted}` begins the ids of several evaluations: {found}")]
    Ambiguous { wanted: String, found: String },
    #[error("the stored suite `{path}` cannot be read")]
    Suite { path: PathBuf, source: SuiteError },
    #[error("the stored suite `{path}` has the digest {found}")]
    SuiteDigest { path: PathBuf, found: String },
}
