//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use feilun_infer::Request;
use feilun_store::Timestamp;
use feilun_store::turns::Api;
use feilun_text::EncodeOptions;
use serde_json::{Value, json};

use super::{Asking, Shared, completion_reply, turn_headers};
use crate::backend::ModelFacts;
use crate::error::{ApiError, ErrorKind};
use crate::generation::{self, Work};
use crate::http::body::Json;
use crate::plan::{self, ContextParts};
use crate::reply;
use crate::wire::completion::{CompletionRequest, OnePrompt};
use crate::wire::sampling::{CHOICES_MAX, stop_strings};
use crate::wire::strict::Parsed;

/// OpenAI's number where the caller gives none.
const ANSWER_TOKENS_DEFAULT: usize = 16;

/// Continues prompts.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    headers: HeaderMap,
    Json(Parsed { request, ignored, original }): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let received_at = Timestamp::now();
    let turn_headers = turn_headers::read(&server, &caller, &headers).await?;
    let found = server.model(&request.model).await?;
    check(&request)?;
    let stream = request.stream.unwrap_or(false);
    let style = completion_reply::Style {
        model: request.model.clone(),
        include_usage: request.stream_options.and_then(|options| options.include_usage),
        echo: request.echo.unwrap_or(false),
        wants_logprobs: request.logprobs.is_some(),
        choices_per_prompt: request.n.map_or(1, |n| n.size()),
    };
    let end_user = request.user.clone();
    let model = Arc::clone(&found.model);
    let prepared = server.prepare(move || prepare(model.facts(), request)).await?;
    let num_choices = prepared.requests.len();
    let context = plan::context(ContextParts {
        server: &server,
        caller,
        headers: turn_headers,
        found: &found,
        api: Api::Completion,
        num_turns: num_choices,
        requests: prepared.recorded,
        settings: plan::settings(&original, &["prompt", "model"]),
        end_user,
        received_at,
    })?;
    let prompts = prepared.requests.iter().step_by(style.choices_per_prompt);
    server.charge_tokens(&context.caller, prompts.map(|request| request.prompt.len()).sum());
    let facts = found.model.facts().clone();
    let echoed = completion_reply::echoes(&facts, &prepared.requests, style.echo);
    let work = Work {
        requests: prepared.requests,
        find_calls: false,
        wants_logprobs: style.wants_logprobs,
        stream,
        context: context.clone(),
        model: found.model,
    };
    let progress = generation::start(&server, work)?;
    let mut response = if stream {
        completion_reply::streamed(progress, &context, facts, style, echoed)
    } else {
        completion_reply::whole(progress, &context, &facts, &style, echoed).await?
    };
    turn_headers::write(response.headers_mut(), &context);
    reply::set_ignored(response.headers_mut(), &ignored);
    Ok(response)
}

fn check(request: &CompletionRequest) -> Result<(), ApiError> {
    let refuse =
        |kind, message: &'static str, param: &str| Err(ApiError::new(kind, message).param(param));
    let stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !stream {
        let message = "stream_options needs stream: true";
        return refuse(ErrorKind::InvalidValue, message, "stream_options");
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return refuse(ErrorKind::Unsupported, "suffix is not supported", "suffix");
    }
    let num_choices = request.n.map_or(1, |n| n.size());
    if request.best_of.is_some_and(|best_of| best_of.size() != num_choices) {
        let message = "best_of other than n is not supported";
        return refuse(ErrorKind::Unsupported, message, "best_of");
    }
    if stream && request.echo == Some(true) && request.logprobs.is_some() {
        let message = "echo with logprobs cannot be streamed";
        return refuse(ErrorKind::Unsupported, message, "stream");
    }
    Ok(())
}

/// Prompts as the engine takes them, once for each choice.
struct Prepared {
    requests: Vec<Request>,
    /// What is recorded as each choice's prompt.
    recorded: Vec<Value>,
}

fn prepare(facts: &ModelFacts, wire: CompletionRequest) -> Result<Prepared, ApiError> {
    let sampling = wire.sampling().params()?;
    let num_choices = wire.n.map_or(1, |n| n.size());
    let prompts = wire.prompt.into_list();
    if prompts.is_empty() || prompts.len() * num_choices > CHOICES_MAX {
        let message = format!(
            "prompt: expected 1 to {CHOICES_MAX} prompts and choices, found {}",
            prompts.len() * num_choices
        );
        return Err(ApiError::new(ErrorKind::InvalidValue, message).param("prompt"));
    }
    let stop_strings = stop_strings(wire.stop);
    let max_tokens = wire.max_tokens.map_or(ANSWER_TOKENS_DEFAULT, |tokens| tokens.size());
    let wants_prompt = wire.echo == Some(true);
    let mut prepared = Prepared { requests: Vec::new(), recorded: Vec::new() };
    for prompt in prompts {
        let recorded = match &prompt {
            OnePrompt::Text(text) => json!(text),
            // The tokens are recorded anyway; as a text they can be read and searched.
            OnePrompt::Tokens(tokens) => json!(facts.tokenizer.decode(tokens, false)),
        };
        let request = Request {
            sampling: sampling.clone(),
            stop_strings: stop_strings.clone(),
            prompt_logprobs: sampling.logprobs.filter(|_| wants_prompt),
            ..Request::new(encode(facts, prompt)?, max_tokens)
        };
        prepared.requests.extend(plan::fork(request, num_choices));
        prepared.recorded.extend(vec![recorded; num_choices]);
    }
    Ok(prepared)
}

/// The tokens of a prompt. What looks like a control token in a text stays text.
pub(super) fn encode(facts: &ModelFacts, prompt: OnePrompt) -> Result<Vec<u32>, ApiError> {
    let text = match prompt {
        OnePrompt::Tokens(tokens) => {
            // Refused here too, because the tokens are turned into text before the engine looks.
            let vocab_size = facts.tokenizer.vocab_size();
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                let message =
                    format!("prompt: token id {token} is not in the vocabulary of {vocab_size}");
                return Err(ApiError::new(ErrorKind::InvalidValue, message).param("prompt"));
            }
            return Ok(tokens);
        }
        OnePrompt::Text(text) => text,
    };
    let add_bos = facts.tokenizer.adds_bos();
    let options = EncodeOptions { add_bos, ..EncodeOptions::default() };
    facts.tokenizer.encode(&text, options).map_err(|error| {
        ApiError::new(ErrorKind::InvalidValue, format!("prompt: {error}")).param("prompt")
    })
}
