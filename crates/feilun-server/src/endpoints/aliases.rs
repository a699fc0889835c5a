//! `/v1/aliases`: which model a name means. A move is compare-and-set, kept in a history, and
//! audited by the store; requests that are running end on the model they began with.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::aliases::{AliasTarget, NewAliasMove};
use feilun_store::digest::ModelDigest;
use feilun_store::{StoreError, Timestamp};

use super::{Asking, Shared};
use crate::backend::KnownModel;
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::reply;
use crate::server::Server;
use crate::wire::alias::{Alias, AliasList, AliasRequest};
use crate::wire::strict::Parsed;

/// Lists aliases.
pub(crate) async fn list(State(server): Shared) -> Result<Response, ApiError> {
    let data = server.store.aliases().await?.into_iter().map(|alias| Alias {
        object: "alias",
        name: alias.name,
        model: Some(answering(alias.target)),
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
    let hidden = |models: &[KnownModel]| models.iter().any(|model| model.name == request.name);
    if hidden(&server.known().await?) {
        let message = "name: a model has this name, and the alias would hide it";
        return Err(ApiError::new(ErrorKind::Conflict, message).param("name"));
    }
    let expected = match &request.expected {
        None => None,
        Some(digest) => {
            let digest = digest.parse::<ModelDigest>().map_err(|error| {
                ApiError::new(ErrorKind::InvalidValue, format!("expected: {error}"))
                    .param("expected")
            })?;
            Some(recorded_target(&server, digest).await?)
        }
    };
    let to = match &request.model {
        None => None,
        // Loaded now, so that the first who asks does not wait.
        Some(name) => Some(server.model(name).await?.model.facts().target()),
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
        model: moved.to.map(answering),
        moved_at: seconds(moved.moved_at),
    };
    Ok(reply::json(StatusCode::OK, &alias))
}

/// The digest of what answers: an adapter's, or a model's.
fn answering(target: AliasTarget) -> String {
    target.adapter.unwrap_or(target.model).to_string()
}

/// Where an alias points whose answers come from this digest.
async fn recorded_target(server: &Server, digest: ModelDigest) -> Result<AliasTarget, ApiError> {
    let base = match server.store.model(digest).await {
        Ok(model) => model.recorded.base,
        // Then nothing points to it.
        Err(StoreError::NoSuchModel(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(match base {
        Some(base) => AliasTarget { model: base, adapter: Some(digest) },
        None => AliasTarget { model: digest, adapter: None },
    })
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0)
}
