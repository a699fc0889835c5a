//! The scheduler: many requests over one model, one forward pass (or two) at a time.
//!
//! Requests wait in a bounded queue, are admitted in order, and then share each [`step`]: every
//! sequence that is generating gets its next token, and chunks of prompts fill the rest of the
//! step. Exact and fast requests are computed in separate passes. A request's tokens do not
//! depend on who else is there, on how its prompt was cut into chunks, or on what was found in
//! the cache: draws are functions of seed and position, and everything else belongs to the
//! sequence. (In fast mode the logits themselves may differ in their last bits with the number
//! of rows; in exact mode they do not.)
//!
//! The engine is driven by one thread, and knows neither HTTP nor the time of day. The
//! module `plan` says what a step computes, `sequence` what a new token does.
//!
//! [`step`]: Engine::step

mod plan;
mod sequence;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use feilun_model::{BatchMode, ForwardError, KV_BLOCK_TOKENS, LogitRows, Segment};
use plan::{Budget, Chunk};
use sequence::Sequence;

use crate::decoder::{Decoder, LogitsView};
use crate::event::{Event, EventKind, Finish, FinishReason, GenerationError};
use crate::kv::KvCache;
use crate::request::{LoadedAdapter, Request, RequestId, STOP_TOKENS_MAX, SubmitError};
use crate::sampling::{Sampler, params};
use crate::stop;
use crate::vocabulary::Vocabulary;

/// The time since some fixed moment.
pub type Clock = Box<dyn Fn() -> Duration + Send>;

/// Sizes of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Most sequences that are computed together; less if the decoder has fewer rows.
    pub running_max: usize,
    /// Most requests in the queue.
    pub waiting_max: usize,
    /// Most prompt tokens of one step. Small values keep the time between tokens short while
    /// prompts come in, large ones compute prompts faster.
    pub prompt_rows_max: usize,
    /// Most rows of prompt log-probabilities in one step; less if the decoder has fewer rows of
    /// logits.
    pub scored_rows_max: usize,
    /// Share the blocks of equal beginnings, and keep them for later requests.
    pub share_prefixes: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            running_max: 64,
            waiting_max: 256,
            prompt_rows_max: usize::MAX,
            scored_rows_max: usize::MAX,
            share_prefixes: true,
        }
    }
}

/// A model at work for many requests.
pub struct Engine<D> {
    decoder: D,
    vocabulary: Arc<dyn Vocabulary>,
    config: EngineConfig,
    clock: Clock,
    cache: KvCache,
    sampler: Sampler,
    waiting: VecDeque<Sequence>,
    /// In order of submission.
    running: Vec<Sequence>,
    /// Not handed out yet.
    events: Vec<Event>,
    num_submitted: u64,
}

impl<D> std::fmt::Debug for Engine<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .field("num_waiting", &self.waiting.len())
            .field("num_running", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl<D: Decoder> Engine<D> {
    /// An engine without requests. The vocabulary is that of the decoder's model.
    pub fn new(
        decoder: D,
        vocabulary: Arc<dyn Vocabulary>,
        config: EngineConfig,
        clock: Clock,
    ) -> Engine<D> {
        // One row of logits each, and one more so that a prompt can always be scored.
        let rows = decoder.max_rows().min(decoder.max_logit_rows().saturating_sub(1));
        let running_max = config.running_max.clamp(1, rows.max(1));
        let config = EngineConfig {
            running_max,
            prompt_rows_max: config.prompt_rows_max.max(1),
            scored_rows_max: config.scored_rows_max.max(1),
            ..config
        };
        Engine {
            cache: KvCache::new(decoder.num_blocks(), config.share_prefixes),
            sampler: Sampler::new(vocabulary.num_tokens()),
            waiting: VecDeque::new(),
            running: Vec::new(),
            events: Vec::new(),
            num_submitted: 0,
            decoder,
            vocabulary,
            config,
            clock,
        }
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// The vocabulary.
    pub fn vocabulary(&self) -> &Arc<dyn Vocabulary> {
        &self.vocabulary
    }

    /// Requests in the queue.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests being computed.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Whether a step would have nothing to do and nothing to tell.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.events.is_empty()
    }

    /// The KV cache's bookkeeping.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Most tokens of prompt and answer together: the model's context, or the KV cache.
    pub fn num_positions_max(&self) -> usize {
        self.decoder.config().context_length.min(self.cache_positions())
    }

    /// Queues a request.
    ///
    /// # Errors
    /// If it is malformed, does not fit, or too many are waiting.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        self.check(&request)?;
        if self.waiting.len() >= self.config.waiting_max {
            return Err(SubmitError::QueueFull { max: self.config.waiting_max });
        }
        let id = RequestId(self.num_submitted);
        self.num_submitted += 1;
        let text = self.vocabulary.text_stream();
        self.waiting.push_back(Sequence::new(id, request, text, (self.clock)()));
        Ok(id)
    }

    /// Takes a request back. Its last event comes with the next step. False if it has ended, or
    /// never was.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let waiting = self.waiting.iter().position(|s| s.id == id);
        let running = self.running.iter().position(|s| s.id == id);
        let sequence = match (waiting, running) {
            (Some(index), _) => self.waiting.remove(index),
            (None, Some(index)) => Some(self.running.remove(index)),
            (None, None) => None,
        };
        let Some(sequence) = sequence else { return false };
        self.finish(sequence, FinishReason::Cancelled);
        true
    }

    /// Computes one step and returns what happened since the last.
    pub fn step(&mut self) -> Vec<Event> {
        self.admit();
        let mut budget = Budget {
            rows: self.decoder.max_rows(),
            prompt_rows: self.config.prompt_rows_max,
            scored_rows: self.config.scored_rows_max,
            logit_rows: self.decoder.max_logit_rows(),
        };
        for mode in [BatchMode::Fast, BatchMode::Exact] {
            let (running, waiting) = (&mut self.running, &mut self.waiting);
            let chunks = plan::plan(running, waiting, &mut self.cache, mode, &mut budget);
            let mut finished = Vec::new();
            self.compute(&chunks, mode, &mut finished);
            // From the last, so that the indices of the others stay what they are.
            finished.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
            for (index, reason) in finished {
                let sequence = self.running.remove(index);
                self.finish(sequence, reason);
            }
        }
        std::mem::take(&mut self.events)
    }

    /// Submits a request and steps until it has ended. Its events go to `on_event`, which may
    /// break it off; those of other requests come with a later step.
    ///
    /// # Errors
    /// If the request is refused.
    pub fn generate(
        &mut self,
        request: Request,
        mut on_event: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Finish, SubmitError> {
        let id = self.submit(request)?;
        let mut others = Vec::new();
        loop {
            let mut finish = None;
            for event in self.step() {
                if event.request != id {
                    others.push(event);
                    continue;
                }
                if on_event(&event).is_break() {
                    self.cancel(id);
                }
                if let EventKind::Finished(found) = event.kind {
                    finish = Some(found);
                }
            }
            if let Some(finish) = finish {
                others.append(&mut self.events);
                self.events = others;
                return Ok(finish);
            }
        }
    }

    /// The log-probabilities of all tokens but the first, each given those before it. At no time
    /// are there more rows of logits than a few.
    ///
    /// # Errors
    /// If the sequence is refused (outer), or cannot be computed (inner).
    pub fn score(
        &mut self,
        tokens: Vec<u32>,
        adapter: Option<LoadedAdapter>,
        mode: BatchMode,
    ) -> Result<Result<Vec<f32>, GenerationError>, SubmitError> {
        let prompt_logprobs = Some(0);
        let request = Request { prompt_logprobs, adapter, mode, ..Request::new(tokens, 0) };
        let mut scores = Vec::with_capacity(request.prompt.len());
        let finish = self.generate(request, |event| {
            if let EventKind::PromptLogprobs { logprobs, .. } = &event.kind {
                scores.extend(logprobs.iter().map(|token| token.logprob));
            }
            ControlFlow::Continue(())
        })?;
        Ok(match finish.reason {
            FinishReason::Failed(error) => Err(error),
            _ => Ok(scores),
        })
    }

    fn cache_positions(&self) -> usize {
        self.cache.num_blocks().saturating_mul(KV_BLOCK_TOKENS)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let vocab_size = self.vocabulary.num_tokens().min(self.decoder.config().vocab_size);
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        for (what, tokens) in [("prompt", &request.prompt), ("stop tokens", &request.stop_tokens)] {
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(SubmitError::TokenOutOfRange { what, token, vocab_size });
            }
        }
        params::at_most("stop tokens", request.stop_tokens.len(), STOP_TOKENS_MAX)?;
        let num_top = request.prompt_logprobs.unwrap_or(0);
        params::at_most("prompt_logprobs", num_top, params::LOGPROBS_MAX)?;
        request.sampling.validate(vocab_size)?;
        stop::validate(&request.stop_strings)?;

        let (prompt_tokens, max_tokens) = (request.prompt.len(), request.max_tokens);
        let positions = prompt_tokens.saturating_add(max_tokens);
        let limit = self.decoder.config().context_length;
        if positions > limit {
            return Err(SubmitError::ContextTooLong { prompt_tokens, max_tokens, limit });
        }
        let limit = self.cache_positions();
        if positions > limit {
            return Err(SubmitError::CacheTooSmall { prompt_tokens, max_tokens, limit });
        }
        Ok(())
    }

    /// Moves requests from the queue while there is room: for all of their pending tokens, and
    /// for one more block of each that is running, lest they be put back at once.
    fn admit(&mut self) {
        while self.running.len() < self.config.running_max {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            sequence.share(&mut self.cache);
            let num_blocks = sequence.tokens.len().div_ceil(KV_BLOCK_TOKENS);
            let missing = num_blocks - sequence.table.blocks().len();
            let spare = self.running.len();
            if spare > 0 && missing + spare > self.cache.num_available() {
                sequence.vacate(&mut self.cache);
                self.waiting.push_front(sequence);
                return;
            }
            sequence.set_admitted((self.clock)());
            self.running.push(sequence);
        }
    }

    /// Computes chunks of one mode and adds those sequences that end by it to `finished`.
    fn compute(
        &mut self,
        chunks: &[Chunk],
        mode: BatchMode,
        finished: &mut Vec<(usize, FinishReason)>,
    ) {
        if chunks.is_empty() {
            return;
        }
        let Err(error) = self.try_compute(chunks, mode, finished) else { return };
        if let [chunk] = chunks {
            let reason = FinishReason::Failed(GenerationError::Forward(error));
            finished.push((chunk.sequence, reason));
            return;
        }
        // One of several is to blame: alone, each shows what it is.
        for chunk in chunks {
            self.compute(std::slice::from_ref(chunk), mode, finished);
        }
    }

    /// On an error nothing has changed.
    fn try_compute(
        &mut self,
        chunks: &[Chunk],
        mode: BatchMode,
        finished: &mut Vec<(usize, FinishReason)>,
    ) -> Result<(), ForwardError> {
        let running = &mut self.running;
        let segments: Vec<Segment<'_>> = chunks.iter().map(|c| segment(running, c)).collect();
        let logits = self.decoder.forward(&segments, mode)?;
        let mut row = 0;
        for chunk in chunks {
            let sequence = &mut running[chunk.sequence];
            let start = sequence.computed;
            sequence.set_computed(start + chunk.len);
            self.cache.publish(&mut sequence.table, &sequence.tokens[..sequence.computed]);
            let num_rows = match chunk.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => chunk.len,
            };
            let rows = (row..row + num_rows).map(|index| logits.row(index));
            row += num_rows;
            let mut advance = Advance {
                sampler: &mut self.sampler,
                end_tokens: self.vocabulary.end_tokens(),
                now: (self.clock)(),
                events: &mut self.events,
            };
            match advance.advance(sequence, start, rows) {
                Ok(None) => {}
                Ok(Some(reason)) => finished.push((chunk.sequence, reason)),
                Err(error) => finished.push((chunk.sequence, FinishReason::Failed(error))),
            }
        }
        Ok(())
    }

    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason) {
        sequence.vacate(&mut self.cache);
        let event = sequence.finish(reason, (self.clock)());
        self.events.push(event);
    }
}

fn segment<'a>(running: &'a [Sequence], chunk: &Chunk) -> Segment<'a> {
    let sequence = &running[chunk.sequence];
    let start = sequence.computed;
    Segment {
        tokens: &sequence.tokens[start..start + chunk.len],
        start,
        blocks: sequence.table.blocks(),
        logits: chunk.logits,
        adapter: sequence.request.adapter.as_ref().map(|adapter| adapter.weights.as_ref()),
    }
}

/// What a sequence needs to go on from its rows of logits.
struct Advance<'a> {
    sampler: &'a mut Sampler,
    end_tokens: &'a [u32],
    now: Duration,
    events: &'a mut Vec<Event>,
}

impl Advance<'_> {
    /// `rows` are the logits after the positions from `start` on, or after the last alone.
    fn advance<'r>(
        &mut self,
        sequence: &mut Sequence,
        start: usize,
        rows: impl ExactSizeIterator<Item = &'r [f32]>,
    ) -> Result<Option<FinishReason>, GenerationError> {
        let mut last = None;
        let mut scored = Vec::new();
        let first_row = sequence.computed - rows.len();
        for (position, row) in (first_row..).zip(rows) {
            if position == sequence.num_scored && sequence.num_unscored() > 0 {
                let token = sequence.tokens[position + 1];
                let num_top = sequence.request.prompt_logprobs.unwrap_or(0);
                let logprobs = self.sampler.logprobs(row, token, num_top)?;
                sequence.num_scored += 1;
                scored.push(logprobs);
            }
            last = Some(row);
        }
        if !scored.is_empty() {
            let kind = EventKind::PromptLogprobs { start: start + 1, logprobs: scored };
            self.events.push(Event { request: sequence.id, kind });
        }
        if sequence.num_pending() > 0 {
            return Ok(None);
        }
        if sequence.request.max_tokens == 0 {
            return Ok(Some(FinishReason::Length));
        }
        match last {
            Some(row) => self.choose(sequence, row),
            None => Ok(None),
        }
    }

    /// Chooses the next token, and appends those after it that leave no choice.
    fn choose(
        &mut self,
        sequence: &mut Sequence,
        row: &[f32],
    ) -> Result<Option<FinishReason>, GenerationError> {
        let mask = sequence.take_mask()?;
        let position = sequence.num_generated() as u64;
        let words = mask.as_ref().map(|mask| mask.words());
        let sampling = &sequence.request.sampling;
        let choice = self.sampler.choose(row, &sequence.history, sampling, words, position)?;
        let (mut token, mut logprobs) = (choice.token, choice.logprobs);
        loop {
            let reason =
                sequence.push_token(token, logprobs, self.end_tokens, self.now, self.events);
            if reason.is_some() {
                return Ok(reason);
            }
            match sequence.forced_token()? {
                Some(forced) => (token, logprobs) = (forced, None),
                None => return Ok(None),
            }
        }
    }
}
