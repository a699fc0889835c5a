//! `/v1/models`.

use schemars::JsonSchema;
use serde::Serialize;

/// A model, or an alias of one.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Model {
    /// What to write as `model`.
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// The digest of its content.
    pub(crate) digest: String,
    /// Most tokens of a prompt and its answer.
    pub(crate) context_length: usize,
}

/// All of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}
