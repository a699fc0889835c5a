//! The operands as the inner loops want them: per document and kv head, rows of whole vectors,
//! and the same transposed in blocks of [`KEYS`] keys.

use std::ops::Range;

use super::plan::{Document, KeyBlock, Plan};
use super::{HeadValues, Heads, KEYS, PackedShape};
use crate::memory::{AlignedBytes, OutOfMemory};
use crate::pack::SendPointer;
use crate::{Isa, Pool, convert};

/// Keys, values and their gradients of all documents. Each buffer has the same layout: document
/// after document, in it kv head after kv head, in it block after block, and a block is
/// `[keys, dim]`, or `[dim, keys]` where it is transposed; keys and dim are whole vectors.
#[derive(Debug, Default)]
pub(super) struct Panels {
    keys: Option<AlignedBytes>,
    keys_transposed: Option<AlignedBytes>,
    values: Option<AlignedBytes>,
    values_transposed: Option<AlignedBytes>,
    d_keys: Option<AlignedBytes>,
    d_values: Option<AlignedBytes>,
    /// Parts of `d_q`.
    parts: Option<AlignedBytes>,
}

/// Where the keys of one kv head of a document are in a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    start: usize,
    padded_len: usize,
    dim: usize,
}

impl Region {
    pub(super) fn of(shape: &PackedShape, document: &Document, kv_head: usize) -> Region {
        let padded_len = document.padded_len();
        let before = document.padded_start * shape.num_kv_heads + kv_head * padded_len;
        let dim = shape.padded_dim();
        Region { start: before * dim, padded_len, dim }
    }

    /// The blocks of `keys`, which begin with a block.
    pub(super) fn blocks(&self, keys: &Range<usize>) -> Range<usize> {
        let end = keys.end.next_multiple_of(KEYS).min(self.padded_len);
        self.start + keys.start * self.dim..self.start + end * self.dim
    }

    /// The block that begins with the key `first`.
    pub(super) fn block(&self, first: usize) -> Range<usize> {
        self.blocks(&(first..first + 1))
    }

    /// Keys of the block that begins at `first`, with its padding: the step of a transposed row.
    pub(super) fn width(&self, first: usize) -> usize {
        KEYS.min(self.padded_len - first)
    }
}

/// Makes a buffer of at least `len` floats. What was in it is lost when it grows.
pub(super) fn grow(memory: &mut Option<AlignedBytes>, len: usize) -> Result<(), OutOfMemory> {
    let bytes = len.checked_mul(size_of::<f32>()).ok_or(OutOfMemory { bytes: usize::MAX })?;
    if memory.as_ref().is_none_or(|memory| memory.len() < bytes) {
        // The old one goes first, so that both are never there together.
        *memory = None;
        *memory = Some(AlignedBytes::zeroed(bytes)?);
    }
    Ok(())
}

fn floats(memory: &Option<AlignedBytes>) -> &[f32] {
    memory.as_ref().map_or(&[], |memory| memory.as_f32())
}

fn pointer(memory: &mut Option<AlignedBytes>) -> SendPointer<f32> {
    let memory = memory.as_mut().map_or(&mut [][..], |memory| memory.as_f32_mut());
    SendPointer(memory.as_mut_ptr())
}

impl Panels {
    pub(super) fn bytes(&self) -> usize {
        let all = [
            &self.keys,
            &self.keys_transposed,
            &self.values,
            &self.values_transposed,
            &self.d_keys,
            &self.d_values,
            &self.parts,
        ];
        all.into_iter().map(|memory| memory.as_ref().map_or(0, |memory| memory.len())).sum()
    }

    /// Makes room for a call.
    pub(super) fn grow(&mut self, shape: &PackedShape, plan: &Plan) -> Result<(), OutOfMemory> {
        let len = plan.padded_len() * shape.num_kv_heads * shape.padded_dim();
        grow(&mut self.keys, len)?;
        grow(&mut self.keys_transposed, len)?;
        grow(&mut self.values, len)?;
        if !plan.strip_tasks().is_empty() {
            grow(&mut self.values_transposed, len)?;
            grow(&mut self.d_keys, len)?;
            grow(&mut self.d_values, len)?;
            grow(&mut self.parts, plan.parts_len())?;
        }
        Ok(())
    }

    /// Fills in keys and values: the keys also transposed, and the values if there is a backward
    /// pass to do.
    pub(super) fn fill(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        shape: &PackedShape,
        plan: &Plan,
        heads: &Heads<'_>,
    ) {
        let is_backward = !plan.strip_tasks().is_empty();
        let keys_transposed = Some(pointer(&mut self.keys_transposed));
        let values_transposed = is_backward.then_some(pointer(&mut self.values_transposed));
        let sides = [
            (heads.k, pointer(&mut self.keys), keys_transposed),
            (heads.v, pointer(&mut self.values), values_transposed),
        ];
        let blocks = plan.key_blocks();
        pool.for_each_range(blocks.len(), 1, |range| {
            for block in &blocks[range] {
                let part = Region::of(shape, &block.document, block.kv_head).block(block.first);
                for (source, rows, transposed) in &sides {
                    // SAFETY: the part lies in the buffer, which `grow` made long enough; blocks
                    // have disjoint parts, and each is visited once.
                    let slice = |start: &SendPointer<f32>| unsafe {
                        std::slice::from_raw_parts_mut(start.get().add(part.start), part.len())
                    };
                    let rows = slice(rows);
                    fill_rows(isa, shape, block, *source, rows);
                    if let Some(transposed) = transposed {
                        transpose(rows, shape.padded_dim(), slice(transposed));
                    }
                }
            }
        });
    }

    pub(super) fn keys(&self) -> &[f32] {
        floats(&self.keys)
    }

    pub(super) fn keys_transposed(&self) -> &[f32] {
        floats(&self.keys_transposed)
    }

    pub(super) fn values(&self) -> &[f32] {
        floats(&self.values)
    }

    pub(super) fn values_transposed(&self) -> &[f32] {
        floats(&self.values_transposed)
    }

    /// Pointers to the gradients of keys and of values, and to the parts of `d_q`.
    pub(super) fn outputs(&mut self) -> [SendPointer<f32>; 3] {
        [pointer(&mut self.d_keys), pointer(&mut self.d_values), pointer(&mut self.parts)]
    }
}

/// Copies the keys (or values) of a block, and fills up with zeros.
fn fill_rows(
    isa: Isa,
    shape: &PackedShape,
    block: &KeyBlock,
    source: HeadValues<'_>,
    rows: &mut [f32],
) {
    let KeyBlock { document, kv_head, first } = *block;
    let num_keys = (document.len - first).min(KEYS);
    let (used, padding) = rows.split_at_mut(num_keys * shape.padded_dim());
    for (key, row) in used.chunks_exact_mut(shape.padded_dim()).enumerate() {
        let token = document.start + first + key;
        let start = (token * shape.num_kv_heads + kv_head) * shape.head_dim;
        read_heads(isa, shape, source, start, row);
    }
    padding.fill(0.0);
}

/// Copies the values of consecutive heads from `start` on, each padded with zeros to `dim`.
pub(super) fn read_heads(
    isa: Isa,
    shape: &PackedShape,
    source: HeadValues<'_>,
    start: usize,
    out: &mut [f32],
) {
    let (len, dim) = (shape.head_dim, shape.padded_dim());
    // Without padding all of them are one.
    let (len, dim) = if len == dim { (out.len(), out.len()) } else { (len, dim) };
    for (index, out) in out.chunks_exact_mut(dim).enumerate() {
        let from = start + index * len..start + (index + 1) * len;
        let (out, padding) = out.split_at_mut(len);
        match source {
            HeadValues::F32(values) => out.copy_from_slice(&values[from]),
            HeadValues::Bf16(values) => convert::from_bf16(isa, &values[from], out),
        }
        padding.fill(0.0);
    }
}

/// `out[column][row] = rows[row][column]`, rows being `dim` long.
fn transpose(rows: &[f32], dim: usize, out: &mut [f32]) {
    let num_rows = rows.len() / dim;
    for (column, out) in out.chunks_exact_mut(num_rows).enumerate() {
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(dim)) {
            *out = row[column];
        }
    }
}
