//! `/v1/models`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::query::WireQuery;

/// A model, or an alias of one.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Model {
    /// What to write as `model`.
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// Whether it is in memory. If not, it is loaded when somebody asks it.
    pub(crate) loaded: bool,
    /// The digest of its content, where it is known without reading all of it.
    pub(crate) digest: Option<String>,
    /// Of an adapter: the digest of the model under it.
    pub(crate) base: Option<String>,
    /// Most tokens of a prompt and its answer; known once it is loaded.
    pub(crate) context_length: Option<usize>,
}

/// How to load.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadQuery {
    /// Where memory is short, unload models that nobody uses.
    pub(crate) evict_idle: Option<bool>,
}

impl WireQuery for LoadQuery {
    const LITERALS: &'static [&'static str] = &["evict_idle"];
}

/// All of them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}
