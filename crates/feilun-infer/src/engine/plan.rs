//! Which tokens of which sequences the next step computes.
//!
//! - Sequences in order of submission: the oldest gets what it needs.
//! - Each sequence that is generating gets its one row; what room is left goes to prompts, the
//!   oldest first, in chunks.
//! - If blocks run out, the newest sequence is put back at the head of the queue and its blocks
//!   are freed; it is recomputed later. Its draws and its constraint do not change by that. The
//!   oldest can always have the blocks of all others, and a request that does not fit the cache
//!   alone is refused at submission: so there is always progress.
//! - Two sequences with the same beginning do not compute it twice: the later one waits for the
//!   blocks that the earlier one is about to fill.

use std::collections::VecDeque;

use feilun_model::{BatchMode, KV_BLOCK_TOKENS, LogitRows};

use super::sequence::Sequence;
use crate::kv::KvCache;

/// Consecutive tokens of one sequence to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Index among the running sequences.
    pub(super) sequence: usize,
    pub(super) len: usize,
    pub(super) logits: LogitRows,
}

/// How much a step may take on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Rows of one forward pass.
    pub(super) rows: usize,
    /// Prompt tokens of a step.
    pub(super) prompt_rows: usize,
    /// Rows of prompt log-probabilities of a step.
    pub(super) scored_rows: usize,
    /// Rows of logits of one forward pass.
    pub(super) logit_rows: usize,
}

/// Plans one forward pass over the running sequences of one mode, and takes what it uses off the
/// budget of the step. Sequences that lose their blocks move from `running` to `waiting`.
pub(super) fn plan(
    running: &mut Vec<Sequence>,
    waiting: &mut VecDeque<Sequence>,
    cache: &mut KvCache,
    mode: BatchMode,
    budget: &mut Budget,
) -> Vec<Chunk> {
    for sequence in running.iter_mut().filter(|s| s.mode() == mode) {
        sequence.share(cache);
    }
    let num_decodes = running.iter().filter(|s| s.mode() == mode && is_decode(s)).count();
    let num_others = running.iter().filter(|s| s.mode() == mode && s.num_unscored() == 0).count();
    let mut scored_rows = budget.scored_rows.min(budget.logit_rows.saturating_sub(num_others));
    let mut prompt_rows = budget.prompt_rows.min(budget.rows.saturating_sub(num_decodes));
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut index = 0;
    while index < running.len() {
        let sequence = &running[index];
        if sequence.mode() == mode
            && !(cache.is_sharing() && waits_for_blocks(running, &chunks, index))
        {
            let chunk = if is_decode(sequence) {
                Some((1, LogitRows::Last))
            } else {
                prompt_chunk(sequence, prompt_rows, scored_rows)
            };
            if let Some((len, logits)) = chunk
                && make_room(running, waiting, cache, index, len)
            {
                if !is_decode(&running[index]) {
                    prompt_rows -= len;
                    budget.prompt_rows -= len;
                    if logits == LogitRows::All {
                        budget.scored_rows -= len;
                        scored_rows -= len;
                    }
                }
                chunks.push(Chunk { sequence: index, len, logits });
            }
        }
        index += 1;
    }
    chunks
}

/// Whether a sequence needs one row and the token that follows.
fn is_decode(sequence: &Sequence) -> bool {
    sequence.num_pending() == 1 && sequence.num_generated() > 0
}

/// The next chunk of a sequence's pending tokens within the budget, and the rows of it.
fn prompt_chunk(
    sequence: &Sequence,
    prompt_rows: usize,
    scored_rows: usize,
) -> Option<(usize, LogitRows)> {
    let mut len = sequence.num_pending().min(prompt_rows);
    let mut logits = LogitRows::None;
    if sequence.num_unscored() > 0 {
        let already = sequence.num_scored.saturating_sub(sequence.computed);
        if already > 0 {
            // Recomputed after a preemption: these rows have been reported.
            len = len.min(already);
        } else {
            len = len.min(scored_rows);
            logits = LogitRows::All;
        }
    }
    if len == 0 {
        return None;
    }
    if len == sequence.num_pending() && logits == LogitRows::None && sequence.request.max_tokens > 0
    {
        logits = LogitRows::Last;
    }
    Some((len, logits))
}

/// Whether an earlier sequence of this step is filling the very block that this one needs next.
fn waits_for_blocks(running: &[Sequence], chunks: &[Chunk], index: usize) -> bool {
    let later = &running[index];
    if !later.computed.is_multiple_of(KV_BLOCK_TOKENS)
        || later.computed != later.table.num_shared_positions()
    {
        return false;
    }
    let end = later.computed + KV_BLOCK_TOKENS;
    // As in the cache itself, one token must be left to compute.
    if later.num_shareable() <= end {
        return false;
    }
    chunks.iter().any(|chunk| {
        let earlier = &running[chunk.sequence];
        earlier.computed < end
            && earlier.computed + chunk.len > later.computed
            && earlier.tokens.len() >= end
            && earlier.table.key() == later.table.key()
            && earlier.tokens[..end] == later.tokens[..end]
    })
}

/// Gives the sequence blocks for `len` more positions, at the cost of newer ones if need be.
/// False if there are no newer ones left: it waits for older ones to end.
fn make_room(
    running: &mut Vec<Sequence>,
    waiting: &mut VecDeque<Sequence>,
    cache: &mut KvCache,
    index: usize,
    len: usize,
) -> bool {
    loop {
        let sequence = &mut running[index];
        let positions = sequence.computed + len;
        if cache.reserve(&mut sequence.table, positions) {
            return true;
        }
        if index + 1 == running.len() {
            return false;
        }
        if let Some(mut newest) = running.pop() {
            newest.vacate(cache);
            waiting.push_front(newest);
        }
    }
}
