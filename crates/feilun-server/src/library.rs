//! From the name that a caller gives to a model that answers: aliases, digests, models in memory,
//! and models that are brought there because somebody asks for them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use feilun_store::digest::ModelDigest;
use feilun_store::models::{ModelKind, NewModel};
use feilun_store::{Store, StoreError};
use serde_json::json;

use crate::backend::{KnownModel, LoadRefusal, ModelFacts, ServedModel};
use crate::error::{ApiError, ErrorKind};
use crate::server::Server;

/// A model, and how it was found.
pub(crate) struct FoundModel {
    pub(crate) model: Arc<dyn ServedModel>,
    pub(crate) alias: Option<String>,
}

/// What a name stands for.
pub(crate) enum Located {
    /// In memory.
    Loaded(Arc<dyn ServedModel>),
    /// On the shelf. With a digest it must have that one when it is loaded.
    Shelved(KnownModel, Option<ModelDigest>),
}

/// What a name stands for, and the alias through which, if it was one.
pub(crate) struct Name {
    pub(crate) located: Located,
    pub(crate) alias: Option<String>,
}

/// Shorter beginnings of a digest are more likely a slip than a name.
const DIGEST_CHARS_MIN: usize = 8;

/// Records a model as it is served, so that turns and aliases can point to it. What was recorded
/// first stays.
///
/// # Errors
/// If the store cannot, or the model may not be served.
pub async fn record_model(store: &Store, facts: &ModelFacts) -> Result<(), StoreError> {
    let model = NewModel {
        digest: facts.digest,
        name: facts.name.clone(),
        kind: if facts.base.is_some() { ModelKind::Adapter } else { ModelKind::Base },
        base: facts.base,
        parent: facts.base,
        run: None,
        config: None,
        size_bytes: facts.size_bytes,
        detail: json!({}),
    };
    store.record_model(model).await?;
    match store.model(facts.digest).await?.blocked {
        Some((_, reason)) => Err(StoreError::ModelBlocked { model: facts.digest, reason }),
        None => Ok(()),
    }
}

impl Server {
    /// The model that a caller means, loaded if it has to be.
    pub(crate) async fn model(self: &Arc<Self>, name: &str) -> Result<FoundModel, ApiError> {
        let Name { located, alias } = self.locate(name).await?;
        let model = match located {
            Located::Loaded(model) => model,
            Located::Shelved(known, digest) => self.load(&known.name, digest, false).await?,
        };
        Ok(FoundModel { model, alias })
    }

    /// What a name stands for, without loading anything.
    pub(crate) async fn locate(self: &Arc<Self>, name: &str) -> Result<Name, ApiError> {
        self.refresh_aliases().await?;
        let target = {
            let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
            aliases.targets.get(name).copied()
        };
        let alias = target.map(|_| name.to_owned());
        let digest_text = target.map(|digest| digest.to_string());
        let wanted = digest_text.as_deref().unwrap_or(name);
        if let Some(model) = self.backend.find(wanted) {
            return Ok(Name { located: Located::Loaded(model), alias });
        }
        // What has a digest was recorded under it, also where the shelf cannot tell.
        let digest = target.or_else(|| wanted.rsplit(':').next().unwrap_or(wanted).parse().ok());
        let recorded = match digest {
            Some(digest) => match self.store.model(digest).await {
                Ok(model) => Some(model.recorded.name),
                Err(StoreError::NoSuchModel(_)) => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let known = self.known().await?;
        let found = found_in(known, wanted, recorded.as_deref());
        match found {
            Some(known) => Ok(Name { located: Located::Shelved(known, digest), alias }),
            None => {
                let shown: String = name.chars().take(100).collect();
                let message = match alias {
                    Some(_) => format!("the alias `{shown}` points to a model that is not there"),
                    None => format!("there is no model `{shown}`; see /v1/models"),
                };
                Err(ApiError::new(ErrorKind::NoSuchModel, message).param("model"))
            }
        }
    }

    /// Everything that can be asked, in memory or not.
    pub(crate) async fn known(self: &Arc<Self>) -> Result<Vec<KnownModel>, ApiError> {
        let server = Arc::clone(self);
        self.prepare(move || Ok(server.backend.known())).await
    }

    /// Brings a model into memory, and records it. With a digest, it must be that one.
    pub(crate) async fn load(
        self: &Arc<Self>,
        name: &str,
        digest: Option<ModelDigest>,
        evict_idle: bool,
    ) -> Result<Arc<dyn ServedModel>, ApiError> {
        // The others wait here, where they take no thread.
        let _one = self.loading.lock().await;
        if self.is_draining() {
            return Err(ApiError::new(ErrorKind::Unavailable, "the server is stopping"));
        }
        let (server, wanted) = (Arc::clone(self), name.to_owned());
        let model =
            self.prepare(move || server.backend.load(&wanted, evict_idle).map_err(refused)).await?;
        let facts = model.facts();
        if digest.is_some_and(|digest| digest != facts.digest) {
            tracing::error!(name, found = %facts.digest, "a model is not what was recorded of it");
            let message = format!("the model `{name}` has changed since it was recorded");
            return Err(ApiError::new(ErrorKind::Conflict, message).param("model"));
        }
        if let Err(error) = record_model(&self.store, facts).await {
            if matches!(error, StoreError::ModelBlocked { .. }) {
                self.unload(name).await?;
            }
            return Err(error.into());
        }
        tracing::info!(name, digest = %facts.digest, "loaded");
        Ok(model)
    }

    /// Takes a model out of memory.
    pub(crate) async fn unload(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        let (server, wanted) = (Arc::clone(self), name.to_owned());
        self.prepare(move || server.backend.unload(&wanted).map_err(refused)).await?;
        tracing::info!(name, "unloaded");
        Ok(())
    }
}

/// By its name, by the beginning of its digest, or by the name under which it was recorded.
fn found_in(known: Vec<KnownModel>, wanted: &str, recorded: Option<&str>) -> Option<KnownModel> {
    let digits = wanted.rsplit(':').next().unwrap_or(wanted);
    let is_digest =
        digits.len() >= DIGEST_CHARS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has_digest = |model: &&KnownModel| {
        let digest = model.digest.map(|digest| digest.to_string());
        is_digest && digest.is_some_and(|digest| digest.starts_with(digits))
    };
    let by_name = |name: &str| known.iter().find(|model| model.name == name);
    let mut of_digest = known.iter().filter(has_digest);
    // The same content may lie there under several names; two contents are too many.
    let first = of_digest.next();
    let by_digest = first.filter(|first| of_digest.all(|other| other.digest == first.digest));
    by_name(wanted).or(by_digest).or_else(|| recorded.and_then(by_name)).cloned()
}

fn refused(refusal: LoadRefusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        LoadRefusal::NoSuchModel { .. } => {
            ApiError::new(ErrorKind::NoSuchModel, message).param("model")
        }
        LoadRefusal::NotLoaded { .. } => ApiError::new(ErrorKind::Conflict, message).param("model"),
        LoadRefusal::Memory { .. } => {
            tracing::warn!(message, "a model was not loaded");
            let message = format!("the model is not loaded, and {message}");
            ApiError::new(ErrorKind::Unavailable, message).retry_after(Duration::from_secs(30))
        }
        LoadRefusal::Failed { reason } => {
            tracing::error!(reason, "a model was not loaded");
            let message = "the model cannot be loaded; the server's log says why";
            ApiError::new(ErrorKind::Unavailable, message).retry_after(Duration::from_secs(60))
        }
    }
}
