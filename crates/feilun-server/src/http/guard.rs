//! In front of every route: the request gets a name, is refused where it may not come in, and
//! is counted and logged when it is answered.
//!
//! What is logged of a request is its id, method, route, status, duration and key id; never a
//! query, a header or a body.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::error::{ApiError, ErrorKind};
use crate::reply;
use crate::security::callers::{self, Access};
use crate::server::Server;

/// A route as the guard knows it.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) server: Arc<Server>,
    /// Its path, as it stands in logs and metrics.
    pub(crate) route: &'static str,
    pub(crate) access: Access,
}

/// Lets a request in, or not.
pub(crate) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let request_id = Uuid::now_v7().to_string();
    let method = request.method().clone();
    let span = tracing::info_span!("request", id = %request_id);
    let server = Arc::clone(&guard.server);
    let route = guard.route;
    let mut response = async {
        match admit(&guard, request).await {
            Ok(request) => next.run(request).await,
            Err(error) => {
                tracing::debug!(%error, "refused");
                error.into_response()
            }
        }
    }
    .instrument(span.clone())
    .await;
    let headers = response.headers_mut();
    reply::set(headers, reply::REQUEST_ID, &request_id);
    headers.insert(
        axum::http::header::X_CONTENT_TYPE_OPTIONS,
        axum::http::HeaderValue::from_static("nosniff"),
    );
    let (status, time) = (response.status().as_u16(), start.elapsed());
    server.metrics.observe_request(route, status, time);
    span.in_scope(|| {
        tracing::info!(%method, route, status, ms = time.as_secs_f64() * 1e3, "answered");
    });
    response
}

async fn admit(guard: &Guard, mut request: Request) -> Result<Request, ApiError> {
    let server = &guard.server;
    server.sites.check(request.uri(), request.headers())?;
    let url_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let url_bytes_max = server.config.limits.url_bytes_max;
    if url_bytes > url_bytes_max {
        let message = format!("the URL has more than {url_bytes_max} bytes");
        return Err(ApiError::new(ErrorKind::UrlTooLong, message));
    }
    if guard.access == Access::Open {
        return Ok(request);
    }
    let caller = callers::identify(server, request.method(), request.headers()).await?;
    caller.require(guard.access)?;
    if matches!(guard.access, Access::Infer | Access::Train) {
        server.take_request(&caller)?;
    }
    request.extensions_mut().insert(caller);
    Ok(request)
}
