//! Answers as JSON, and the headers that ours bear.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

/// The turn that an answer is: what feedback names.
pub(crate) const TURN_ID: HeaderName = HeaderName::from_static("x-feilun-turn-id");
/// The turns of all choices, where a request asked for several.
pub(crate) const TURN_IDS: HeaderName = HeaderName::from_static("x-feilun-turn-ids");
/// Names the request in our logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The content digest of the model that answered.
pub(crate) const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-feilun-model");
/// Fields of the request that are known but have no effect here.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-feilun-ignored");

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => typed(status, "application/json", bytes),
        // Our own types: a map with odd keys or the like would be a fault of the program.
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            typed(StatusCode::INTERNAL_SERVER_ERROR, "application/json", b"{}".to_vec())
        }
    }
}

/// An answer of some media type. Nothing of ours is to be kept by a cache.
pub(crate) fn typed(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sets a header whose value we made; one that cannot be a header is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Names the fields that had no effect.
pub(crate) fn set_ignored(headers: &mut HeaderMap, fields: &[&'static str]) {
    if !fields.is_empty() {
        set(headers, IGNORED, &fields.join(", "));
    }
}
