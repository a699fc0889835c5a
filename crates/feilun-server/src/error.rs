//! What a caller is told when a request is refused or fails: OpenAI's error object, and one table
//! that gives every kind its status, type and code.
//!
//! Causes that concern the caller alone are told in full; causes on our side are logged, and the
//! caller reads one sentence without paths, addresses or other people's data.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// What went wrong, as far as a program can act upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The body is no JSON, or JSON beyond the limits of depth, size and keys.
    InvalidJson,
    /// A field has a wrong type or a value outside its range.
    InvalidValue,
    /// A field that nobody knows.
    UnknownField,
    /// A field or value that OpenAI knows and Feilun does not offer.
    Unsupported,
    /// A schema or a grammar that cannot be enforced, or is malformed.
    InvalidSchema,
    /// Prompt and answer do not fit. Nothing is ever cut off instead.
    ContextTooLong,
    /// No key, or one that is wrong, expired or revoked.
    Unauthenticated,
    /// The key's role does not reach this far.
    Forbidden,
    /// A name in `Host` that is not ours: DNS rebinding looks like this.
    WrongHost,
    /// A web page of another site sent it.
    CrossSite,
    /// No such model, or alias.
    NoSuchModel,
    /// No such turn, feedback or path.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// Somebody else changed it first.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The URL is too long.
    UrlTooLong,
    /// The body is not declared as JSON.
    WrongMediaType,
    /// The key's requests or tokens per minute are used up.
    RateLimited,
    /// Too many requests are waiting.
    QueueFull,
    /// A fault of ours.
    Internal,
    /// The model could not go on with this request.
    GenerationFailed,
    /// The store cannot take more at the moment; nothing was acknowledged.
    StoreUnavailable,
    /// The server is stopping, or has not started.
    Unavailable,
}

/// A row of the table: status, OpenAI's `type`, OpenAI's `code`.
type Row = (StatusCode, &'static str, &'static str);

impl ErrorKind {
    /// All of them, for tests and the OpenAPI document.
    pub const ALL: [ErrorKind; 24] = [
        ErrorKind::InvalidJson,
        ErrorKind::InvalidValue,
        ErrorKind::UnknownField,
        ErrorKind::Unsupported,
        ErrorKind::InvalidSchema,
        ErrorKind::ContextTooLong,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::WrongHost,
        ErrorKind::CrossSite,
        ErrorKind::NoSuchModel,
        ErrorKind::NotFound,
        ErrorKind::MethodNotAllowed,
        ErrorKind::RequestTimeout,
        ErrorKind::Conflict,
        ErrorKind::TooLarge,
        ErrorKind::UrlTooLong,
        ErrorKind::WrongMediaType,
        ErrorKind::RateLimited,
        ErrorKind::QueueFull,
        ErrorKind::Internal,
        ErrorKind::GenerationFailed,
        ErrorKind::StoreUnavailable,
        ErrorKind::Unavailable,
    ];

    fn row(self) -> Row {
        const REQUEST: &str = "invalid_request_error";
        const LIMIT: &str = "rate_limit_error";
        const SERVER: &str = "server_error";
        match self {
            ErrorKind::InvalidJson => (StatusCode::BAD_REQUEST, REQUEST, "invalid_json"),
            ErrorKind::InvalidValue => (StatusCode::BAD_REQUEST, REQUEST, "invalid_value"),
            ErrorKind::UnknownField => (StatusCode::BAD_REQUEST, REQUEST, "unknown_parameter"),
            ErrorKind::Unsupported => (StatusCode::BAD_REQUEST, REQUEST, "unsupported_parameter"),
            ErrorKind::InvalidSchema => (StatusCode::BAD_REQUEST, REQUEST, "invalid_json_schema"),
            ErrorKind::ContextTooLong => {
                (StatusCode::BAD_REQUEST, REQUEST, "context_length_exceeded")
            }
            ErrorKind::Unauthenticated => {
                (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key")
            }
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "permission_error", "forbidden"),
            ErrorKind::WrongHost => (StatusCode::FORBIDDEN, "permission_error", "wrong_host"),
            ErrorKind::CrossSite => (StatusCode::FORBIDDEN, "permission_error", "cross_site"),
            ErrorKind::NoSuchModel => (StatusCode::NOT_FOUND, REQUEST, "model_not_found"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, REQUEST, "not_found"),
            ErrorKind::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, REQUEST, "method_not_allowed")
            }
            ErrorKind::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, REQUEST, "request_timeout"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, REQUEST, "conflict"),
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, REQUEST, "body_too_large"),
            ErrorKind::UrlTooLong => (StatusCode::URI_TOO_LONG, REQUEST, "url_too_long"),
            ErrorKind::WrongMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST, "unsupported_media_type")
            }
            ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, LIMIT, "rate_limit_exceeded"),
            ErrorKind::QueueFull => (StatusCode::TOO_MANY_REQUESTS, LIMIT, "queue_full"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
            ErrorKind::GenerationFailed => {
                (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "generation_failed")
            }
            ErrorKind::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER, "store_unavailable")
            }
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "unavailable"),
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// OpenAI's `code`.
    pub fn code(self) -> &'static str {
        self.row().2
    }
}

/// A refusal or a failure on its way to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    kind: ErrorKind,
    message: Cow<'static, str>,
    param: Option<String>,
    retry_after: Option<Duration>,
}

/// Longest message: some come from parsers that quote their input.
const MESSAGE_CHARS_MAX: usize = 500;

impl ApiError {
    /// An error with a message for the caller.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> ApiError {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message = Cow::Owned(format!("{}…", &message[..end]));
        }
        ApiError { kind, message, param: None, retry_after: None }
    }

    /// A fault of ours: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::error::Error) -> ApiError {
        tracing::error!(cause = %Chain(cause), "internal error");
        ApiError::new(ErrorKind::Internal, "the server failed on this request")
    }

    /// Names the field that is meant.
    pub fn param(mut self, param: impl Into<String>) -> ApiError {
        self.param = Some(param.into());
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, after: Duration) -> ApiError {
        self.retry_after = Some(after);
        self
    }

    /// Of which kind it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// As it stands in a body, or in a stream that has begun.
    pub(crate) fn body(&self) -> ErrorBody {
        let (_, kind, code) = self.kind.row();
        ErrorBody {
            error: ErrorObject {
                message: self.message.clone(),
                kind,
                param: self.param.clone(),
                code,
            },
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// The body of every answer that is no success.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

/// OpenAI's error object.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorObject {
    message: Cow<'static, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = crate::reply::json(self.kind.status(), &self.body());
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            // Rounded up: a caller that comes back on the dot must find it open.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.kind == ErrorKind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error with all its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_are_errors() {
        let mut codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(ErrorKind::ALL.iter().all(|kind| kind.status().as_u16() >= 400));
    }

    #[test]
    fn a_retry_is_never_too_early_and_a_message_never_endless() {
        let error = ApiError::new(ErrorKind::RateLimited, "é".repeat(10_000))
            .retry_after(Duration::from_millis(1001));
        assert_eq!(error.to_string().chars().count(), MESSAGE_CHARS_MAX + 1);
        let response = error.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }
}
