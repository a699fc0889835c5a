//! A request and its answers as the turns that the store keeps.
//!
//! A choice is a turn: the first has the id that the caller sees as the completion's, the others
//! have ids of their own, which a header tells.

use std::sync::Arc;

use feilun_infer::Request;
use feilun_store::Timestamp;
use feilun_store::aliases::AliasTarget;
use feilun_store::digest::TemplateHash;
use feilun_store::id::{ConversationId, TurnId};
use feilun_store::turns::{Api, NewTurn};
use serde_json::{Value, json};

use super::choice::{Choice, End};
use crate::error::ApiError;
use crate::security::callers::Caller;
use crate::server::Server;

/// What is recorded with the turns of a request, besides what the engine says.
#[derive(Clone, Debug)]
pub(crate) struct TurnContext {
    pub(crate) caller: Caller,
    pub(crate) turns: Vec<TurnId>,
    pub(crate) conversation: ConversationId,
    pub(crate) parent: Option<TurnId>,
    pub(crate) api: Api,
    /// The model, and the adapter over it.
    pub(crate) model: AliasTarget,
    pub(crate) alias: Option<String>,
    pub(crate) template: Option<TemplateHash>,
    /// One for all choices, or one for each.
    pub(crate) requests: Vec<Value>,
    /// What else of the request is worth keeping: metadata, tools, formats.
    pub(crate) settings: Value,
    pub(crate) end_user: Option<String>,
    pub(crate) consent: Option<bool>,
    pub(crate) received_at: Timestamp,
}

impl TurnContext {
    /// The completion's id: that of its first turn.
    pub(crate) fn id(&self) -> String {
        self.turns.first().map(ToString::to_string).unwrap_or_default()
    }
}

/// Commits the turns; all of them share a commit.
pub(crate) async fn record(
    server: &Arc<Server>,
    context: &TurnContext,
    requests: &[Request],
    choices: &[Choice],
    ended: Option<&'static str>,
) -> Result<(), ApiError> {
    let mut writes = tokio::task::JoinSet::new();
    for (index, (request, choice)) in requests.iter().zip(choices).enumerate() {
        let Some(&id) = context.turns.get(index) else { continue };
        let turn = turn(server, context, index, id, request, choice, ended);
        let store = server.store.clone();
        writes.spawn(async move { store.record_turn(turn).await });
    }
    while let Some(written) = writes.join_next().await {
        match written {
            Ok(result) => result?,
            Err(error) => return Err(ApiError::internal(&error)),
        }
    }
    Ok(())
}

fn turn(
    server: &Server,
    context: &TurnContext,
    index: usize,
    id: TurnId,
    request: &Request,
    choice: &Choice,
    ended: Option<&'static str>,
) -> NewTurn {
    let own = context.requests.get(index).or_else(|| context.requests.first());
    let error = match &choice.end {
        Some(End::Failed(reason)) => Some(reason.clone()),
        _ => None,
    };
    let finish_reason = match (&choice.end, ended) {
        (Some(End::Failed(_)), _) => "error",
        (Some(End::Cancelled) | None, Some(ended)) => ended,
        (Some(End::Cancelled) | None, None) => "cancelled",
        (Some(End::Stop | End::Length), _) => choice.finish_reason(),
    };
    NewTurn {
        id,
        conversation: context.conversation,
        parent: context.parent,
        user: context.caller.user,
        end_user: context.end_user.clone(),
        key: context.caller.key,
        app: None,
        model: context.model.model,
        adapter: context.model.adapter,
        alias: context.alias.clone(),
        api: context.api,
        request: own.cloned().unwrap_or(Value::Null),
        answer: answer(context.api, choice),
        prompt_tokens: request.prompt.clone(),
        answer_tokens: choice.tokens.clone(),
        answer_logprobs: choice.logprobs.iter().map(|token| token.logprob).collect(),
        seed: Some(request.sampling.seed),
        sampling: sampling(context, request),
        template: context.template,
        config: server.config_hash,
        consent: context.consent,
        finish_reason: finish_reason.to_owned(),
        received_at: context.received_at,
        first_token_at: choice.timings.first_token.map(|time| context.received_at.plus(time)),
        finished_at: Timestamp::now(),
        num_cached_tokens: u32::try_from(choice.usage.cached_prompt).unwrap_or(u32::MAX),
        error,
    }
}

/// The answer in OpenAI's shape.
fn answer(api: Api, choice: &Choice) -> Value {
    match api {
        Api::Completion => json!(choice.text),
        Api::Chat if choice.calls.is_empty() => {
            json!({"role": "assistant", "content": choice.text})
        }
        Api::Chat => {
            let call = |call: &super::choice::ToolCall| {
                json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            };
            let calls: Vec<Value> = choice.calls.iter().map(call).collect();
            json!({"role": "assistant", "content": choice.text, "tool_calls": calls})
        }
    }
}

fn sampling(context: &TurnContext, request: &Request) -> Value {
    let sampling = &request.sampling;
    let bias: serde_json::Map<String, Value> =
        sampling.logit_bias.iter().map(|(token, bias)| (token.to_string(), json!(bias))).collect();
    json!({
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": bias,
        "max_tokens": request.max_tokens,
        "stop": request.stop_strings,
        "request": context.settings,
    })
}
