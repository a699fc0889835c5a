//! `POST /v1/feedback`: what users say of an answer.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::StoreError;
use feilun_store::feedback::{FeedbackValue, NewFeedback};
use feilun_store::id::TurnId;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::plan;
use crate::reply;
use crate::security::callers::Caller;
use crate::server::Server;
use crate::wire::feedback::{Comparison, Demonstration, FeedbackKind, FeedbackRequest, Recorded};
use crate::wire::strict::Parsed;

/// Records feedback.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    Json(Parsed { request, .. }): Json<FeedbackRequest>,
) -> Result<Response, ApiError> {
    plan::check_end_user(request.user.as_deref())?;
    let turn = TurnId::from_bytes(*request.turn_id.as_bytes());
    require_own(&server, &caller, turn).await?;
    let value = value(request.kind, request.value)?;
    if let FeedbackValue::Comparison { preferred, over } = value {
        if preferred == over || (preferred != turn && over != turn) {
            return Err(invalid("expected two turns, of which turn_id is one"));
        }
        let other = if preferred == turn { over } else { preferred };
        require_own(&server, &caller, other).await?;
    }
    let feedback = NewFeedback {
        turn,
        value,
        choice: request.choice.map(|choice| choice.size() as u32),
        tags: request.tags.unwrap_or_default(),
        user: caller.user,
        end_user: request.user,
        key: caller.key,
        config: server.config_hash,
    };
    let id = server.store.add_feedback(feedback).await?.to_string();
    Ok(reply::json(StatusCode::CREATED, &Recorded { id, object: "feedback" }))
}

/// Refuses a caller that has nothing to do with a turn, in the words for a turn that is not there.
pub(super) async fn require_own(
    server: &Server,
    caller: &Caller,
    id: TurnId,
) -> Result<(), ApiError> {
    let turn = server.store.turn(id).await?.recorded;
    let is_own = turn.key == caller.key && turn.user == caller.user;
    if is_own || caller.sees_all() { Ok(()) } else { Err(StoreError::NoSuchTurn(id).into()) }
}

fn value(kind: FeedbackKind, value: Value) -> Result<FeedbackValue, ApiError> {
    Ok(match kind {
        FeedbackKind::Rating => {
            FeedbackValue::Rating(value.as_bool().ok_or_else(|| invalid("expected a boolean"))?)
        }
        FeedbackKind::Score => {
            FeedbackValue::Score(value.as_f64().ok_or_else(|| invalid("expected a number"))?)
        }
        FeedbackKind::Comment => match value {
            Value::String(text) => FeedbackValue::Comment(text),
            _ => return Err(invalid("expected a text")),
        },
        FeedbackKind::Demonstration => {
            match read::<Demonstration>(value.clone())? {
                Demonstration::Assistant { .. } => {}
                _ => return Err(invalid("expected a message of the assistant")),
            }
            FeedbackValue::Demonstration(value)
        }
        FeedbackKind::Comparison => {
            let Comparison { preferred, over } = read(value)?;
            FeedbackValue::Comparison {
                preferred: TurnId::from_bytes(*preferred.as_bytes()),
                over: TurnId::from_bytes(*over.as_bytes()),
            }
        }
    })
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| invalid(&error.to_string()))
}

fn invalid(reason: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidValue, format!("value: {reason}")).param("value")
}
