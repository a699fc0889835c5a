//! Answers to completions, in OpenAI's shapes: whole, or in chunks.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use feilun_infer::Request;
use feilun_infer::sampling::TokenLogprobs;
use feilun_text::Tokenizer;
use tokio::sync::mpsc;

use crate::backend::ModelFacts;
use crate::error::ApiError;
use crate::generation::capture::TurnContext;
use crate::generation::choice::{self, Choice};
use crate::generation::{self, Progress};
use crate::http::stream;
use crate::plan::{created, fingerprint};
use crate::reply;
use crate::wire::completion::{CompletionAnswer, CompletionChoice, CompletionLogprobs};
use crate::wire::usage::Usage;

/// How the caller wants it.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    /// As the caller named it.
    pub(crate) model: String,
    pub(crate) include_usage: Option<bool>,
    /// The prompt comes before the answer.
    pub(crate) echo: bool,
    pub(crate) wants_logprobs: bool,
    pub(crate) choices_per_prompt: usize,
}

/// A prompt that is returned with its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    text: String,
    tokens: Vec<u32>,
}

/// What is returned before each answer: nothing, unless it was asked for.
pub(crate) fn echoes(facts: &ModelFacts, requests: &[Request], wanted: bool) -> Vec<Echo> {
    let echo = |request: &Request| match wanted {
        false => Echo::default(),
        true => Echo {
            text: facts.tokenizer.decode(&request.prompt, true),
            tokens: request.prompt.clone(),
        },
    };
    requests.iter().map(echo).collect()
}

/// Waits for the end, and answers in one piece.
pub(crate) async fn whole(
    progress: mpsc::Receiver<Progress>,
    context: &TurnContext,
    facts: &ModelFacts,
    style: &Style,
    echoed: Vec<Echo>,
) -> Result<Response, ApiError> {
    let choices = generation::wait(progress).await?;
    let usage = choice::usage(&choices, style.choices_per_prompt);
    let choices = choices.iter().zip(&echoed).enumerate().map(|(index, (choice, echo))| {
        let logprobs = style.wants_logprobs.then(|| {
            let mut lists = Lists::new(&facts.tokenizer);
            lists.echo(echo, &choice.prompt_logprobs);
            choice.logprobs.iter().for_each(|token| lists.push(token));
            lists.lists
        });
        CompletionChoice {
            index,
            text: format!("{}{}", echo.text, choice.text),
            logprobs,
            finish_reason: Some(choice.finish_reason()),
        }
    });
    let answer = CompletionAnswer {
        id: &context.id(),
        object: "text_completion",
        created: created(context),
        model: &style.model,
        choices: choices.collect(),
        usage: Some(Some(usage)),
        system_fingerprint: &fingerprint(facts),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Answers as it comes about.
pub(crate) fn streamed(
    progress: mpsc::Receiver<Progress>,
    context: &TurnContext,
    facts: ModelFacts,
    style: Style,
    echoed: Vec<Echo>,
) -> Response {
    let mut chunks = Chunks {
        id: context.id(),
        created: created(context),
        fingerprint: fingerprint(&facts),
        offsets: echoed.iter().map(|echo| echo.text.chars().count()).collect(),
        echoed,
        facts,
        style,
    };
    stream::respond(progress, Box::new(move |progress| chunks.write(progress)))
}

struct Chunks {
    id: String,
    created: u64,
    fingerprint: String,
    facts: ModelFacts,
    style: Style,
    /// Characters of each choice's tokens so far.
    offsets: Vec<usize>,
    /// What is still to be said before each answer.
    echoed: Vec<Echo>,
}

impl Chunks {
    fn write(&mut self, progress: Progress) -> Bytes {
        let mut out = Vec::new();
        if !matches!(progress, Progress::Failed(_)) {
            for (index, echo) in std::mem::take(&mut self.echoed).into_iter().enumerate() {
                if !echo.text.is_empty() {
                    self.chunk(&mut out, index, echo.text, None, None);
                }
            }
        }
        match progress {
            Progress::KeepAlive => out.extend(stream::KEEP_ALIVE),
            Progress::Failed(error) => stream::event(&mut out, &error.body()),
            Progress::Delta { choice, delta } => {
                let logprobs = delta.logprobs.and_then(|token| {
                    let offset = self.offsets.get_mut(choice)?;
                    let mut lists = Lists::new(&self.facts.tokenizer);
                    lists.offset = *offset;
                    lists.push(&token);
                    *offset = lists.offset;
                    Some(lists.lists)
                });
                self.chunk(&mut out, choice, delta.text, logprobs, None);
            }
            Progress::Done(choices) => self.done(&mut out, &choices),
        }
        out.into()
    }

    fn done(&self, out: &mut Vec<u8>, choices: &[Choice]) {
        for (index, choice) in choices.iter().enumerate() {
            self.chunk(out, index, String::new(), None, Some(choice.finish_reason()));
        }
        if self.style.include_usage == Some(true) {
            let usage = choice::usage(choices, self.style.choices_per_prompt);
            stream::event(out, &self.frame(Vec::new(), Some(Some(usage))));
        }
        out.extend(stream::DONE);
    }

    fn chunk(
        &self,
        out: &mut Vec<u8>,
        index: usize,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        finish_reason: Option<&'static str>,
    ) {
        let choice = CompletionChoice { index, text, logprobs, finish_reason };
        let usage = (self.style.include_usage == Some(true)).then_some(None);
        stream::event(out, &self.frame(vec![choice], usage));
    }

    fn frame(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<Option<Usage>>,
    ) -> CompletionAnswer<'_> {
        CompletionAnswer {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.style.model,
            choices,
            usage,
            system_fingerprint: &self.fingerprint,
        }
    }
}

/// The lists side by side, while they are filled.
struct Lists<'a> {
    tokenizer: &'a Tokenizer,
    lists: CompletionLogprobs,
    /// Characters so far.
    offset: usize,
}

impl<'a> Lists<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Lists<'a> {
        Lists { tokenizer, lists: CompletionLogprobs::default(), offset: 0 }
    }

    /// The prompt, whose first token nothing precedes.
    fn echo(&mut self, echo: &Echo, logprobs: &[TokenLogprobs]) {
        if let Some(&first) = echo.tokens.first() {
            self.add(first, None, None);
        }
        logprobs.iter().for_each(|token| self.push(token));
    }

    fn push(&mut self, token: &TokenLogprobs) {
        let mut top = BTreeMap::new();
        // Different tokens may have one text, such as parts of characters: the likeliest stays.
        for &(alternative, logprob) in &token.top {
            top.entry(self.text(alternative)).or_insert(logprob);
        }
        self.add(token.token, Some(token.logprob), Some(top));
    }

    fn add(&mut self, token: u32, logprob: Option<f32>, top: Option<BTreeMap<String, f32>>) {
        let text = self.text(token);
        self.lists.text_offset.push(self.offset);
        self.offset += text.chars().count();
        self.lists.tokens.push(text);
        self.lists.token_logprobs.push(logprob);
        self.lists.top_logprobs.push(top);
    }

    fn text(&self, token: u32) -> String {
        self.tokenizer.token_text(token).into_owned()
    }
}
