//! One task of the backward pass: a strip of keys of one kv head, against all queries that see
//! one of them.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use super::block::{Block, whole_vectors};
use super::panels::{Panels, Region, read_heads};
use super::plan::{Document, Plan, StripTask, Sum};
use super::product::{Left, Right, Span, multiply, multiply_add};
use super::rows::{SCORES_STEP, gradient_rows, row_dots};
use super::{Found, HeadGradients, HeadValues, KEYS, PackedShape};
use crate::Isa;
use crate::activation::{add_assign, scale};
use crate::pack::SendPointer;

/// Floats that a task works in.
pub(super) fn workspace_len(shape: &PackedShape) -> usize {
    shape.block_rows() * (3 * shape.padded_dim() + 2 * SCORES_STEP + 2)
}

/// What the tasks of a call share.
pub(super) struct Call<'a> {
    isa: Isa,
    shape: &'a PackedShape,
    plan: &'a Plan,
    panels: &'a Panels,
    q: HeadValues<'a>,
    found: Found<'a>,
    d_out: HeadValues<'a>,
    d_q: SendPointer<f32>,
    d_k: SendPointer<f32>,
    d_v: SendPointer<f32>,
    /// In the panels, like the next two.
    d_keys: SendPointer<f32>,
    d_values: SendPointer<f32>,
    parts: SendPointer<f32>,
}

/// The operands and results of a block of queries.
struct Queries<'a> {
    q: &'a [f32],
    d_out: &'a [f32],
    lse: &'a [f32],
    delta: &'a [f32],
    scores: &'a mut [f32],
    d_scores: &'a mut [f32],
    d_q: &'a mut [f32],
}

impl<'a> Call<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
    pub(super) fn new(
        isa: Isa,
        shape: &'a PackedShape,
        plan: &'a Plan,
        panels: &'a mut Panels,
        q: HeadValues<'a>,
        found: Found<'a>,
        d_out: HeadValues<'a>,
        gradients: HeadGradients<'a>,
    ) -> Call<'a> {
        let [d_keys, d_values, parts] = panels.outputs();
        let HeadGradients { d_q, d_k, d_v } = gradients;
        Call {
            isa,
            shape,
            plan,
            panels,
            q,
            found,
            d_out,
            d_q: SendPointer(d_q.as_mut_ptr()),
            d_k: SendPointer(d_k.as_mut_ptr()),
            d_v: SendPointer(d_v.as_mut_ptr()),
            d_keys,
            d_values,
            parts,
        }
    }

    pub(super) fn run(&self, task: &StripTask, memory: &mut [f32]) {
        let shape = self.shape;
        let region = Region::of(shape, &task.document, task.kv_head);
        let owned = region.blocks(&task.keys);
        // SAFETY: the range lies in the buffers, which `Panels::grow` made long enough, and a
        // strip alone has its keys.
        let slice = |start: &SendPointer<f32>| unsafe {
            std::slice::from_raw_parts_mut(start.get().add(owned.start), owned.len())
        };
        let (d_keys, d_values) = (slice(&self.d_keys), slice(&self.d_values));
        d_keys.fill(0.0);
        d_values.fill(0.0);
        for first in task.positions.clone().step_by(shape.block_positions()) {
            let end = task.positions.end.min(first + shape.block_positions());
            self.add_queries(task, region, first..end, memory, d_keys, d_values);
        }
        let num_values = task.keys.len() * shape.padded_dim();
        // Queries came as `q * scale * log2(e)`; this makes the factor `scale`.
        scale(self.isa, &mut d_keys[..num_values], LN_2);
        for (source, target) in [(d_keys, &self.d_k), (d_values, &self.d_v)] {
            let rows = source[..num_values].chunks_exact(shape.padded_dim());
            for (key, row) in task.keys.clone().zip(rows) {
                let token = task.document.start + key;
                let start = (token * shape.num_kv_heads + task.kv_head) * shape.head_dim;
                // SAFETY: the targets have a place for each head of each token, and a strip
                // alone has this head of this token.
                let target = unsafe {
                    std::slice::from_raw_parts_mut(target.get().add(start), shape.head_dim)
                };
                target.copy_from_slice(&row[..shape.head_dim]);
            }
        }
    }

    /// Adds what a block of queries gives to the gradients of the strip's keys and values, and
    /// writes what the strip gives to that of the queries.
    fn add_queries(
        &self,
        task: &StripTask,
        region: Region,
        positions: Range<usize>,
        memory: &mut [f32],
        d_keys: &mut [f32],
        d_values: &mut [f32],
    ) {
        let shape = self.shape;
        let (dim, group) = (shape.padded_dim(), shape.group());
        let num_rows = positions.len() * group;
        let (q, memory) = memory.split_at_mut(num_rows * dim);
        let (d_out, memory) = memory.split_at_mut(num_rows * dim);
        let (d_q, memory) = memory.split_at_mut(num_rows * dim);
        let (scores, memory) = memory.split_at_mut(num_rows * SCORES_STEP);
        let (d_scores, memory) = memory.split_at_mut(num_rows * SCORES_STEP);
        let (lse, memory) = memory.split_at_mut(num_rows);
        let delta = &mut memory[..num_rows];

        let isa = self.isa;
        let per_position = group * dim;
        for (index, position) in positions.clone().enumerate() {
            let token = task.document.start + position;
            let head = token * shape.num_heads + task.kv_head * group;
            let start = head * shape.head_dim;
            let range = index * per_position..(index + 1) * per_position;
            read_heads(isa, shape, self.q, start, &mut q[range.clone()]);
            read_heads(isa, shape, self.d_out, start, &mut d_out[range.clone()]);
            // The result is needed for delta alone, and may lie where d_q will be.
            read_heads(isa, shape, self.found.out, start, &mut d_q[range]);
            let rows = index * group..(index + 1) * group;
            for (lse, found) in lse[rows].iter_mut().zip(&self.found.lse[head..head + group]) {
                *lse = found * LOG2_E;
            }
        }
        row_dots(isa, d_out, d_q, delta);
        scale(isa, q, shape.scale * LOG2_E);
        d_q.fill(0.0);
        let mut queries = Queries { q, d_out, lse, delta, scores, d_scores, d_q };

        let (first_position, reach) = (positions.start, shape.reach());
        let first_seen = (first_position + 1).saturating_sub(reach) / KEYS * KEYS;
        let end_seen = task.keys.end.min(positions.end);
        for first_key in (first_seen.max(task.keys.start)..end_seen).step_by(KEYS) {
            let num_keys = KEYS.min(task.document.len - first_key);
            let block = Block { first_position, group, num_rows, first_key, num_keys, reach };
            let start = (first_key - task.keys.start) * dim;
            let (d_keys, d_values) = (&mut d_keys[start..], &mut d_values[start..]);
            self.add_block(&block, region, &mut queries, d_keys, d_values);
        }
        self.write_d_q(task, &positions, queries.d_q);
    }

    /// One block of queries against one block of keys: five products.
    fn add_block(
        &self,
        block: &Block,
        region: Region,
        queries: &mut Queries<'_>,
        d_keys: &mut [f32],
        d_values: &mut [f32],
    ) {
        let Call { isa, panels, .. } = *self;
        let dim = self.shape.padded_dim();
        let Queries { q, d_out, lse, delta, scores, d_scores, d_q } = queries;
        let part = region.block(block.first_key);
        let width = region.width(block.first_key);
        let transposed = |panel| Right { values: panel, k_step: width };
        let keys_transposed = transposed(&panels.keys_transposed()[part.clone()]);
        let values_transposed = transposed(&panels.values_transposed()[part.clone()]);
        let keys = &panels.keys()[part];
        let rows_of = |values| Left { values, row_step: dim, k_step: 1 };
        let columns_of = |values| Left { values, row_step: 1, k_step: SCORES_STEP };
        let natural = |values| Right { values, k_step: dim };

        block.for_each_row_span(|rows, columns| {
            let span = Span { rows, columns: whole_vectors(&columns), k: 0..dim };
            multiply(isa, rows_of(q), keys_transposed, span, scores, SCORES_STEP);
        });
        block.for_each_row_span(|rows, columns| {
            let span = Span { rows, columns: whole_vectors(&columns), k: 0..dim };
            multiply(isa, rows_of(d_out), values_transposed, span, d_scores, SCORES_STEP);
        });
        gradient_rows(isa, block, scores, d_scores, lse, delta);
        block.for_each_key_span(|keys, rows| {
            let span = Span { rows: keys, columns: 0..dim, k: rows };
            multiply_add(isa, columns_of(scores), natural(d_out), span, d_values, dim);
        });
        block.for_each_key_span(|keys, rows| {
            let span = Span { rows: keys, columns: 0..dim, k: rows };
            multiply_add(isa, columns_of(d_scores), natural(q), span, d_keys, dim);
        });
        block.for_each_row_span(|rows, columns| {
            let span = Span { rows, columns: 0..dim, k: columns };
            let d_scores = Left { values: d_scores, row_step: SCORES_STEP, k_step: 1 };
            multiply_add(isa, d_scores, natural(keys), span, d_q, dim);
        });
    }

    /// Writes a block's gradient to `d_q`, or to the strip's part of it.
    fn write_d_q(&self, task: &StripTask, positions: &Range<usize>, d_q: &mut [f32]) {
        let shape = self.shape;
        let (dim, len, group) = (shape.padded_dim(), shape.head_dim, shape.group());
        scale(self.isa, d_q, shape.scale);
        for (position, rows) in positions.clone().zip(d_q.chunks_exact(group * dim)) {
            let target = match task.part {
                None => self.d_q_heads(&task.document, task.kv_head, position),
                Some(offset) => {
                    let index = position - task.positions.start;
                    self.parts.get().wrapping_add(offset + index * group * len)
                }
            };
            // SAFETY: both have a place for each position of the strip, and this task alone
            // has it.
            let target = unsafe { std::slice::from_raw_parts_mut(target, group * len) };
            for (target, row) in target.chunks_exact_mut(len).zip(rows.chunks_exact(dim)) {
                target.copy_from_slice(&row[..len]);
            }
        }
    }

    /// Where the gradient of the kv head's query heads is at a position.
    fn d_q_heads(&self, document: &Document, kv_head: usize, position: usize) -> *mut f32 {
        let shape = self.shape;
        let head = (document.start + position) * shape.num_heads + kv_head * shape.group();
        self.d_q.get().wrapping_add(head * shape.head_dim)
    }

    /// Adds the strips' parts of `d_q` for some positions, in the order of the strips.
    pub(super) fn add_strips(&self, sum: &Sum) {
        let len = self.shape.group() * self.shape.head_dim;
        for position in sum.positions.clone() {
            let target = self.d_q_heads(&sum.document, sum.kv_head, position);
            // SAFETY: `d_q` has a place for each head of each token, and this sum alone has
            // this kv head's at this position.
            let target = unsafe { std::slice::from_raw_parts_mut(target, len) };
            target.fill(0.0);
            for part in &self.plan.parts()[sum.parts.clone()] {
                if part.positions.contains(&position) {
                    let start = part.offset + (position - part.positions.start) * len;
                    // SAFETY: the part has this position, and no task writes any more.
                    let part =
                        unsafe { std::slice::from_raw_parts(self.parts.get().add(start), len) };
                    add_assign(self.isa, target, part);
                }
            }
        }
    }
}
