//! Why a model could not be written.

use std::io;
use std::path::PathBuf;

use feilun_kernels::BlockType;

use crate::model_files::ModelFileError;

/// Why a model could not be written. What was begun is removed again.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SaveError {
    #[error("cannot write `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` exists already", path.display())]
    Exists { path: PathBuf },
    #[error("the base model: {0}")]
    Base(#[from] ModelFileError),
    #[error("tensor {name:?}: value {index} is {value}, expected a finite number")]
    NotFinite { name: String, index: usize, value: f32 },
    #[error("tensor {name:?}: value {index} is {value}, too large for {block_type}")]
    TooLarge { name: String, index: usize, value: f32, block_type: BlockType },
    #[error("tensor {name:?} has {found} values, its shape needs {expected}")]
    NumValues { name: String, found: usize, expected: usize },
    #[error("{format} cannot express {what}: found {found}, expected {expected}")]
    NotExpressible { format: &'static str, what: String, found: String, expected: String },
}

impl SaveError {
    /// For `map_err`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SaveError {
        let path = path.into();
        |source| SaveError::Io { path, source }
    }
}
