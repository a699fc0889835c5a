//! Answers to chats, in OpenAI's shapes: whole, or in chunks.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use feilun_infer::sampling::TokenLogprobs;
use feilun_text::Tokenizer;
use tokio::sync::mpsc;

use crate::backend::ModelFacts;
use crate::error::ApiError;
use crate::generation::capture::TurnContext;
use crate::generation::choice::{self, Choice, Delta, ToolCall};
use crate::generation::{self, Progress};
use crate::http::stream;
use crate::plan::{created, fingerprint};
use crate::reply;
use crate::wire::chat_answer::{
    AnswerMessage, ChatAnswer, ChatChoice, ChatChunk, ChatLogprobs, ChunkChoice, ChunkDelta,
    ChunkToolCall, TokenEntry, TokenLogprob,
};
use crate::wire::tool::{CalledFunction, WireToolCall};
use crate::wire::usage::Usage;

/// How the caller wants it.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    /// As the caller named it.
    pub(crate) model: String,
    pub(crate) include_usage: Option<bool>,
    pub(crate) wants_logprobs: bool,
    pub(crate) num_choices: usize,
}

/// Waits for the end, and answers in one piece.
pub(crate) async fn whole(
    progress: mpsc::Receiver<Progress>,
    context: &TurnContext,
    facts: &ModelFacts,
    style: &Style,
) -> Result<Response, ApiError> {
    let choices = generation::wait(progress).await?;
    let answer = ChatAnswer {
        id: context.id(),
        object: "chat.completion",
        created: created(context),
        model: style.model.clone(),
        usage: choice::usage(&choices, style.num_choices),
        system_fingerprint: fingerprint(facts),
        choices: choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| chat_choice(index, choice, facts, style))
            .collect(),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

fn chat_choice(index: usize, choice: Choice, facts: &ModelFacts, style: &Style) -> ChatChoice {
    let finish_reason = choice.finish_reason();
    let logprobs = style.wants_logprobs.then(|| logprobs(&choice.logprobs, &facts.tokenizer));
    // Next to calls, silence is null.
    let is_silent = !choice.calls.is_empty() && choice.text.trim().is_empty();
    let call = |call: ToolCall| WireToolCall::Function {
        id: call.id,
        function: CalledFunction { name: call.name, arguments: call.arguments },
    };
    let message = AnswerMessage {
        role: "assistant",
        content: (!is_silent).then_some(choice.text),
        refusal: None,
        tool_calls: choice.calls.into_iter().map(call).collect(),
    };
    ChatChoice { index, message, logprobs, finish_reason }
}

/// The tokens that stand for text; what ends an answer is not among them.
fn logprobs(tokens: &[TokenLogprobs], tokenizer: &Tokenizer) -> ChatLogprobs {
    let one = |token: u32, logprob: f32| TokenLogprob {
        token: tokenizer.token_text(token).into_owned(),
        logprob,
        bytes: tokenizer.token_bytes(token).to_vec(),
    };
    let entry = |token: &TokenLogprobs| TokenEntry {
        token: one(token.token, token.logprob),
        top_logprobs: token.top.iter().map(|&(token, logprob)| one(token, logprob)).collect(),
    };
    let shown = tokens.iter().filter(|token| !tokenizer.is_special(token.token));
    ChatLogprobs { content: shown.map(entry).collect(), refusal: None }
}

/// Answers as it comes about.
pub(crate) fn streamed(
    progress: mpsc::Receiver<Progress>,
    context: &TurnContext,
    facts: ModelFacts,
    style: Style,
) -> Response {
    let mut chunks = Chunks {
        id: context.id(),
        created: created(context),
        fingerprint: fingerprint(&facts),
        num_calls: vec![0; style.num_choices],
        facts,
        style,
        has_begun: false,
    };
    stream::respond(progress, Box::new(move |progress| chunks.write(progress)))
}

struct Chunks {
    id: String,
    created: u64,
    fingerprint: String,
    facts: ModelFacts,
    style: Style,
    /// Calls that each choice has made.
    num_calls: Vec<usize>,
    has_begun: bool,
}

impl Chunks {
    fn write(&mut self, progress: Progress) -> Bytes {
        let mut out = Vec::new();
        if !self.has_begun && !matches!(progress, Progress::Failed(_)) {
            self.has_begun = true;
            for index in 0..self.style.num_choices {
                let delta = ChunkDelta {
                    role: Some("assistant"),
                    content: Some(String::new()),
                    ..ChunkDelta::default()
                };
                self.chunk(&mut out, index, delta, None, None);
            }
        }
        match progress {
            Progress::KeepAlive => out.extend(stream::KEEP_ALIVE),
            Progress::Failed(error) => stream::event(&mut out, &error.body()),
            Progress::Delta { choice, delta } => self.delta(&mut out, choice, delta),
            Progress::Done(choices) => self.done(&mut out, &choices),
        }
        out.into()
    }

    fn delta(&mut self, out: &mut Vec<u8>, index: usize, delta: Delta) {
        let Some(num_calls) = self.num_calls.get_mut(index) else { return };
        let tool_calls: Vec<ChunkToolCall> = delta
            .calls
            .into_iter()
            .map(|call| {
                let index = *num_calls;
                *num_calls += 1;
                ChunkToolCall {
                    index,
                    id: call.id,
                    kind: "function",
                    function: CalledFunction { name: call.name, arguments: call.arguments },
                }
            })
            .collect();
        let logprobs = delta.logprobs.map(|token| logprobs(&[token], &self.facts.tokenizer));
        let logprobs = logprobs.filter(|logprobs| !logprobs.content.is_empty());
        let content = (!delta.text.is_empty()).then_some(delta.text);
        if content.is_none() && tool_calls.is_empty() && logprobs.is_none() {
            return;
        }
        let delta = ChunkDelta { role: None, content, tool_calls };
        self.chunk(out, index, delta, logprobs, None);
    }

    fn done(&self, out: &mut Vec<u8>, choices: &[Choice]) {
        for (index, choice) in choices.iter().enumerate() {
            let reason = Some(choice.finish_reason());
            self.chunk(out, index, ChunkDelta::default(), None, reason);
        }
        if self.style.include_usage == Some(true) {
            let usage = choice::usage(choices, self.style.num_choices);
            stream::event(out, &self.frame(Vec::new(), Some(Some(usage))));
        }
        out.extend(stream::DONE);
    }

    fn chunk(
        &self,
        out: &mut Vec<u8>,
        index: usize,
        delta: ChunkDelta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) {
        let choice = ChunkChoice { index, delta, logprobs, finish_reason };
        let usage = (self.style.include_usage == Some(true)).then_some(None);
        stream::event(out, &self.frame(vec![choice], usage));
    }

    fn frame(&self, choices: Vec<ChunkChoice>, usage: Option<Option<Usage>>) -> ChatChunk<'_> {
        ChatChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.style.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
        }
    }
}
