//! `/v1/models`: what can be asked, models, adapters and aliases alike; and what is in memory.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::audit::NewAuditEntry;
use feilun_store::digest::ModelDigest;
use serde_json::json;

use super::{Asking, Shared};
use crate::backend::{KnownModel, ServedModel};
use crate::error::ApiError;
use crate::http::query::Query;
use crate::library::{Located, Name};
use crate::plan;
use crate::reply;
use crate::wire::model::{LoadQuery, Model, ModelList};

/// Lists models, then aliases.
pub(crate) async fn list(State(server): Shared) -> Result<Response, ApiError> {
    let loaded = server.backend.models();
    let mut data: Vec<Model> =
        loaded.iter().map(|model| shown(model.facts().name.clone(), &**model)).collect();
    for known in server.known().await? {
        if !data.iter().any(|model| model.id == known.name) {
            data.push(shown_shelved(known.name.clone(), &known, None));
        }
    }
    for alias in server.store.aliases().await? {
        // What an alias pointed to may have been removed from the disk.
        if let Ok(Name { located, .. }) = server.locate(&alias.name).await {
            data.push(shown_located(alias.name, &located));
        }
    }
    Ok(reply::json(StatusCode::OK, &ModelList { object: "list", data }))
}

/// Shows one.
pub(crate) async fn show(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Name { located, alias } = server.locate(&name).await?;
    let id = alias.unwrap_or_else(|| name_of(&located));
    Ok(reply::json(StatusCode::OK, &shown_located(id, &located)))
}

/// Brings one into memory.
pub(crate) async fn load(
    State(server): Shared,
    axum::extract::Extension(caller): Asking,
    Path(name): Path<String>,
    Query(query): Query<LoadQuery>,
) -> Result<Response, ApiError> {
    let Name { located, .. } = server.locate(&name).await?;
    let model = match located {
        Located::Loaded(model) => model,
        Located::Shelved(known, digest) => {
            let evict_idle = query.evict_idle == Some(true);
            let model = server.load(&known.name, digest, evict_idle).await?;
            server
                .store
                .audit(NewAuditEntry {
                    actor: caller.actor(),
                    action: "model.load".to_owned(),
                    object: known.name,
                    detail: json!({ "digest": model.facts().digest.to_string() }),
                })
                .await?;
            model
        }
    };
    let name = model.facts().name.clone();
    Ok(reply::json(StatusCode::OK, &shown(name, &*model)))
}

/// Takes one out of memory, and the adapters on it. What it is computing ends first.
pub(crate) async fn unload(
    State(server): Shared,
    axum::extract::Extension(caller): Asking,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Name { located, .. } = server.locate(&name).await?;
    let name = name_of(&located);
    server.unload(&name).await?;
    server
        .store
        .audit(NewAuditEntry {
            actor: caller.actor(),
            action: "model.unload".to_owned(),
            object: name.clone(),
            detail: json!({}),
        })
        .await?;
    let mut model = shown_located(name, &located);
    model.loaded = false;
    Ok(reply::json(StatusCode::OK, &model))
}

fn name_of(located: &Located) -> String {
    match located {
        Located::Loaded(model) => model.facts().name.clone(),
        Located::Shelved(known, _) => known.name.clone(),
    }
}

fn shown_located(id: String, located: &Located) -> Model {
    match located {
        Located::Loaded(model) => shown(id, &**model),
        Located::Shelved(known, digest) => shown_shelved(id, known, *digest),
    }
}

fn shown(id: String, model: &dyn ServedModel) -> Model {
    let facts = model.facts();
    Model {
        id,
        object: "model",
        created: plan::unix_seconds(facts.created),
        owned_by: "feilun",
        loaded: true,
        digest: Some(facts.digest.to_string()),
        base: facts.base.map(|base| base.to_string()),
        context_length: Some(facts.context_length),
    }
}

fn shown_shelved(id: String, known: &KnownModel, digest: Option<ModelDigest>) -> Model {
    Model {
        id,
        object: "model",
        created: plan::unix_seconds(known.created),
        owned_by: "feilun",
        loaded: false,
        digest: known.digest.or(digest).map(|digest| digest.to_string()),
        base: known.base.map(|base| base.to_string()),
        context_length: None,
    }
}
