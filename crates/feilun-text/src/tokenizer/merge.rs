//! The core of byte pair encoding: join the neighbours whose pair ranks first, again and again.
//!
//! Byte-level BPE (ranks from a list of merges) and SentencePiece BPE (ranks from scores) differ
//! only in how a pair is looked up. Work is O(n log n) for n symbols, because each join adds at
//! most two candidates to the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A stretch of the text that is one token so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub(super) start: u32,
    /// One past its last byte.
    pub(super) end: u32,
    /// Its token, or `None` where the vocabulary has none for it.
    pub(super) id: Option<u32>,
}

/// The join of two symbols.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    /// Lower joins first; of equals the leftmost does.
    pub(super) rank: u32,
    /// The joined token.
    pub(super) id: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    symbol: Symbol,
    previous: u32,
    next: u32,
    alive: bool,
}

/// Rank, left node, end of the joined text, its id.
type Candidate = Reverse<(u32, u32, u32, u32)>;

/// Buffers that are kept from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    nodes: Vec<Node>,
    heap: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a new word.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.heap.clear();
    }

    /// Appends a symbol; it begins where the one before it ended.
    pub(super) fn push(&mut self, symbol: Symbol) {
        let index = self.nodes.len() as u32;
        if let Some(last) = self.nodes.last_mut() {
            last.next = index;
        }
        let previous = index.checked_sub(1).unwrap_or(NONE);
        self.nodes.push(Node { symbol, previous, next: NONE, alive: true });
    }

    /// Joins neighbours as long as `join` knows a pair. `joined` hears of each join that is made.
    pub(super) fn run(
        &mut self,
        join: impl Fn(&Symbol, &Symbol) -> Option<Join>,
        mut joined: impl FnMut(&Symbol, &Symbol, u32),
    ) {
        for left in 1..self.nodes.len() {
            self.consider(left as u32 - 1, &join);
        }
        while let Some(Reverse((_, left, end, id))) = self.heap.pop() {
            let node = self.nodes[left as usize];
            if !node.alive || node.next == NONE {
                continue;
            }
            // Had either symbol grown since, the neighbour would end further to the right.
            let right = self.nodes[node.next as usize];
            if right.symbol.end != end {
                continue;
            }
            joined(&node.symbol, &right.symbol, id);
            self.nodes[node.next as usize].alive = false;
            let merged = &mut self.nodes[left as usize];
            merged.symbol.end = end;
            merged.symbol.id = Some(id);
            merged.next = right.next;
            if right.next != NONE {
                self.nodes[right.next as usize].previous = left;
                self.consider(left, &join);
            }
            if node.previous != NONE {
                self.consider(node.previous, &join);
            }
        }
    }

    fn consider(&mut self, left: u32, join: &impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        let node = &self.nodes[left as usize];
        if node.next == NONE {
            return;
        }
        let right = &self.nodes[node.next as usize].symbol;
        if let Some(Join { rank, id }) = join(&node.symbol, right) {
            self.heap.push(Reverse((rank, left, right.end, id)));
        }
    }

    /// What is left.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.nodes.iter().filter(|node| node.alive).map(|node| &node.symbol)
    }
}
