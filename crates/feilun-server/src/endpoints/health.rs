//! `/healthz`, `/readyz` and `/metrics`: for whoever watches the server.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;
use crate::error::{ApiError, ErrorKind};
use crate::reply;

/// How long the store may take to answer.
const STORE_TIME: Duration = Duration::from_secs(2);

/// What the two tell.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// The process lives. It waits for nothing.
pub(crate) async fn live() -> Response {
    reply::json(StatusCode::OK, &Health { status: "ok" })
}

/// Requests can be served: a model is there, the store answers, nobody is shutting down.
pub(crate) async fn ready(State(server): Shared) -> Result<Response, ApiError> {
    let not_ready = |message: &'static str| Err(ApiError::new(ErrorKind::Unavailable, message));
    if server.is_draining() {
        return not_ready("the server is stopping");
    }
    if server.backend.models().is_empty() {
        return not_ready("no model is loaded");
    }
    match tokio::time::timeout(STORE_TIME, server.store.ping()).await {
        Ok(Ok(())) => Ok(reply::json(StatusCode::OK, &Health { status: "ready" })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => not_ready("the store does not answer"),
    }
}

/// All figures, in Prometheus' format.
pub(crate) async fn metrics(State(server): Shared) -> Result<Response, ApiError> {
    let status = server.backend.status();
    let text = server
        .metrics
        .encode(&status, server.store.queued_writes())
        .map_err(|error| ApiError::internal(&error))?;
    const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(reply::typed(StatusCode::OK, MEDIA_TYPE, text))
}
