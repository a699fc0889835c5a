//! Which tokens of which sequences the next step computes.
//!
//! - Answers first: each sequence that is generating gets its one row, or the few that a
//!   constraint has forced; what room is left goes to prompts, in chunks, those of the tenant
//!   served least first.
//! - If blocks run out, the last sequence by rank (see `queue`) goes back to the queue and its
//!   blocks are freed; it is recomputed later. Its draws and its constraint do not change by
//!   that. The first can always have the blocks of all others, and a request that does not fit
//!   the cache alone is refused at submission: so there is always progress.
//! - Two sequences with the same beginning do not compute it twice: the later one waits for the
//!   blocks that the earlier one is about to fill.

use feilun_model::{BatchMode, KV_BLOCK_TOKENS, LogitRows};

use super::queue::FairQueue;
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
/// budget of the step. Sequences that lose their blocks move from `running` to `displaced`.
pub(super) fn plan(
    running: &mut Vec<Sequence>,
    displaced: &mut Vec<Sequence>,
    cache: &mut KvCache,
    queue: &FairQueue,
    mode: BatchMode,
    budget: &mut Budget,
) -> Vec<Chunk> {
    for sequence in running.iter_mut().filter(|s| s.mode() == mode) {
        sequence.share(cache);
    }
    let num_answers = running.iter().filter(|s| s.mode() == mode && s.is_answering()).count();
    let num_others = running.iter().filter(|s| s.mode() == mode && s.num_unscored() == 0).count();
    let mut scored_rows = budget.scored_rows.min(budget.logit_rows.saturating_sub(num_others));
    let mut chunks: Vec<Chunk> = Vec::new();

    let mut spare_rows = budget.rows.saturating_sub(num_answers);
    let mut index = 0;
    while index < running.len() {
        let sequence = &running[index];
        if sequence.mode() == mode && sequence.is_answering() {
            let more = (sequence.num_pending() - 1).min(spare_rows);
            let is_last = more + 1 == sequence.num_pending();
            let logits = if is_last { LogitRows::Last } else { LogitRows::None };
            if make_room(running, displaced, &mut chunks, cache, index, more + 1) {
                spare_rows -= more;
                chunks.push(Chunk { sequence: index, len: more + 1, logits });
            }
        }
        index += 1;
    }

    let mut prompt_rows = budget.prompt_rows.min(spare_rows);
    let mut prompts: Vec<usize> = (0..running.len())
        .filter(|&i| running[i].mode() == mode && !running[i].is_answering())
        .collect();
    prompts.sort_by_key(|&i| (queue.served(running[i].namespace()), running[i].id));
    for index in prompts {
        if index >= running.len()
            || (cache.is_sharing() && waits_for_blocks(running, &chunks, index))
        {
            continue;
        }
        if let Some((len, logits)) = prompt_chunk(&running[index], prompt_rows, scored_rows)
            && make_room(running, displaced, &mut chunks, cache, index, len)
        {
            prompt_rows -= len;
            budget.prompt_rows -= len;
            if logits == LogitRows::All {
                budget.scored_rows -= len;
                scored_rows -= len;
            }
            chunks.push(Chunk { sequence: index, len, logits });
        }
    }
    chunks
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

/// Gives the sequence blocks for `len` more positions, at the cost of those behind it if need be.
/// False if there are none left behind it: it waits for those before it to end.
fn make_room(
    running: &mut Vec<Sequence>,
    displaced: &mut Vec<Sequence>,
    chunks: &mut Vec<Chunk>,
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
        if let Some(mut last) = running.pop() {
            last.vacate(cache);
            displaced.push(last);
            // It may have had its place in this step already.
            chunks.retain(|chunk| chunk.sequence < running.len());
        }
    }
}
