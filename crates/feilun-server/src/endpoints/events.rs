//! `POST /v1/events`: what users do with an answer.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::events::{EventKind, NewEvent};
use feilun_store::id::TurnId;
use serde_json::{Value, json};

use super::{Asking, Shared, feedback};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::plan;
use crate::reply;
use crate::wire::feedback::{EventKind as Kind, EventRequest, Recorded};
use crate::wire::strict::Parsed;

/// Records an event.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    Json(Parsed { request, .. }): Json<EventRequest>,
) -> Result<Response, ApiError> {
    plan::check_end_user(request.user.as_deref())?;
    let turn = TurnId::from_bytes(*request.turn_id.as_bytes());
    feedback::require_own(&server, &caller, turn).await?;
    let detail = match request.detail {
        None => json!({}),
        Some(detail @ Value::Object(_)) => detail,
        Some(_) => {
            let message = "detail: expected an object";
            return Err(ApiError::new(ErrorKind::InvalidValue, message).param("detail"));
        }
    };
    let kind = match request.kind {
        Kind::Regenerate => EventKind::Regenerate,
        Kind::Edit => EventKind::Edit,
        Kind::Copy => EventKind::Copy,
        Kind::Stop => EventKind::Stop,
        Kind::Continue => EventKind::Continue,
        Kind::Abandon => EventKind::Abandon,
    };
    let event = NewEvent {
        turn,
        kind,
        detail,
        user: caller.user,
        end_user: request.user,
        key: caller.key,
        config: server.config_hash,
    };
    let id = server.store.add_event(event).await?.to_string();
    Ok(reply::json(StatusCode::CREATED, &Recorded { id, object: "event" }))
}
