//! `/v1/files`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::Whole;
use crate::http::query::WireQuery;

/// Which come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderParameter {
    Asc,
    Desc,
}

/// Which files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilesQuery {
    pub(crate) purpose: Option<String>,
    /// The last file of the page before.
    pub(crate) after: Option<String>,
    /// Most files; more than a thousand are never given at once.
    pub(crate) limit: Option<Whole<1, 10_000>>,
    pub(crate) order: Option<OrderParameter>,
}

impl WireQuery for FilesQuery {
    const LITERALS: &'static [&'static str] = &["limit"];
}

/// What comes with an upload. For the document alone: a form is read part by part.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "CreateFileRequest")]
#[expect(dead_code, reason = "its schema is what it is for")]
pub(crate) struct UploadForm {
    /// Examples, one JSON object a line.
    #[schemars(with = "String", extend("format" = "binary"))]
    pub(crate) file: String,
    #[schemars(extend("enum" = ["fine-tune"]))]
    pub(crate) purpose: String,
}

/// A file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAIFile")]
pub(crate) struct FileObject {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) bytes: u64,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    /// Always `processed`: what is no file of examples is not taken.
    pub(crate) status: &'static str,
}

/// A page of files.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<FileObject>,
    pub(crate) first_id: Option<String>,
    pub(crate) last_id: Option<String>,
    pub(crate) has_more: bool,
}

/// That something is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Deleted {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) deleted: bool,
}
