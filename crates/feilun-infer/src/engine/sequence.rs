//! One request on its way: what it has, what it still needs, and what a new token does to it.

use std::ops::Range;
use std::time::Duration;

use feilun_model::{BatchMode, KV_BLOCK_TOKENS};

use crate::constraint::{ConstraintError, Matcher, TokenMask};
use crate::event::{
    Event, EventKind, Finish, FinishReason, GeneratedToken, StopCause, Timings, Usage,
};
use crate::kv::prefix::Namespace;
use crate::kv::{BlockTable, KvCache};
use crate::pooling::MeanPooling;
use crate::request::{Request, RequestId};
use crate::sampling::{TokenHistory, TokenLogprobs};
use crate::stop::StopMatcher;
use crate::vocabulary::TextStream;

/// A request between submission and its end.
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) request: Request,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    /// Positions that are in the KV cache.
    pub(super) computed: usize,
    pub(super) table: BlockTable,
    pub(super) history: TokenHistory,
    /// Rows of the prompt whose log-probabilities have been reported, or are not wanted; row i is
    /// about token i + 1.
    pub(super) num_scored: usize,
    /// Where the request asks for an embedding, until it has got it.
    pub(super) pooling: Option<MeanPooling>,
    /// Its place among those that are computed; see `queue`.
    pub(super) rank: u64,
    matcher: Option<Matcher>,
    /// The mask for the next token, where it is known already.
    mask: Option<TokenMask>,
    stops: StopMatcher,
    text: Box<dyn TextStream>,
    /// The most positions ever in the cache, so that blocks found again after a preemption are
    /// not counted as found in the prompt.
    furthest: usize,
    cached_prompt: usize,
    submitted: Duration,
    admitted: Option<Duration>,
    first_token: Option<Duration>,
}

impl Sequence {
    pub(super) fn new(
        id: RequestId,
        request: Request,
        text: Box<dyn TextStream>,
        now: Duration,
    ) -> Sequence {
        Sequence {
            id,
            tokens: request.prompt.clone(),
            computed: 0,
            table: BlockTable::new(request.prefix_key()),
            history: TokenHistory::new(&request.prompt, &request.sampling),
            num_scored: request.prompt_logprobs_from.clamp(1, request.prompt.len()) - 1,
            pooling: request.embedding.then(MeanPooling::default),
            rank: 0,
            matcher: request.constraint.as_ref().map(|constraint| constraint.start()),
            mask: None,
            stops: StopMatcher::new(&request.stop_strings),
            text,
            furthest: 0,
            cached_prompt: 0,
            submitted: now,
            admitted: None,
            first_token: None,
            request,
        }
    }

    pub(super) fn mode(&self) -> BatchMode {
        self.request.mode
    }

    /// Whose request it is.
    pub(super) fn namespace(&self) -> Namespace {
        self.request.namespace
    }

    /// Whether it needs a row or a few, and is then a token further: it is generating, and not
    /// being computed once more.
    pub(super) fn is_answering(&self) -> bool {
        self.num_generated() > 0 && self.num_pending() <= KV_BLOCK_TOKENS
    }

    pub(super) fn num_generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Tokens that are not in the KV cache yet.
    pub(super) fn num_pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Rows of the prompt that are still to be scored.
    pub(super) fn num_unscored(&self) -> usize {
        match self.request.prompt_logprobs {
            Some(_) => self.request.prompt.len() - 1 - self.num_scored,
            None => 0,
        }
    }

    /// How many tokens may be looked up in the cache: those of which nobody wants the logits or
    /// the hidden state, and one more, which is always computed.
    pub(super) fn num_shareable(&self) -> usize {
        let scored = if self.num_unscored() > 0 { self.num_scored + 1 } else { self.tokens.len() };
        match &self.pooling {
            Some(pooling) => scored.min(pooling.num_rows() + 1),
            None => scored,
        }
    }

    /// Takes what the cache holds of this sequence's beginning.
    pub(super) fn share(&mut self, cache: &mut KvCache) {
        let shareable = self.num_shareable();
        let found = cache.share(&mut self.table, &self.tokens[..shareable]);
        if found > self.computed {
            let num_prompt = self.request.prompt.len();
            self.cached_prompt += found.min(num_prompt).saturating_sub(self.furthest);
            self.set_computed(found);
        }
    }

    /// Notes that the positions below `computed` are in the cache. Returns how many of them are
    /// so for the first time.
    pub(super) fn set_computed(&mut self, computed: usize) -> usize {
        self.computed = computed;
        let fresh = computed.saturating_sub(self.furthest);
        self.furthest += fresh;
        fresh
    }

    /// Gives its blocks back; its tokens will be computed again.
    pub(super) fn vacate(&mut self, cache: &mut KvCache) {
        cache.release(&mut self.table);
        self.computed = 0;
    }

    pub(super) fn set_admitted(&mut self, now: Duration) {
        self.admitted.get_or_insert(now);
    }

    /// The tokens that may come next, if there is a constraint.
    pub(super) fn take_mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        match (&mut self.matcher, self.mask.take()) {
            (Some(_), Some(mask)) => Ok(Some(mask)),
            (Some(matcher), None) => matcher.mask().map(Some),
            (None, _) => Ok(None),
        }
    }

    /// The next token, if the constraint leaves no choice and nobody asks for its probability:
    /// then it needs no logits.
    pub(super) fn forced_token(&mut self) -> Result<Option<u32>, ConstraintError> {
        if self.request.sampling.logprobs.is_some() {
            return Ok(None);
        }
        self.mask = self.take_mask()?;
        Ok(self.mask.as_ref().and_then(TokenMask::forced))
    }

    /// Appends a token, reports it, and says whether it is the last.
    pub(super) fn push_token(
        &mut self,
        token: u32,
        logprobs: Option<TokenLogprobs>,
        end_tokens: &[u32],
        now: Duration,
        events: &mut Vec<Event>,
    ) -> Option<FinishReason> {
        self.first_token.get_or_insert(now);
        self.tokens.push(token);
        self.history.push(token, &self.request.sampling);
        self.mask = None;

        let is_end = !self.request.ignore_end_tokens && end_tokens.contains(&token);
        if is_end || self.request.stop_tokens.contains(&token) {
            self.report(token, String::new(), logprobs, events);
            return Some(FinishReason::Stop(StopCause::Token(token)));
        }
        let piece = self.text.push(token);
        let released = self.stops.push(&piece);
        self.report(token, released.text, logprobs, events);
        if let Some(index) = released.stopped_by {
            return Some(FinishReason::Stop(StopCause::String(index)));
        }
        if let Some(matcher) = &mut self.matcher {
            if let Err(error) = matcher.accept(token) {
                return Some(FinishReason::Failed(error.into()));
            }
            if matcher.is_complete() {
                return Some(FinishReason::Stop(StopCause::Constraint));
            }
        }
        (self.num_generated() >= self.request.max_tokens).then_some(FinishReason::Length)
    }

    fn report(
        &self,
        token: u32,
        text: String,
        logprobs: Option<TokenLogprobs>,
        events: &mut Vec<Event>,
    ) {
        let kind = EventKind::Token(GeneratedToken { token, text, logprobs });
        events.push(Event { request: self.id, kind });
    }

    /// Adds the hidden states of the prompt's positions that were just computed and are new;
    /// `read` gets the offset of a position from the first.
    pub(super) fn pool(
        &mut self,
        positions: Range<usize>,
        hidden_size: usize,
        read: impl Fn(usize, &mut [f32]),
    ) {
        let Some(pooling) = &mut self.pooling else { return };
        for (offset, position) in positions.enumerate() {
            if position == pooling.num_rows() && position < self.request.prompt.len() {
                pooling.add(hidden_size, |hidden_h| read(offset, hidden_h));
            }
        }
    }

    /// The embedding, once the prompt is computed.
    pub(super) fn take_embedding(&mut self) -> Option<Vec<f32>> {
        self.pooling
            .take_if(|pooling| pooling.num_rows() >= self.request.prompt.len())
            .map(MeanPooling::finish)
    }

    /// The last event of this sequence. Its blocks must have been given back.
    pub(super) fn finish(mut self, mut reason: FinishReason, now: Duration) -> Event {
        let mut text = String::new();
        // After a stop string nothing may follow, not even what was held back.
        if !matches!(reason, FinishReason::Stop(StopCause::String(_))) {
            let released = self.stops.push(&self.text.finish());
            text = released.text;
            match released.stopped_by {
                Some(index) => reason = FinishReason::Stop(StopCause::String(index)),
                None => text.push_str(&self.stops.finish()),
            }
        }
        let usage = Usage {
            prompt: self.request.prompt.len(),
            cached_prompt: self.cached_prompt,
            generated: self.num_generated(),
        };
        let since = |time: Duration| time.saturating_sub(self.submitted);
        let timings = Timings {
            admitted: self.admitted.map(since),
            first_token: self.first_token.map(since),
            finished: since(now),
        };
        let kind = EventKind::Finished(Finish { reason, text, usage, timings });
        Event { request: self.id, kind }
    }
}
