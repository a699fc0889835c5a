//! `POST /login`, `GET /session`, `POST /logout`: a browser becomes the holder of a key, for a
//! while.

use axum::extract::{Extension, State};
use axum::http::header::{AUTHORIZATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use feilun_store::Timestamp;
use feilun_store::sessions::{NewSession, SessionOwner};

use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::reply;
use crate::security::sessions::{SessionToken, no_cookie};
use crate::security::{callers, keys};
use crate::wire::session::{LoginRequest, Session, SessionEnd};
use crate::wire::strict::Parsed;

/// Logs a browser in. Every login makes a new token, and ends the session that the browser had:
/// whoever knew the old one, or put it there, has nothing.
pub(crate) async fn login(
    State(server): Shared,
    headers: HeaderMap,
    Json(Parsed { request, .. }): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let wrong =
        || ApiError::new(ErrorKind::Unauthenticated, "the key is wrong, expired or revoked");
    let hash = keys::hash_of(&request.key).ok_or_else(wrong)?;
    let caller = callers::with_key(&server, hash).await?;
    let key = caller.key.ok_or_else(wrong)?;
    server.take_request(&caller)?;
    let is_tls = server.config.tls.is_some();
    let token = SessionToken::random().map_err(|error| ApiError::internal(&error))?;
    let time = server.config.limits.session_time;
    let (owner, expires_at) = (SessionOwner::Key(key), Timestamp::now().plus(time));
    let session = NewSession { token_hash: token.hash(), owner, expires_at };
    server.store.create_session(session).await?;
    if let Some(before) = SessionToken::in_headers(&headers, is_tls) {
        server.store.end_session(before.hash()).await?;
    }
    let shown = Session {
        object: "session",
        role: caller.role.as_str(),
        csrf_token: Some(token.csrf()),
        expires_in: Some(time.as_secs()),
    };
    let mut response = reply::json(StatusCode::OK, &shown);
    reply::set(response.headers_mut(), SET_COOKIE, &token.cookie(is_tls, time.as_secs()));
    Ok(response)
}

/// Tells a page what it needs to go on with its session, such as after it was loaded again.
pub(crate) async fn show(
    State(server): Shared,
    Extension(caller): Asking,
    headers: HeaderMap,
) -> Response {
    let token = SessionToken::in_headers(&headers, server.config.tls.is_some());
    let is_by_cookie = caller.key.is_some() && !headers.contains_key(AUTHORIZATION);
    let shown = Session {
        object: "session",
        role: caller.role.as_str(),
        csrf_token: token.filter(|_| is_by_cookie).map(|token| token.csrf()),
        expires_in: None,
    };
    reply::json(StatusCode::OK, &shown)
}

/// Ends the session.
pub(crate) async fn logout(
    State(server): Shared,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let is_tls = server.config.tls.is_some();
    let token = SessionToken::in_headers(&headers, is_tls);
    if let Some(token) = &token {
        server.store.end_session(token.hash()).await?;
    }
    let ended = SessionEnd { object: "session", ended: token.is_some() };
    let mut response = reply::json(StatusCode::OK, &ended);
    reply::set(response.headers_mut(), SET_COOKIE, &no_cookie(is_tls));
    Ok(response)
}
