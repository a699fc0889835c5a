//! `/login`, `/session` and `/logout`: for browsers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::strict::WireRequest;

/// A login.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// A key, as `feilun keys create` printed it. The session may do what the key may do, for as
    /// long as it may.
    pub(crate) key: String,
}

/// Keys belong in no log.
impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginRequest")
    }
}

impl WireRequest for LoginRequest {}

/// A session as the page learns of it; its own token is in a cookie that no page can read.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Session {
    pub(crate) object: &'static str,
    /// What the caller may do: `admin`, `curator`, `member` or `app`.
    pub(crate) role: &'static str,
    /// To be sent as `x-csrf-token` with whatever changes something; null without a session.
    pub(crate) csrf_token: Option<String>,
    /// Seconds until the session ends; only at its beginning.
    pub(crate) expires_in: Option<u64>,
}

/// The end of a session.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SessionEnd {
    pub(crate) object: &'static str,
    pub(crate) ended: bool,
}
