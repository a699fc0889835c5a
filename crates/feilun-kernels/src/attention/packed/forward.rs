//! One task of the forward pass: a block of queries of one kv head, against all keys it sees.

use super::block::{Block, whole_vectors};
use super::panels::{Panels, Region, read_heads};
use super::plan::QueryTask;
use super::product::{Left, Right, Span, multiply, multiply_add};
use super::rows::{RowStates, SCORES_STEP, finish_row, softmax_rows};
use super::{HeadValues, KEYS, PackedShape};
use crate::Isa;
use crate::activation::scale;
use crate::pack::SendPointer;
use crate::vector::LANES;

/// Floats that a task works in.
pub(super) fn workspace_len(shape: &PackedShape) -> usize {
    shape.block_rows() * (2 * shape.padded_dim() + SCORES_STEP + LANES + 1)
}

/// What the tasks of a call share.
pub(super) struct Call<'a> {
    isa: Isa,
    shape: &'a PackedShape,
    panels: &'a Panels,
    q: HeadValues<'a>,
    out: SendPointer<f32>,
    lse: SendPointer<f32>,
}

impl<'a> Call<'a> {
    /// `out` and `lse` have a place for each head of each token.
    pub(super) fn new(
        isa: Isa,
        shape: &'a PackedShape,
        panels: &'a Panels,
        q: HeadValues<'a>,
        out: &'a mut [f32],
        lse: &'a mut [f32],
    ) -> Call<'a> {
        let (out, lse) = (SendPointer(out.as_mut_ptr()), SendPointer(lse.as_mut_ptr()));
        Call { isa, shape, panels, q, out, lse }
    }

    pub(super) fn run(&self, task: &QueryTask, memory: &mut [f32]) {
        let Call { isa, shape, panels, .. } = *self;
        let QueryTask { document, kv_head, ref positions } = *task;
        let (dim, group) = (shape.padded_dim(), shape.group());
        let num_rows = positions.len() * group;
        let (q, memory) = memory.split_at_mut(num_rows * dim);
        let (acc, memory) = memory.split_at_mut(num_rows * dim);
        let (scores, memory) = memory.split_at_mut(num_rows * SCORES_STEP);
        let (sums, memory) = memory.split_at_mut(num_rows * LANES);
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        let maxima = &mut memory[..num_rows];

        // The first of the kv head's query heads at a position.
        let head_at =
            |position: usize| (document.start + position) * shape.num_heads + kv_head * group;
        for (position, q) in positions.clone().zip(q.chunks_exact_mut(group * dim)) {
            read_heads(isa, shape, self.q, head_at(position) * shape.head_dim, q);
        }
        scale(isa, q, shape.scale * std::f32::consts::LOG2_E);
        acc.fill(0.0);
        maxima.fill(f32::NEG_INFINITY);
        sums.as_flattened_mut().fill(0.0);
        let mut states = RowStates { maxima, sums, acc, dim };

        let region = Region::of(shape, &document, kv_head);
        let (first_position, reach) = (positions.start, shape.reach());
        let first_seen = (first_position + 1).saturating_sub(reach) / KEYS * KEYS;
        for first_key in (first_seen..positions.end).step_by(KEYS) {
            let num_keys = KEYS.min(document.len - first_key);
            let block = Block { first_position, group, num_rows, first_key, num_keys, reach };
            let part = region.block(first_key);
            let values = Right { values: &panels.values()[part.clone()], k_step: dim };
            let keys =
                Right { values: &panels.keys_transposed()[part], k_step: region.width(first_key) };
            let q = Left { values: q, row_step: dim, k_step: 1 };
            block.for_each_row_span(|rows, columns| {
                let span = Span { rows, columns: whole_vectors(&columns), k: 0..dim };
                multiply(isa, q, keys, span, scores, SCORES_STEP);
            });
            softmax_rows(isa, &block, scores, &mut states);
            let shares = Left { values: scores, row_step: SCORES_STEP, k_step: 1 };
            block.for_each_row_span(|rows, columns| {
                let span = Span { rows, columns: 0..dim, k: columns };
                multiply_add(isa, shares, values, span, states.acc, dim);
            });
        }

        for (row, acc) in states.acc.chunks_exact_mut(dim).enumerate() {
            let lse = finish_row(isa, states.maxima[row], &states.sums[row], acc);
            let head = head_at(positions.start + row / group) + row % group;
            // SAFETY: `out` and `lse` have a place for each head of each token, and this task
            // alone has these heads of these tokens.
            unsafe {
                let out = self.out.get().add(head * shape.head_dim);
                std::slice::from_raw_parts_mut(out, shape.head_dim)
                    .copy_from_slice(&acc[..shape.head_dim]);
                self.lse.get().add(head).write(lse);
            }
        }
    }
}
