//! What the tasks of a call are. They follow from the documents' lengths and the shape, never
//! from the number of threads, so that sums have one order.
//!
//! Forward, a task is a block of queries of one kv head. Backward, it is a strip of keys of one
//! kv head: it owns the gradients of its keys and values. A document is one strip unless it is
//! long or has few kv heads; then each strip has a part of each `d_q`, and the parts are added
//! in the order of the strips.

use std::cmp::Reverse;
use std::ops::Range;

use super::{KEYS, PackedShape};
use crate::vector::LANES;

/// Pairs of query and key in a strip, about: small enough that threads share the work evenly,
/// large enough that the parts of `d_q` are few.
const STRIP_PAIRS: usize = 1 << 19;
/// Most strips of a document: a bound on the memory for parts of `d_q`.
const STRIPS_MAX: usize = 8;
/// Fewest tasks of a document, where it is long enough.
const TASKS_MIN: usize = 4;
/// Positions of a [`Sum`].
const SUM_POSITIONS: usize = 64;

/// One document's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document {
    /// Its first token.
    pub(super) start: usize,
    /// Its tokens.
    pub(super) len: usize,
    /// Its first key in the panels, where documents begin at whole vectors.
    pub(super) padded_start: usize,
}

impl Document {
    pub(super) fn padded_len(&self) -> usize {
        self.len.next_multiple_of(LANES)
    }
}

/// A block of keys and values of one kv head. Positions and keys count from the start of the
/// document, here and below.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyBlock {
    pub(super) document: Document,
    pub(super) kv_head: usize,
    pub(super) first: usize,
}

/// A block of queries.
#[derive(Clone, Debug)]
pub(super) struct QueryTask {
    pub(super) document: Document,
    pub(super) kv_head: usize,
    pub(super) positions: Range<usize>,
}

/// A strip of keys, and the queries that see some of them.
#[derive(Clone, Debug)]
pub(super) struct StripTask {
    pub(super) document: Document,
    pub(super) kv_head: usize,
    pub(super) keys: Range<usize>,
    pub(super) positions: Range<usize>,
    /// Where its part of `d_q` is; `None`: it is the only strip, and writes to `d_q` itself.
    pub(super) part: Option<usize>,
    /// Pairs of query and key.
    num_pairs: usize,
}

/// Positions whose parts of `d_q` are to be added.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) document: Document,
    pub(super) kv_head: usize,
    pub(super) positions: Range<usize>,
    /// Its kv head's strips, as indices into [`Plan::parts`].
    pub(super) parts: Range<usize>,
}

/// A strip's part of `d_q`: `[positions, group * head_dim]` floats at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) positions: Range<usize>,
    pub(super) offset: usize,
}

/// The tasks of one call. Memory is kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    documents: Vec<Document>,
    key_blocks: Vec<KeyBlock>,
    query_tasks: Vec<QueryTask>,
    strip_tasks: Vec<StripTask>,
    sums: Vec<Sum>,
    parts: Vec<Part>,
    parts_len: usize,
}

impl Plan {
    pub(super) fn prepare_forward(&mut self, shape: &PackedShape, documents: &[usize]) {
        self.clear(shape, documents);
        let step = shape.block_positions();
        for document in &self.documents {
            for kv_head in 0..shape.num_kv_heads {
                for first in (0..document.len).step_by(step) {
                    let positions = first..document.len.min(first + step);
                    self.query_tasks.push(QueryTask { document: *document, kv_head, positions });
                }
            }
        }
        // Late queries see the most keys; those that are taken last should be short.
        self.query_tasks.sort_unstable_by_key(|task| {
            (Reverse(task.positions.end.min(shape.reach())), task.document.start, task.kv_head)
        });
    }

    pub(super) fn prepare_backward(&mut self, shape: &PackedShape, documents: &[usize]) {
        self.clear(shape, documents);
        for index in 0..self.documents.len() {
            let document = self.documents[index];
            for kv_head in 0..shape.num_kv_heads {
                self.add_strips(shape, document, kv_head);
            }
        }
        self.strip_tasks.sort_unstable_by_key(|task| {
            (Reverse(task.num_pairs), task.document.start, task.kv_head, task.keys.start)
        });
    }

    fn clear(&mut self, shape: &PackedShape, documents: &[usize]) {
        self.documents.clear();
        self.key_blocks.clear();
        let (mut start, mut padded_start) = (0, 0);
        for &len in documents {
            let document = Document { start, len, padded_start };
            start += len;
            padded_start += document.padded_len();
            self.documents.push(document);
            for kv_head in 0..shape.num_kv_heads {
                let firsts = (0..len).step_by(KEYS);
                self.key_blocks.extend(firsts.map(|first| KeyBlock { document, kv_head, first }));
            }
        }
        self.query_tasks.clear();
        self.strip_tasks.clear();
        self.sums.clear();
        self.parts.clear();
        self.parts_len = 0;
    }

    /// Cuts the keys of a document into strips of about equal work.
    fn add_strips(&mut self, shape: &PackedShape, document: Document, kv_head: usize) {
        let len = document.len;
        // The end of the queries that see a key.
        let seen_until = |key: usize| len.min(key.saturating_add(shape.reach()));
        let pairs_of = |keys: Range<usize>| keys.map(|key| seen_until(key) - key).sum::<usize>();
        let total = pairs_of(0..len);
        let num_strips = total
            .div_ceil(STRIP_PAIRS)
            .max(TASKS_MIN.div_ceil(shape.num_kv_heads))
            .min(STRIPS_MAX)
            .min(len.div_ceil(KEYS));
        let first_part = self.parts.len();
        let (mut start, mut end, mut pairs) = (0, 0, 0);
        for strip in 1..=num_strips {
            let pairs_before = pairs;
            while end < len && (strip == num_strips || pairs < total * strip / num_strips) {
                let next = len.min(end + KEYS);
                pairs += pairs_of(end..next);
                end = next;
            }
            if start == end {
                continue;
            }
            let (keys, positions) = (start..end, start..seen_until(end - 1));
            let num_pairs = pairs - pairs_before;
            let part = (num_strips > 1).then_some(self.parts_len);
            if let Some(offset) = part {
                self.parts.push(Part { positions: positions.clone(), offset });
                self.parts_len += positions.len() * shape.group() * shape.head_dim;
            }
            self.strip_tasks.push(StripTask {
                document,
                kv_head,
                keys,
                positions,
                part,
                num_pairs,
            });
            start = end;
        }
        let parts = first_part..self.parts.len();
        if !parts.is_empty() {
            for first in (0..len).step_by(SUM_POSITIONS) {
                let positions = first..len.min(first + SUM_POSITIONS);
                self.sums.push(Sum { document, kv_head, positions, parts: parts.clone() });
            }
        }
    }

    /// Keys of all documents in the panels.
    pub(super) fn padded_len(&self) -> usize {
        self.documents.last().map_or(0, |last| last.padded_start + last.padded_len())
    }

    pub(super) fn key_blocks(&self) -> &[KeyBlock] {
        &self.key_blocks
    }

    pub(super) fn query_tasks(&self) -> &[QueryTask] {
        &self.query_tasks
    }

    pub(super) fn strip_tasks(&self) -> &[StripTask] {
        &self.strip_tasks
    }

    pub(super) fn sums(&self) -> &[Sum] {
        &self.sums
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Floats of all parts of `d_q`.
    pub(super) fn parts_len(&self) -> usize {
        self.parts_len
    }
}
