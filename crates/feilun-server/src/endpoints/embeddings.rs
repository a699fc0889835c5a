//! `POST /v1/embeddings`: a vector for each text, the mean of the model's last hidden states,
//! scaled to length 1. The texts are no turns: nothing of them is recorded.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feilun_infer::{EventKind, FinishReason, Request};
use tokio::sync::mpsc;

use super::{Asking, Shared, completions};
use crate::backend::{ServedModel, Submission};
use crate::error::{ApiError, ErrorKind};
use crate::generation;
use crate::http::body::Json;
use crate::reply;
use crate::security::callers::Caller;
use crate::wire::embedding::{Embedding, EmbeddingAnswer, EmbeddingRequest, Encoding, Vector};
use crate::wire::strict::Parsed;
use crate::wire::usage::Usage;

/// Most texts of one request (OpenAI's bound is 2048).
const INPUTS_MAX: usize = 256;

/// Embeds texts.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    Json(Parsed { request, ignored, .. }): Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let found = server.model(&request.model).await?;
    if request.dimensions.is_some() {
        let message = "dimensions: a model's vectors have the length that they have";
        return Err(ApiError::new(ErrorKind::Unsupported, message).param("dimensions"));
    }
    let inputs = request.input.into_list();
    if inputs.is_empty() || inputs.len() > INPUTS_MAX {
        let message = format!("input: expected 1 to {INPUTS_MAX}, found {}", inputs.len());
        return Err(ApiError::new(ErrorKind::InvalidValue, message).param("input"));
    }
    let model = Arc::clone(&found.model);
    let prompts = server
        .prepare(move || {
            let facts = model.facts();
            let encode = |input| completions::encode(facts, input);
            inputs.into_iter().map(encode).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let num_tokens = prompts.iter().map(Vec::len).sum();
    server.charge_tokens(&caller, num_tokens);
    let limit = server.config.limits.generation_timeout;
    let vectors = tokio::time::timeout(limit, embed(&*found.model, &caller, prompts))
        .await
        .map_err(|_| ApiError::new(ErrorKind::GenerationFailed, "it took too long"))??;
    let write = |vector: Vec<f32>| match request.encoding_format {
        Some(Encoding::Base64) => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
        Some(Encoding::Float) | None => Vector::Float(vector),
    };
    let data = vectors.into_iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: write(vector),
    });
    let answer = EmbeddingAnswer {
        object: "list",
        data: data.collect(),
        model: request.model,
        usage: Usage::of_prompts(num_tokens),
    };
    let mut response = reply::json(StatusCode::OK, &answer);
    reply::set_ignored(response.headers_mut(), &ignored);
    Ok(response)
}

/// One request of the engine after the other: together they would crowd out whoever chats.
async fn embed(
    model: &dyn ServedModel,
    caller: &Caller,
    prompts: Vec<Vec<u32>>,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let mut vectors = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (sender, mut events) = mpsc::unbounded_channel();
        let sink = Box::new(move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        let request = Request { embedding: true, ..Request::new(prompt, 0) };
        let submission = Submission { request, tenant: caller.tenant, sink };
        let _ticket = model.submit(submission).map_err(generation::refused)?;
        let mut found = None;
        while let Some(event) = events.recv().await {
            match event {
                EventKind::Embedding(vector) => found = Some(vector),
                EventKind::Finished(finish) => {
                    if let FinishReason::Failed(error) = finish.reason {
                        let message = format!("the model failed: {error}");
                        return Err(ApiError::new(ErrorKind::GenerationFailed, message));
                    }
                    break;
                }
                EventKind::Token(_) | EventKind::PromptLogprobs { .. } => {}
            }
        }
        vectors.push(found.ok_or_else(generation::broken_off)?);
    }
    Ok(vectors)
}
