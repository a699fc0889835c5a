//! `/v1/fine_tuning/jobs`: asking for a model that has learned from a file. The work is the
//! supervisor's (`jobs::supervisor`); here jobs come into the store, and are looked at.

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::Page;
use feilun_store::id::RunId;
use feilun_store::runs::{NewRun, Run, RunChange, RunFilter, RunStatus};
use serde_json::Value;

use super::files::{self, seconds};
use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::Json;
use crate::http::query::Query;
use crate::jobs::{self, Detail, Progress};
use crate::library::Located;
use crate::reply;
use crate::security::callers::Caller;
use crate::server::Server;
use crate::wire::job::{
    DpoHyperparameters, Hyperparameters, Job, JobError, JobList, JobRequest, JobsQuery, Method,
    UsedHyperparameters, UsedMethod, WithHyperparameters,
};
use crate::wire::strict::Parsed;

const PREFIX: &str = "ftjob-";
/// Passes over the examples, where nobody says how many.
const EPOCHS_DEFAULT: u64 = 3;
/// OpenAI's bounds of metadata.
const METADATA_MAX: usize = 16;
const METADATA_KEY_CHARS_MAX: usize = 64;
const METADATA_VALUE_CHARS_MAX: usize = 512;
const SUFFIX_CHARS_MAX: usize = 64;
const PAGE_ROWS_DEFAULT: usize = 20;

/// Takes a job into the queue.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    Json(Parsed { request, .. }): Json<JobRequest>,
) -> Result<Response, ApiError> {
    let trainer = files::trainer(&server)?;
    check_fields(&request)?;
    let (base, base_digest) = base(&server, &request.model).await?;
    let id = RunId::new();
    let mut detail = detail(id, &request, base, base_digest.map(|digest| digest.to_string()))?;
    // From here on no file goes, and no other job comes.
    let _desk = server.jobs.desk.lock().await;
    let file = files::find(&server, &caller, &request.training_file)
        .await
        .map_err(|error| error.param("training_file"))?;
    detail.blob = file.digest.to_string();
    let num_waiting = jobs::unfinished(&server).await?.len();
    if num_waiting >= server.config.limits.jobs_waiting_max {
        let message = format!("{num_waiting} fine-tuning jobs are waiting already");
        let after = std::time::Duration::from_secs(60);
        return Err(ApiError::new(ErrorKind::QueueFull, message).retry_after(after));
    }
    let (examples, objective) = (server.store.open_blob(file.digest)?, detail.objective());
    let check = move || {
        let checked = trainer.check(examples, Some(objective));
        checked.map_err(|reason| files::invalid_file(&reason).param("training_file"))
    };
    server.prepare(check).await?;
    let run = NewRun {
        id,
        kind: jobs::KIND.to_owned(),
        user: caller.user,
        key: caller.key,
        base: base_digest,
        config: Some(server.config_hash),
        detail: detail.json(),
    };
    server.store.record_run(run).await?;
    jobs::tell(&server, id, "info", format!("Created job {}", shown_id(id)), Value::Null).await?;
    server.jobs.changed.notify_one();
    Ok(reply::json(StatusCode::OK, &shown(&server.store.run(id).await?)?))
}

/// Lists jobs, the newest first.
pub(crate) async fn list(
    State(server): Shared,
    Extension(caller): Asking,
    Query(query): Query<JobsQuery>,
) -> Result<Response, ApiError> {
    let mut filter = RunFilter { kind: Some(jobs::KIND.to_owned()), ..RunFilter::default() };
    if !caller.sees_all() {
        filter.user = caller.user;
        filter.key = if caller.user.is_some() { None } else { caller.key };
    }
    let rows_max = query.limit.map_or(PAGE_ROWS_DEFAULT, |limit| limit.size());
    let mut page = Page::newest(rows_max as u32 + 1);
    if let Some(after) = &query.after {
        page = page.behind(parse_id(after).ok_or_else(|| no_cursor("a job"))?);
    }
    let mut runs = server.store.runs(&filter, page).await?;
    let has_more = runs.len() > rows_max;
    runs.truncate(rows_max);
    let data = runs.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(reply::json(StatusCode::OK, &JobList { object: "list", data, has_more }))
}

/// Shows one.
pub(crate) async fn show(
    State(server): Shared,
    Extension(caller): Asking,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let run = find(&server, &caller, &id).await?;
    Ok(reply::json(StatusCode::OK, &shown(&run)?))
}

/// Ends one. The trainer is asked to end, and made to if it does not.
pub(crate) async fn cancel(
    State(server): Shared,
    Extension(caller): Asking,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let run = find(&server, &caller, &id).await?.recorded.id;
    let change = RunChange { status: Some(RunStatus::Cancelled), ..RunChange::default() };
    let cancelled = server.store.change_run(run, change).await?;
    jobs::tell(&server, run, "info", "Job cancelled", Value::Null).await?;
    Ok(reply::json(StatusCode::OK, &shown(&cancelled)?))
}

/// A job of this caller.
pub(super) async fn find(server: &Server, caller: &Caller, id: &str) -> Result<Run, ApiError> {
    let none = || {
        let shown: String = id.chars().take(100).collect();
        ApiError::new(ErrorKind::NotFound, format!("there is no fine-tuning job `{shown}`"))
    };
    let run = server.store.run(parse_id(id).ok_or_else(none)?).await?;
    let is_own = caller.owns(run.recorded.user, run.recorded.key) || caller.sees_all();
    if is_own && run.recorded.kind == jobs::KIND { Ok(run) } else { Err(none()) }
}

pub(super) fn no_cursor(what: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidValue, format!("after: no id of {what}")).param("after")
}

fn parse_id(text: &str) -> Option<RunId> {
    text.strip_prefix(PREFIX)?.parse().ok()
}

fn shown_id(id: RunId) -> String {
    format!("{PREFIX}{id}")
}

/// What OpenAI knows and Feilun does not offer, and what no schema says.
fn check_fields(request: &JobRequest) -> Result<(), ApiError> {
    let unsupported = |field: &'static str, why: &str| {
        Err(ApiError::new(ErrorKind::Unsupported, format!("{field}: {why}")).param(field))
    };
    let invalid = |field: &'static str, why: String| {
        Err(ApiError::new(ErrorKind::InvalidValue, format!("{field}: {why}")).param(field))
    };
    if request.validation_file.is_some() {
        let why = "a share of the training file is kept back to measure on";
        return unsupported("validation_file", why);
    }
    if request.integrations.as_ref().is_some_and(|list| !list.is_empty()) {
        return unsupported("integrations", "the server calls nobody");
    }
    if request.hyperparameters.is_some() && request.method.is_some() {
        return invalid("hyperparameters", "with a method they stand in it".to_owned());
    }
    if request.suffix.as_ref().is_some_and(|suffix| suffix.chars().count() > SUFFIX_CHARS_MAX) {
        return invalid("suffix", format!("expected at most {SUFFIX_CHARS_MAX} characters"));
    }
    let is_too_long = |(key, value): (&String, &String)| {
        key.chars().count() > METADATA_KEY_CHARS_MAX
            || value.chars().count() > METADATA_VALUE_CHARS_MAX
    };
    if let Some(metadata) = &request.metadata
        && (metadata.len() > METADATA_MAX || metadata.iter().any(is_too_long))
    {
        let why = format!(
            "expected at most {METADATA_MAX} pairs of {METADATA_KEY_CHARS_MAX} and \
             {METADATA_VALUE_CHARS_MAX} characters"
        );
        return invalid("metadata", why);
    }
    Ok(())
}

/// The model to begin from: its name, and its digest where that is known.
async fn base(
    server: &std::sync::Arc<Server>,
    name: &str,
) -> Result<(String, Option<feilun_store::digest::ModelDigest>), ApiError> {
    let (name, digest, base) = match server.locate(name).await?.located {
        Located::Loaded(model) => {
            let facts = model.facts();
            (facts.name.clone(), Some(facts.digest), facts.base)
        }
        Located::Shelved(known, digest) => (known.name, known.digest.or(digest), known.base),
    };
    if base.is_some() {
        let message = "model: it is fine-tuned already; begin from its base";
        return Err(ApiError::new(ErrorKind::Unsupported, message).param("model"));
    }
    Ok((name, digest))
}

fn detail(
    id: RunId,
    request: &JobRequest,
    base: String,
    base_digest: Option<String>,
) -> Result<Detail, ApiError> {
    let Hyperparameters { n_epochs, batch_size, learning_rate_multiplier } = match &request.method {
        None => request.hyperparameters.unwrap_or_default(),
        Some(Method::Supervised { supervised }) => {
            supervised.and_then(|supervised| supervised.hyperparameters).unwrap_or_default()
        }
        Some(Method::Dpo { dpo }) => {
            let DpoHyperparameters { n_epochs, batch_size, learning_rate_multiplier, .. } =
                dpo.and_then(|dpo| dpo.hyperparameters).unwrap_or_default();
            Hyperparameters { n_epochs, batch_size, learning_rate_multiplier }
        }
    };
    let beta = match &request.method {
        Some(Method::Dpo { dpo: Some(dpo) }) => {
            let beta = dpo.hyperparameters.and_then(|parameters| parameters.beta);
            beta.and_then(|beta| beta.value()).map(|beta| beta.wide())
        }
        _ => None,
    };
    let multiplier = learning_rate_multiplier.and_then(|multiplier| multiplier.value());
    let rate_multiplier = multiplier.map_or(1.0, |multiplier| multiplier.wide());
    for (name, value) in [("learning_rate_multiplier", Some(rate_multiplier)), ("beta", beta)] {
        if value.is_some_and(|value| value <= 0.0) {
            let message = format!("{name}: expected more than 0");
            return Err(ApiError::new(ErrorKind::InvalidValue, message).param(name));
        }
    }
    let seed = match request.seed {
        Some(seed) => seed.size() as u64,
        None => u64::from(u16::from_be_bytes([id.as_bytes()[14], id.as_bytes()[15]])),
    };
    let positive = |number: i64| u64::try_from(number).unwrap_or(1);
    let epochs = n_epochs.and_then(|epochs| epochs.value());
    Ok(Detail {
        name: jobs::model_name(&base, request.suffix.as_deref(), id),
        base,
        base_digest,
        training_file: request.training_file.clone(),
        blob: String::new(),
        is_preference: matches!(request.method, Some(Method::Dpo { .. })),
        num_epochs: epochs.map_or(EPOCHS_DEFAULT, |epochs| positive(epochs.get())),
        batch_size: batch_size.and_then(|size| size.value()).map(|size| positive(size.get())),
        rate_multiplier,
        beta,
        seed,
        metadata: request.metadata.clone().unwrap_or_default(),
        trained_tokens: None,
        progress: Progress::default(),
    })
}

fn shown(run: &Run) -> Result<Job, ApiError> {
    let detail = Detail::of(run)?;
    let hyperparameters = UsedHyperparameters {
        n_epochs: detail.num_epochs,
        batch_size: detail.batch_size.into(),
        learning_rate_multiplier: detail.rate_multiplier,
        beta: detail.beta,
    };
    let with = || Some(WithHyperparameters { hyperparameters: hyperparameters.clone() });
    let method = if detail.is_preference {
        UsedMethod { kind: "dpo", supervised: None, dpo: with() }
    } else {
        UsedMethod { kind: "supervised", supervised: with(), dpo: None }
    };
    let has_failed = run.status == RunStatus::Failed;
    let error = run.error.clone().filter(|_| has_failed);
    Ok(Job {
        id: shown_id(run.recorded.id),
        object: "fine_tuning.job",
        created_at: seconds(run.created_at),
        finished_at: run.finished_at.map(seconds),
        model: detail.base,
        fine_tuned_model: (run.status == RunStatus::Succeeded).then_some(detail.name),
        organization_id: "",
        status: run.status.as_str(),
        error: error.map(|message| JobError { code: "training_failed", message, param: None }),
        hyperparameters,
        method,
        training_file: detail.training_file,
        validation_file: None,
        result_files: [],
        integrations: [],
        seed: detail.seed,
        trained_tokens: detail.trained_tokens,
        estimated_finish: None,
        metadata: detail.metadata,
    })
}
