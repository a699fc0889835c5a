//! The endpoints, one file each: from a checked request to work, and from its result to an
//! answer.

pub(crate) mod aliases;
pub(crate) mod chat;
pub(crate) mod chat_reply;
pub(crate) mod completion_reply;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod events;
pub(crate) mod feedback;
pub(crate) mod files;
pub(crate) mod fine_tuning;
pub(crate) mod health;
pub(crate) mod job_events;
pub(crate) mod models;
pub(crate) mod openapi;
pub(crate) mod session;
pub(crate) mod turn_headers;

use std::sync::Arc;

use axum::extract::{Extension, State};

use crate::security::callers::Caller;
use crate::server::Server;

/// What handlers are given.
pub(crate) type Shared = State<Arc<Server>>;
/// Who asks, found out by the guard.
pub(crate) type Asking = Extension<Caller>;
