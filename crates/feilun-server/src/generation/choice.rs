//! One answer, put together from the engine's events.

use feilun_infer::event::{Timings, Usage};
use feilun_infer::sampling::TokenLogprobs;
use feilun_infer::{EventKind, FinishReason};
use uuid::Uuid;

use crate::tools::calls::{CallParser, Piece};
use crate::wire::usage::Usage as AnswerUsage;

/// What an event adds for the caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    /// Of the token that was generated, where asked for.
    pub(crate) logprobs: Option<TokenLogprobs>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty() && self.logprobs.is_none()
    }
}

/// A call that the model made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Stop,
    Length,
    /// Taken back: the caller left, or the time was up.
    Cancelled,
    Failed(String),
}

/// An answer on its way, or whole.
#[derive(Debug)]
pub(crate) struct Choice {
    parser: Option<CallParser>,
    /// The text without calls.
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) tokens: Vec<u32>,
    /// One for each token, where the engine was asked; a token that a constraint left no choice
    /// about has the log-probability 0 and no alternatives.
    pub(crate) logprobs: Vec<TokenLogprobs>,
    /// Of the prompt's tokens but the first.
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    /// Of the prompt, where asked for.
    pub(crate) embedding: Option<Vec<f32>>,
    /// The token that ended it, which no text shows.
    pub(crate) end_token: Option<u32>,
    pub(crate) end: Option<End>,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// Tokens of all choices, of which so many belong to each prompt.
pub(crate) fn usage(choices: &[Choice], choices_per_prompt: usize) -> AnswerUsage {
    AnswerUsage::of(choices.iter().map(|choice| choice.usage), choices_per_prompt)
}

impl Choice {
    /// With `find_calls` the answer may hold calls.
    pub(crate) fn new(find_calls: bool) -> Choice {
        Choice {
            parser: find_calls.then(CallParser::default),
            text: String::new(),
            calls: Vec::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            prompt_logprobs: Vec::new(),
            embedding: None,
            end_token: None,
            end: None,
            usage: Usage::default(),
            timings: Timings::default(),
        }
    }

    /// Reads an event; what it adds is for the caller.
    pub(crate) fn read(&mut self, event: EventKind, wants_logprobs: bool) -> Delta {
        match event {
            EventKind::PromptLogprobs { logprobs, .. } => {
                self.prompt_logprobs.extend(logprobs);
                Delta::default()
            }
            EventKind::Embedding(vector) => {
                self.embedding = Some(vector);
                Delta::default()
            }
            EventKind::Token(token) => {
                let forced = TokenLogprobs { token: token.token, logprob: 0.0, top: Vec::new() };
                let logprobs = token.logprobs.unwrap_or(forced);
                let told = wants_logprobs.then(|| logprobs.clone());
                self.tokens.push(token.token);
                self.logprobs.push(logprobs);
                Delta { logprobs: told, ..self.say(&token.text) }
            }
            EventKind::Finished(finish) => {
                let mut delta = self.say(&finish.text);
                let rest = self.parser.as_mut().map(CallParser::finish).unwrap_or_default();
                self.add(rest, &mut delta);
                self.usage = finish.usage;
                self.timings = finish.timings;
                self.end = Some(match finish.reason {
                    FinishReason::Stop(cause) => {
                        if let feilun_infer::event::StopCause::Token(token) = cause {
                            self.end_token = Some(token);
                        }
                        End::Stop
                    }
                    FinishReason::Length => End::Length,
                    FinishReason::Cancelled => End::Cancelled,
                    FinishReason::Failed(error) => End::Failed(error.to_string()),
                });
                delta
            }
        }
    }

    /// OpenAI's `finish_reason`.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match self.end {
            Some(End::Length) => "length",
            _ if !self.calls.is_empty() => "tool_calls",
            _ => "stop",
        }
    }

    fn say(&mut self, text: &str) -> Delta {
        let mut delta = Delta::default();
        match &mut self.parser {
            None => {
                self.text += text;
                delta.text.push_str(text);
            }
            Some(parser) => {
                let pieces = parser.push(text);
                self.add(pieces, &mut delta);
            }
        }
        delta
    }

    fn add(&mut self, pieces: Vec<Piece>, delta: &mut Delta) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    self.text += &text;
                    delta.text += &text;
                }
                Piece::Call { name, arguments } => {
                    let id = format!("call_{}", Uuid::now_v7().simple());
                    let call = ToolCall { id, name, arguments };
                    self.calls.push(call.clone());
                    delta.calls.push(call);
                }
            }
        }
    }
}
