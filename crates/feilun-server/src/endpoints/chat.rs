//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use feilun_infer::{ConstraintSource, Request};
use feilun_store::Timestamp;
use feilun_store::turns::Api;
use feilun_text::{ChatOptions, Conversation};
use serde_json::{Value, json};

use super::{Asking, Shared, chat_reply, turn_headers};
use crate::backend::ModelFacts;
use crate::error::{ApiError, ErrorKind};
use crate::generation::{self, Work};
use crate::http::body::Json;
use crate::plan::{self, ContextParts};
use crate::reply;
use crate::tools::{self, ToolPlan};
use crate::wire::chat::{ChatRequest, ResponseFormat};
use crate::wire::message;
use crate::wire::sampling::stop_strings;
use crate::wire::strict::Parsed;

/// Answers a chat.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    headers: HeaderMap,
    Json(Parsed { request, ignored, original }): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let received_at = Timestamp::now();
    let turn_headers = turn_headers::read(&server, &caller, &headers).await?;
    let found = server.model(&request.model).await?;
    let stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !stream {
        let message = "stream_options needs stream: true";
        return Err(ApiError::new(ErrorKind::InvalidValue, message).param("stream_options"));
    }
    let num_choices = request.n.map_or(1, |n| n.size());
    let answer_tokens_default = server.config.limits.answer_tokens_default;
    let style = chat_reply::Style {
        model: request.model.clone(),
        include_usage: request.stream_options.and_then(|options| options.include_usage),
        wants_logprobs: request.logprobs.unwrap_or(false),
        num_choices,
    };
    let end_user = request.user.clone();
    let model = Arc::clone(&found.model);
    let prepared = server
        .prepare(move || Prepared::new(model.facts(), request, answer_tokens_default))
        .await?;
    let context = plan::context(ContextParts {
        server: &server,
        caller,
        headers: turn_headers,
        found: &found,
        api: Api::Chat,
        num_turns: num_choices,
        requests: vec![original.get("messages").cloned().unwrap_or(Value::Null)],
        settings: plan::settings(&original, &["messages", "model"]),
        end_user,
        received_at,
    })?;
    server.charge_tokens(&context.caller, prepared.request.prompt.len());
    let work = Work {
        requests: plan::fork(prepared.request, num_choices),
        find_calls: prepared.find_calls,
        wants_logprobs: style.wants_logprobs,
        stream,
        context: context.clone(),
        model: found.model,
    };
    let facts = work.model.facts().clone();
    let progress = generation::start(&server, work)?;
    let mut response = if stream {
        chat_reply::streamed(progress, &context, facts, style)
    } else {
        chat_reply::whole(progress, &context, &facts, &style).await?
    };
    turn_headers::write(response.headers_mut(), &context);
    reply::set_ignored(response.headers_mut(), &ignored);
    Ok(response)
}

/// A chat as the engine takes it.
struct Prepared {
    request: Request,
    find_calls: bool,
}

impl Prepared {
    fn new(
        facts: &ModelFacts,
        wire: ChatRequest,
        answer_tokens_default: usize,
    ) -> Result<Prepared, ApiError> {
        let mut sampling = wire.sampling().params()?;
        if wire.top_logprobs.is_some() && wire.logprobs != Some(true) {
            let message = "top_logprobs needs logprobs: true";
            return Err(ApiError::new(ErrorKind::InvalidValue, message).param("top_logprobs"));
        }
        sampling.logprobs = wire.num_logprobs();
        let plan = ToolPlan::new(wire.tools, wire.tool_choice.as_ref(), wire.parallel_tool_calls)?;
        let constraint = constraint(facts, wire.response_format, plan.as_ref())?;
        let messages = message::messages(wire.messages)?;
        let conversation = if tools::template_knows_tools(facts.chat_format.template()) {
            Conversation::with_tools(messages, plan.as_ref().map(ToolPlan::for_template))
        } else {
            Conversation::new(tools::in_words(messages, plan.as_ref()))
        };
        let options = ChatOptions { date: plan::today(), variables: None };
        let prompt = conversation
            .and_then(|conversation| {
                facts.chat_format.render_for_generation(&conversation, &options)
            })
            .map_err(|error| plan::chat_refused(&error))?;
        let wanted = wire.max_completion_tokens.or(wire.max_tokens);
        let max_tokens = match wanted {
            Some(wanted) => wanted.size(),
            // What is left of the context, but no endless answer that nobody asked for.
            None => {
                facts.context_length.saturating_sub(prompt.len()).clamp(1, answer_tokens_default)
            }
        };
        let request = Request {
            sampling,
            stop_strings: stop_strings(wire.stop),
            constraint: plan::compile(facts, constraint, "response_format")?,
            ..Request::new(prompt, max_tokens)
        };
        Ok(Prepared { request, find_calls: plan.is_some() })
    }
}

/// What the answer must be.
fn constraint(
    facts: &ModelFacts,
    format: Option<ResponseFormat>,
    plan: Option<&ToolPlan>,
) -> Result<Option<ConstraintSource>, ApiError> {
    let of_format = match format {
        None | Some(ResponseFormat::Text) => None,
        Some(ResponseFormat::JsonObject) => Some(ConstraintSource::JsonObject),
        Some(ResponseFormat::JsonSchema { json_schema }) => {
            let schema = json_schema.schema.unwrap_or_else(|| json!({}));
            Some(ConstraintSource::JsonSchema(schema))
        }
    };
    match (of_format, plan) {
        (Some(_), Some(_)) => {
            let message = "response_format and tools cannot both be enforced in one answer";
            Err(ApiError::new(ErrorKind::Unsupported, message).param("response_format"))
        }
        (of_format, None) => Ok(of_format),
        (None, Some(plan)) => plan.constraint(&facts.constraints).map(Some),
    }
}
