//! `/v1/models`: what can be asked, models and aliases alike.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Shared;
use crate::backend::ServedModel;
use crate::error::ApiError;
use crate::plan;
use crate::reply;
use crate::wire::model::{Model, ModelList};

/// Lists models, then aliases.
pub(crate) async fn list(State(server): Shared) -> Result<Response, ApiError> {
    let models = server.backend.models();
    let mut data: Vec<Model> =
        models.iter().map(|model| shown(model.facts().name.clone(), &**model)).collect();
    for alias in server.store.aliases().await? {
        if let Some(model) = server.backend.find(&alias.target.model.to_string()) {
            data.push(shown(alias.name, &*model));
        }
    }
    Ok(reply::json(StatusCode::OK, &ModelList { object: "list", data }))
}

/// Shows one.
pub(crate) async fn show(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let found = server.model(&name).await?;
    let id = found.alias.unwrap_or_else(|| found.model.facts().name.clone());
    Ok(reply::json(StatusCode::OK, &shown(id, &*found.model)))
}

fn shown(id: String, model: &dyn ServedModel) -> Model {
    let facts = model.facts();
    Model {
        id,
        object: "model",
        created: plan::unix_seconds(facts.created),
        owned_by: "feilun",
        digest: facts.digest.to_string(),
        context_length: facts.context_length,
    }
}
