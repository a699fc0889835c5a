//! Who does what: cuts a call into units that threads claim, largest first.
//!
//! A unit is some rows of one segment with one kv head and a range of chunks. Most units have
//! all chunks of their rows. One that is too large a part of the call, such as the single row
//! of a decode step with a long context, is split by chunks; the results of the parts meet in
//! a buffer, where the part that finishes last merges them.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{AttentionLimits, AttentionSegment, AttentionShape, CHUNK_TOKENS};
use crate::AlignedBytes;
use crate::memory::OutOfMemory;
use crate::pack::SendPointer;
use crate::vector::LANES;

/// Most rows (tokens times heads) of a unit: their queries and results stay in the L2 cache
/// together with a chunk of keys and values.
pub(super) const UNIT_ROWS_MAX: usize = 96;
/// Fewest rows of a unit, where there are as many: they share each load of keys and values.
/// Also the step of the number of rows; tiles of 1, 2, 3, 4, 6 rows divide it.
const UNIT_ROWS_STEP: usize = 12;
/// Units per thread that suffice for an even load.
const UNITS_PER_THREAD: usize = 4;
/// Multiply-adds below which waking the pool costs more than it saves: about 2 µs on one thread.
const SMALL_PRODUCTS: usize = 100_000;

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) segment: usize,
    /// Row of the call at which the segment begins.
    pub(super) segment_row: usize,
    pub(super) kv_head: usize,
    /// Rows counted as (token, head of the group), from the start of the segment.
    pub(super) rows: Range<usize>,
    pub(super) chunks: Range<usize>,
    /// Index of the split that this is a part of.
    pub(super) split: Option<usize>,
    cost: usize,
}

/// Where the parts of a split unit leave their results: per chunk `rows * dim` sums of values,
/// then `rows` pairs of maximum and sum.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) chunks: Range<usize>,
    start: usize,
    chunk_floats: usize,
    unfinished: AtomicU32,
}

impl Split {
    /// True for the last of the parts to call it; then all results can be read.
    pub(super) fn finish_part(&self) -> bool {
        // Release: this part's results. Acquire, in the last one: everybody's.
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// The units of one call, and the buffer of its splits.
pub(super) struct Plan {
    units: Vec<Unit>,
    splits: Vec<Split>,
    partials: AlignedBytes,
    /// Start of `partials`, taken while a call is prepared: no reference may cover the buffer
    /// while units write to it.
    target: SendPointer<f32>,
    products: usize,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("units", &self.units).finish_non_exhaustive()
    }
}

impl Plan {
    pub(super) fn new(
        shapes: &[AttentionShape],
        limits: AttentionLimits,
        num_threads: usize,
    ) -> Result<Plan, OutOfMemory> {
        let num_chunks = limits.num_positions.div_ceil(CHUNK_TOKENS);
        let mut units = 0;
        let mut floats = 0;
        for shape in shapes {
            let num_kv_heads = shape.layout.num_kv_heads();
            let group = shape.num_heads / num_kv_heads;
            let rows = limits.num_rows * group;
            units = units.max((rows / UNIT_ROWS_STEP + limits.num_segments) * num_kv_heads);
            floats = floats.max(chunk_floats(group.min(UNIT_ROWS_MAX), shape.layout.padded_dim()));
        }
        // Room for as many split rows of decode as can be more than their share of a call.
        let num_splits = UNITS_PER_THREAD * num_threads;
        let bytes = (num_splits * num_chunks * size_of::<f32>()).saturating_mul(floats);
        Ok(Plan {
            units: Vec::with_capacity(units + num_splits * UNITS_PER_THREAD * num_threads),
            splits: Vec::with_capacity(num_splits),
            partials: AlignedBytes::zeroed(bytes)?,
            target: SendPointer(std::ptr::null_mut()),
            products: 0,
        })
    }

    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    pub(super) fn split(&self, index: usize) -> &Split {
        &self.splits[index]
    }

    /// Whether the call is too small for more than one thread.
    pub(super) fn is_small(&self) -> bool {
        self.products < SMALL_PRODUCTS
    }

    /// The buffer, for those who keep to their own split and chunks.
    pub(super) fn partials(&self) -> SendPointer<f32> {
        self.target
    }

    /// Offset, in floats, of a chunk's results in the buffer.
    pub(super) fn partial_offset(split: &Split, chunk: usize) -> usize {
        split.start + (chunk - split.chunks.start) * split.chunk_floats
    }

    /// Cuts a call.
    pub(super) fn prepare(
        &mut self,
        shape: &AttentionShape,
        segments: &[AttentionSegment<'_>],
        num_threads: usize,
    ) {
        self.units.clear();
        self.splits.clear();
        let num_kv_heads = shape.layout.num_kv_heads();
        let group = shape.num_heads / num_kv_heads;
        let dim = shape.layout.padded_dim();
        let units_wanted = UNITS_PER_THREAD * num_threads;
        let num_rows: usize = segments.iter().map(|segment| segment.num_rows * group).sum();
        let unit_rows = (num_rows * num_kv_heads / units_wanted)
            .next_multiple_of(UNIT_ROWS_STEP)
            .clamp(UNIT_ROWS_STEP, UNIT_ROWS_MAX);

        let mut segment_row = 0;
        let mut cost_total = 0;
        for (index, segment) in segments.iter().enumerate() {
            for kv_head in 0..num_kv_heads {
                let mut end = segment.num_rows * group;
                while end > 0 {
                    // From the end, which has the most keys to see.
                    let start = (end - 1) / unit_rows * unit_rows;
                    let first = keys_seen(shape.window, segment.start + start / group);
                    let last = keys_seen(shape.window, segment.start + (end - 1) / group);
                    let cost = (end - start) * last.len();
                    cost_total += cost;
                    self.units.push(Unit {
                        segment: index,
                        segment_row,
                        kv_head,
                        rows: start..end,
                        chunks: first.start / CHUNK_TOKENS..last.end.div_ceil(CHUNK_TOKENS),
                        split: None,
                        cost,
                    });
                    end = start;
                }
            }
            segment_row += segment.num_rows;
        }
        self.products = cost_total * dim;
        if num_threads > 1 && !self.is_small() {
            self.split_large(cost_total / units_wanted, dim);
        }
        self.target = SendPointer(self.partials.as_f32_mut().as_mut_ptr());
        if !self.units.is_sorted_by(|a, b| a.cost >= b.cost) {
            self.units.sort_unstable_by_key(|unit| std::cmp::Reverse(unit.cost));
        }
    }

    /// Splits units that cost more than `share`, as long as the buffer has room.
    fn split_large(&mut self, share: usize, dim: usize) {
        let mut start = 0;
        for index in 0..self.units.len() {
            let unit = &self.units[index];
            let (chunks, cost) = (unit.chunks.clone(), unit.cost);
            let num_parts = cost.div_ceil(share.max(1)).min(chunks.len());
            let chunk_floats = chunk_floats(unit.rows.len(), dim);
            let end = start + chunks.len() * chunk_floats;
            if num_parts < 2 || end * size_of::<f32>() > self.partials.len() {
                continue;
            }
            let split = Some(self.splits.len());
            self.splits.push(Split {
                chunks: chunks.clone(),
                start,
                chunk_floats,
                unfinished: AtomicU32::new(num_parts as u32),
            });
            start = end;
            let bound = |part: usize| chunks.start + chunks.len() * part / num_parts;
            for part in 0..num_parts {
                let part_unit = Unit {
                    chunks: bound(part)..bound(part + 1),
                    split,
                    cost: cost / num_parts,
                    ..self.units[index].clone()
                };
                if part == 0 {
                    self.units[index] = part_unit;
                } else {
                    self.units.push(part_unit);
                }
            }
        }
    }
}

/// Floats that a chunk's results of some rows take.
fn chunk_floats(num_rows: usize, dim: usize) -> usize {
    (num_rows * (dim + 2)).next_multiple_of(LANES)
}

/// The positions that a row at `position` sees.
pub(super) fn keys_seen(window: Option<usize>, position: usize) -> Range<usize> {
    let end = position + 1;
    window.map_or(0, |window| end.saturating_sub(window))..end
}
