//! `/v1/aliases`: names that point to models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::strict::WireRequest;

/// A move of an alias: promotion and rollback are this and nothing else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRequest {
    /// Such as `assistant@production`.
    pub(crate) name: String,
    /// A model or an adapter, by name or digest; null removes the alias.
    pub(crate) model: Option<String>,
    /// The digest it points to now, as far as you know; null where there is no such alias.
    /// The move is refused with 409 where that is not so.
    pub(crate) expected: Option<String>,
    /// Why; recorded.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl WireRequest for AliasRequest {}

/// An alias.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Alias {
    pub(crate) object: &'static str,
    pub(crate) name: String,
    /// The model's digest; null for an alias that was removed.
    pub(crate) model: Option<String>,
    /// Seconds since 1970.
    pub(crate) moved_at: u64,
}

/// All aliases.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AliasList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Alias>,
}
