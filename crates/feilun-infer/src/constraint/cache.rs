//! Compiled constraints by their source, bounded in bytes.

use std::collections::HashMap;

use super::{Constraint, ConstraintKind};

/// What a compiled grammar takes whatever its source (measured: 145 kB), see `memory_of_a_grammar` in
/// the tests. The exact size is not to be had from llguidance.
const BYTES_PER_ENTRY: usize = 192 << 10;
/// Compiled bytes per byte of source (measured: 87), rounded up likewise.
const BYTES_PER_SOURCE_BYTE: usize = 128;

#[derive(Debug)]
struct Entry {
    constraint: Constraint,
    num_bytes: usize,
    last_used: u64,
}

/// The least recently used constraint goes first.
#[derive(Debug)]
pub(super) struct ConstraintCache {
    entries: HashMap<(ConstraintKind, String), Entry>,
    bytes_max: usize,
    num_bytes: usize,
    clock: u64,
}

impl ConstraintCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        ConstraintCache { entries: HashMap::new(), bytes_max, num_bytes: 0, clock: 0 }
    }

    pub(super) fn get(&mut self, key: &(ConstraintKind, String)) -> Option<Constraint> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.last_used = self.clock;
        Some(entry.constraint.clone())
    }

    /// Keeps a constraint, if it is not larger than the whole cache.
    pub(super) fn insert(&mut self, key: (ConstraintKind, String), constraint: Constraint) {
        let num_bytes = key.1.len().saturating_mul(BYTES_PER_SOURCE_BYTE) + BYTES_PER_ENTRY;
        if num_bytes > self.bytes_max {
            return;
        }
        self.clock += 1;
        let entry = Entry { constraint, num_bytes, last_used: self.clock };
        self.num_bytes += num_bytes;
        if let Some(old) = self.entries.insert(key, entry) {
            self.num_bytes -= old.num_bytes;
        }
        while self.num_bytes > self.bytes_max {
            // A scan: the bound keeps the number of entries in the hundreds.
            let oldest = self.entries.iter().min_by_key(|(_, e)| e.last_used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            if let Some(old) = self.entries.remove(&key) {
                self.num_bytes -= old.num_bytes;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
