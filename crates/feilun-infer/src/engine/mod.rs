//! The scheduler: many requests over one model, one forward pass (or two) at a time.
//!
//! Requests wait in a bounded queue that is fair between tenants, and then share each [`step`]:
//! every sequence that is generating gets its next token, and chunks of prompts fill the rest of
//! the step, as many as [`Engine::step_within`]'s limit leaves time for. Exact and fast requests
//! are computed in separate passes. A request's tokens do not depend on who else is there, on how
//! its prompt was cut into chunks, or on what was found in the cache: draws are functions of seed
//! and position, and everything else belongs to the sequence. (In fast mode the logits themselves
//! may differ in their last bits with the number of rows; in exact mode they do not.)
//!
//! A request that fails, or whose sampling or constraint panics, ends alone.
//!
//! The engine is driven by one thread, and knows neither HTTP nor the time of day. The module
//! `queue` says who is next, `plan` what a step computes, `pace` how much of prompts it may take
//! on, `sequence` what a new token does.
//!
//! [`step`]: Engine::step

mod pace;
mod plan;
mod queue;
mod sequence;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use feilun_model::{BatchMode, KV_BLOCK_TOKENS, LogitRows, Segment};
pub use pace::StepLimit;
use pace::{Pace, StepWork};
use plan::{Budget, Chunk};
use queue::FairQueue;
use sequence::Sequence;

use crate::decoder::{Decoder, LogitsView};
use crate::event::{Event, EventKind, Finish, FinishReason, GenerationError, Timings, Usage};
use crate::isolate::isolate;
use crate::kv::KvCache;
use crate::kv::prefix::Namespace;
use crate::request::{LoadedAdapter, Request, RequestBounds, RequestId, SubmitError};
use crate::sampling::Sampler;
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
    waiting: FairQueue,
    /// By rank: see `queue`.
    running: Vec<Sequence>,
    /// Not handed out yet.
    events: Vec<Event>,
    num_submitted: u64,
    pace: Pace,
    totals: Totals,
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps that computed something.
    pub steps: u64,
    /// Rows of sequences that were generating.
    pub answer_rows: u64,
    /// Rows of prompts, those computed twice included.
    pub prompt_rows: u64,
    /// Times that a running request had to make room and went back to the queue.
    pub displaced: u64,
    /// Time in steps, by the engine's clock.
    pub busy: Duration,
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
            waiting: FairQueue::default(),
            running: Vec::new(),
            events: Vec::new(),
            num_submitted: 0,
            pace: Pace::default(),
            totals: Totals::default(),
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

    /// Running requests that have got their first token.
    pub fn num_answering(&self) -> usize {
        self.running.iter().filter(|sequence| sequence.is_answering()).count()
    }

    /// Tenants with requests in the queue, and how many these are.
    pub fn waiting(&self) -> impl Iterator<Item = (Namespace, usize)> {
        self.waiting.waiting()
    }

    /// What has been done so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How long a step of so many answers takes without prompts, by running estimate.
    pub fn answers_time(&self, num_answers: usize) -> Option<Duration> {
        self.pace.answers(num_answers)
    }

    /// How long a prompt token takes, by running estimate.
    pub fn prompt_row_time(&self) -> Option<Duration> {
        self.pace.prompt_row()
    }

    /// Whether a step would have nothing to do and nothing to tell.
    pub fn is_idle(&self) -> bool {
        self.waiting.len() == 0 && self.running.is_empty() && self.events.is_empty()
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
        request.check(self.bounds())?;
        if self.waiting.len() >= self.config.waiting_max {
            return Err(SubmitError::QueueFull { max: self.config.waiting_max });
        }
        let id = RequestId(self.num_submitted);
        self.num_submitted += 1;
        let text = self.vocabulary.text_stream();
        self.waiting.push(Sequence::new(id, request, text, (self.clock)()));
        Ok(id)
    }

    /// Takes a request back. Its last event comes with the next step. False if it has ended, or
    /// never was.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let sequence = self.waiting.remove(id).or_else(|| {
            let index = self.running.iter().position(|sequence| sequence.id == id)?;
            Some(self.stop_running(index))
        });
        let Some(sequence) = sequence else { return false };
        self.finish(sequence, FinishReason::Cancelled);
        true
    }

    /// Computes one step and returns what happened since the last.
    pub fn step(&mut self) -> Vec<Event> {
        self.step_within(None)
    }

    /// The same, with prompts in chunks for which the limit leaves time; without a limit in the
    /// largest chunks that fit. Whoever drives the engine gives a limit while somebody waits for
    /// the next token of an answer, here or in another engine.
    pub fn step_within(&mut self, limit: Option<StepLimit>) -> Vec<Event> {
        self.admit();
        let start = (self.clock)();
        let within = |limit| self.pace.prompt_rows(self.num_answering(), limit);
        let mut budget = Budget {
            rows: self.decoder.max_rows(),
            prompt_rows: limit.map_or(usize::MAX, within).min(self.config.prompt_rows_max),
            scored_rows: self.config.scored_rows_max,
            logit_rows: self.decoder.max_logit_rows(),
        };
        let mut work = StepWork::default();
        for mode in [BatchMode::Fast, BatchMode::Exact] {
            let chunks = self.plan(mode, &mut budget);
            for chunk in &chunks {
                match self.running[chunk.sequence].is_answering() {
                    true => work.answer_rows += chunk.len,
                    false => work.prompt_rows += chunk.len,
                }
            }
            let mut finished = Vec::new();
            self.compute(&chunks, mode, &mut finished);
            // From the last, so that the indices of the others stay what they are.
            finished.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
            for (index, reason) in finished {
                let sequence = self.stop_running(index);
                self.finish(sequence, reason);
            }
        }
        self.note(work, (self.clock)().saturating_sub(start));
        std::mem::take(&mut self.events)
    }

    fn plan(&mut self, mode: BatchMode, budget: &mut Budget) -> Vec<Chunk> {
        let mut displaced = Vec::new();
        let (running, cache) = (&mut self.running, &mut self.cache);
        let chunks = plan::plan(running, &mut displaced, cache, &self.waiting, mode, budget);
        for sequence in displaced {
            self.put_back(sequence);
        }
        chunks
    }

    fn note(&mut self, work: StepWork, time: Duration) {
        self.pace.record(work, time);
        if work != StepWork::default() {
            self.totals.steps += 1;
            self.totals.answer_rows += work.answer_rows as u64;
            self.totals.prompt_rows += work.prompt_rows as u64;
            self.totals.busy += time;
        }
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

    /// What a request must fit.
    pub(crate) fn bounds(&self) -> RequestBounds {
        let config = self.decoder.config();
        RequestBounds {
            vocab_size: self.vocabulary.num_tokens().min(config.vocab_size),
            context_length: config.context_length,
            cache_positions: self.cache_positions(),
        }
    }

    /// Moves requests from the queue while there is room: for all of their pending tokens, and
    /// for one more block of each that is running, lest they be put back at once.
    fn admit(&mut self) {
        while let Some(mut sequence) = self.waiting.pop() {
            if !self.make_place(&mut sequence) {
                sequence.vacate(&mut self.cache);
                self.waiting.put_back(sequence);
                break;
            }
            sequence.set_admitted((self.clock)());
            self.waiting.start(sequence.namespace());
            self.running.push(sequence);
            queue::sort_by_rank(&mut self.running);
        }
    }

    /// Finds a place and blocks, at the cost of those whose tenants have more.
    fn make_place(&mut self, sequence: &mut Sequence) -> bool {
        let num_before = self.waiting.num_running(sequence.namespace());
        let rank = queue::rank(num_before, sequence.request.weight);
        loop {
            sequence.share(&mut self.cache);
            let num_blocks = sequence.tokens.len().div_ceil(KV_BLOCK_TOKENS);
            let missing = num_blocks - sequence.table.blocks().len();
            let spare = self.running.len();
            let fits = spare == 0 || missing + spare <= self.cache.num_available();
            if fits && self.running.len() < self.config.running_max {
                return true;
            }
            match self.running.last() {
                Some(last) if last.rank > rank => {
                    let mut last = self.stop_running(self.running.len() - 1);
                    last.vacate(&mut self.cache);
                    self.totals.displaced += 1;
                    self.waiting.put_back(last);
                }
                _ => return false,
            }
        }
    }

    /// Takes a sequence out of those that are computed.
    fn stop_running(&mut self, index: usize) -> Sequence {
        let sequence = self.running.remove(index);
        self.waiting.stop(sequence.namespace());
        sequence
    }

    /// Puts one that is no longer among those that are computed back into the queue.
    fn put_back(&mut self, sequence: Sequence) {
        self.totals.displaced += 1;
        self.waiting.stop(sequence.namespace());
        self.waiting.put_back(sequence);
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
            finished.push((chunk.sequence, FinishReason::Failed(error)));
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
    ) -> Result<(), GenerationError> {
        let hidden_size = self.decoder.config().hidden_size;
        let running = &mut self.running;
        let segments: Vec<Segment<'_>> = chunks.iter().map(|c| segment(running, c)).collect();
        let decoder = &mut self.decoder;
        // A pass that breaks off leaves half of the new positions behind, which are computed
        // again or given up; what other sequences hold is not written to.
        let logits = isolate(move || decoder.forward(&segments, mode))??;
        let (mut row, mut token) = (0, 0);
        for chunk in chunks {
            let sequence = &mut running[chunk.sequence];
            let start = sequence.computed;
            let fresh = sequence.set_computed(start + chunk.len);
            self.waiting.charge(sequence.namespace(), sequence.request.weight, fresh);
            self.cache.publish(&mut sequence.table, &sequence.tokens[..sequence.computed]);
            sequence.pool(start..start + chunk.len, hidden_size, |offset, hidden_h| {
                logits.hidden(token + offset, hidden_h);
            });
            token += chunk.len;
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
            match isolate(|| advance.advance(sequence, start, rows)) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(reason))) => finished.push((chunk.sequence, reason)),
                Ok(Err(error)) => finished.push((chunk.sequence, FinishReason::Failed(error))),
                Err(panic) => {
                    self.sampler = Sampler::new(self.vocabulary.num_tokens());
                    finished.push((chunk.sequence, FinishReason::Failed(panic)));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, mut sequence: Sequence, reason: FinishReason) {
        sequence.vacate(&mut self.cache);
        let (id, now) = (sequence.id, (self.clock)());
        let event = isolate(|| sequence.finish(reason, now)).unwrap_or_else(|error| {
            let reason = FinishReason::Failed(error);
            let (usage, timings) = (Usage::default(), Timings::default());
            let finish = Finish { reason, text: String::new(), usage, timings };
            Event { request: id, kind: EventKind::Finished(finish) }
        });
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
        if let Some(embedding) = sequence.take_embedding() {
            self.events.push(Event { request: sequence.id, kind: EventKind::Embedding(embedding) });
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
