//! What chat and completions do alike on the way from a request to work.

use std::sync::Arc;
use std::time::SystemTime;

use feilun_infer::{Constraint, ConstraintSource, Request};
use feilun_store::Timestamp;
use feilun_store::digest::TemplateHash;
use feilun_store::id::TurnId;
use feilun_store::turns::Api;
use feilun_text::{ChatError, Moment, TemplateError};
use serde_json::{Map, Value};

use crate::backend::ModelFacts;
use crate::endpoints::turn_headers::TurnHeaders;
use crate::error::{ApiError, ErrorKind};
use crate::generation::capture::TurnContext;
use crate::library::FoundModel;
use crate::security::callers::Caller;
use crate::server::Server;

/// What a context is made of.
pub(crate) struct ContextParts<'a> {
    pub(crate) server: &'a Arc<Server>,
    pub(crate) caller: Caller,
    pub(crate) headers: TurnHeaders,
    pub(crate) found: &'a FoundModel,
    pub(crate) api: Api,
    pub(crate) num_turns: usize,
    pub(crate) requests: Vec<Value>,
    pub(crate) settings: Value,
    pub(crate) end_user: Option<String>,
    pub(crate) received_at: Timestamp,
}

/// What is recorded with the turns of a request; refuses it where the server is about to stop.
pub(crate) fn context(parts: ContextParts<'_>) -> Result<TurnContext, ApiError> {
    if parts.server.is_draining() {
        return Err(ApiError::new(ErrorKind::Unavailable, "the server is stopping"));
    }
    check_end_user(parts.end_user.as_deref())?;
    let facts = parts.found.model.facts();
    let template = (parts.api == Api::Chat).then(|| {
        let hash = blake3::hash(facts.chat_format.template().as_bytes());
        TemplateHash::from_bytes(*hash.as_bytes())
    });
    Ok(TurnContext {
        caller: parts.caller,
        turns: (0..parts.num_turns).map(|_| TurnId::new()).collect(),
        conversation: parts.headers.conversation,
        parent: parts.headers.parent,
        api: parts.api,
        model: facts.target(),
        alias: parts.found.alias.clone(),
        template,
        requests: parts.requests,
        settings: parts.settings,
        end_user: parts.end_user,
        consent: parts.headers.consent,
        received_at: parts.received_at,
    })
}

/// A name that the store takes: known before anything is computed.
pub(crate) fn check_end_user(end_user: Option<&str>) -> Result<(), ApiError> {
    const BYTES_MAX: usize = feilun_store::limits::NAME_BYTES_MAX;
    let Some(name) = end_user else { return Ok(()) };
    if (1..=BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("user: expected 1 to {BYTES_MAX} bytes without control characters");
    Err(ApiError::new(ErrorKind::InvalidValue, message).param("user"))
}

/// The same request once for each choice; all but the seed is shared, the prompt's cache too.
pub(crate) fn fork(request: Request, num_choices: usize) -> Vec<Request> {
    (0..num_choices)
        .map(|index| match index {
            0 => request.clone(),
            _ => Request { sampling: request.sampling.fork(index as u64), ..request.clone() },
        })
        .collect()
}

/// Compiles a constraint; an error is the caller's and names the field.
pub(crate) fn compile(
    facts: &ModelFacts,
    source: Option<ConstraintSource>,
    param: &str,
) -> Result<Option<Constraint>, ApiError> {
    let Some(source) = source else { return Ok(None) };
    facts.constraints.compile(&source).map(Some).map_err(|error| {
        ApiError::new(ErrorKind::InvalidSchema, format!("{param}: {error}")).param(param)
    })
}

/// The request without some of its fields.
pub(crate) fn settings(original: &Value, without: &[&str]) -> Value {
    let Value::Object(map) = original else { return Value::Null };
    let kept = map.iter().filter(|(name, _)| !without.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// What a caller is told of messages that cannot be rendered.
pub(crate) fn chat_refused(error: &ChatError) -> ApiError {
    match error {
        ChatError::Template(TemplateError::Thread { .. })
        | ChatError::UnsupportedTemplate { .. } => ApiError::internal(error),
        _ => ApiError::new(ErrorKind::InvalidValue, error.to_string()).param("messages"),
    }
}

/// Seconds since 1970, as OpenAI's `created` has it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Today's date in UTC, for templates that print it.
pub(crate) fn today() -> Option<Moment> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.trim_end_matches('Z').parse().ok()
}

/// OpenAI's `created`.
pub(crate) fn created(context: &TurnContext) -> u64 {
    u64::try_from(context.received_at.as_micros() / 1_000_000).unwrap_or(0)
}

/// OpenAI's `system_fingerprint`: what a seed's answer depends on besides the request.
pub(crate) fn fingerprint(facts: &ModelFacts) -> String {
    let digest = facts.digest.to_string();
    format!("fl-{}-{}", env!("CARGO_PKG_VERSION"), &digest[..digest.len().min(12)])
}
