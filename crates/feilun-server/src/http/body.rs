//! Bodies of requests: declared as JSON, of bounded size, there in time.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::error::{ApiError, ErrorKind};
use crate::server::Server;
use crate::wire::strict::{self, Parsed, WireRequest};

/// Bodies up to this size are read whatever else is going on: with all connections together they
/// are bounded. Larger ones share a budget, so that a few callers cannot fill the memory.
const SMALL_BYTES: usize = 64 << 10;
/// What larger bodies may take at once, in units of `SMALL_BYTES`.
pub(crate) const LARGE_UNITS: usize = (256 << 20) / SMALL_BYTES;

/// A checked request.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) Parsed<T>);

impl<T: WireRequest + Send + 'static> FromRequest<Arc<Server>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        let bytes_max = server.config.limits.body_bytes_max;
        let announced = announced_bytes(request.headers())?;
        if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(too_large(bytes_max));
        }
        let expected = announced.map_or(bytes_max, |bytes| bytes as usize);
        let _budget = if expected > SMALL_BYTES {
            let units = u32::try_from(expected.div_ceil(SMALL_BYTES)).unwrap_or(u32::MAX);
            Some(server.large_bodies.try_acquire_many(units).map_err(|_| {
                let message = "too many large bodies are being read";
                ApiError::new(ErrorKind::Unavailable, message)
                    .retry_after(std::time::Duration::from_secs(1))
            })?)
        } else {
            None
        };
        let bytes = read(server, request).await?;
        // Large ones take milliseconds to read: not on a thread that serves connections.
        let parsed = if bytes.len() > SMALL_BYTES {
            server.prepare(move || strict::parse(&bytes)).await?
        } else {
            strict::parse(&bytes)?
        };
        Ok(Json(parsed))
    }
}

async fn read(server: &Server, request: Request) -> Result<Bytes, ApiError> {
    let limits = &server.config.limits;
    let body = Limited::new(request.into_body(), limits.body_bytes_max).collect();
    let collected = tokio::time::timeout(limits.body_timeout, body)
        .await
        .map_err(|_| ApiError::new(ErrorKind::RequestTimeout, "the body did not arrive in time"))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limits.body_bytes_max)),
        Err(_) => Err(ApiError::new(ErrorKind::InvalidJson, "the body broke off")),
    }
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body has more than {bytes_max} bytes");
    ApiError::new(ErrorKind::TooLarge, message)
}

fn announced_bytes(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let bytes = value.to_str().ok().and_then(|text| text.parse().ok());
    bytes.map(Some).ok_or_else(|| ApiError::new(ErrorKind::InvalidJson, "a wrong Content-Length"))
}

/// A page of another site can send a form or plain text without asking; JSON it cannot.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = value.split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be declared as application/json";
    Err(ApiError::new(ErrorKind::WrongMediaType, message))
}
