//! `POST /v1/embeddings`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::completion::Prompt;
use super::number::Whole;
use super::strict::WireRequest;
use super::usage::Usage;

/// A request for vectors.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateEmbeddingRequest")]
pub(crate) struct EmbeddingRequest {
    pub(crate) model: String,
    pub(crate) input: Prompt,
    #[serde(default)]
    pub(crate) encoding_format: Option<Encoding>,
    /// The model's own number is the only one there is.
    #[serde(default)]
    pub(crate) dimensions: Option<Whole<1, 1_000_000>>,
    #[serde(default)]
    #[expect(dead_code, reason = "embeddings are no turns, so there is nothing to record it with")]
    pub(crate) user: Option<String>,
}

impl WireRequest for EmbeddingRequest {}

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Float,
    Base64,
}

/// The vectors.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CreateEmbeddingResponse")]
pub(crate) struct EmbeddingAnswer {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Embedding>,
    pub(crate) model: String,
    pub(crate) usage: Usage,
}

/// One vector.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Embedding {
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: Vector,
}

/// Numbers, or their little-endian bytes in base64.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Float(Vec<f32>),
    Base64(String),
}
