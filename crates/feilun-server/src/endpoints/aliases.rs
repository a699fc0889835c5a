//! `/v1/aliases`: which model a name means. A move is compare-and-set, kept in a history, and
//! audited by the store; requests that are running end on the model they began with.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::Timestamp;
use feilun_store::aliases::{AliasTarget, NewAliasMove};
use feilun_store::digest::ModelDigest;

use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::reply;
use crate::wire::alias::{Alias, AliasList, AliasRequest};
use crate::wire::strict::Parsed;

/// Lists aliases.
pub(crate) async fn list(State(server): Shared) -> Result<Response, ApiError> {
    let data = server.store.aliases().await?.into_iter().map(|alias| Alias {
        object: "alias",
        name: alias.name,
        model: Some(alias.target.model.to_string()),
        moved_at: seconds(alias.moved_at),
    });
    Ok(reply::json(StatusCode::OK, &AliasList { object: "list", data: data.collect() }))
}

/// Moves an alias.
pub(crate) async fn put(
    State(server): Shared,
    Extension(caller): Asking,
    Json(Parsed { request, .. }): Json<AliasRequest>,
) -> Result<Response, ApiError> {
    if server.backend.models().iter().any(|model| model.facts().name == request.name) {
        let message = "name: a model has this name, and the alias would hide it";
        return Err(ApiError::new(ErrorKind::Conflict, message).param("name"));
    }
    let target = |model| AliasTarget { model, adapter: None };
    let expected = match &request.expected {
        None => None,
        Some(digest) => Some(target(digest.parse::<ModelDigest>().map_err(|error| {
            ApiError::new(ErrorKind::InvalidValue, format!("expected: {error}")).param("expected")
        })?)),
    };
    let to = match &request.model {
        None => None,
        Some(name) => Some(target(server.model(name).await?.model.facts().digest)),
    };
    let moved = server
        .store
        .move_alias(NewAliasMove {
            alias: request.name,
            expected,
            to,
            actor: caller.actor(),
            reason: request.reason.unwrap_or_default(),
        })
        .await?;
    // From now on new requests find the new model.
    server.read_aliases().await?;
    let alias = Alias {
        object: "alias",
        name: moved.alias,
        model: moved.to.map(|target| target.model.to_string()),
        moved_at: seconds(moved.moved_at),
    };
    Ok(reply::json(StatusCode::OK, &alias))
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0)
}
