//! Causal attention over the paged cache: `out = softmax(scale * q K^T) V` for each row and head,
//! grouped-query, with an optional sliding window; decode and prefill, mixed in one call.
//!
//! The result of a row is a function of that row, its positions' keys and values, and the kind of
//! the cache: bit for bit the same whatever else is in the call, on any number of threads, on any
//! instruction path and in any physical blocks. It is defined like this:
//!
//! 1. Keys are taken in chunks of [`CHUNK_TOKENS`] at absolute positions. A chunk has its own
//!    maximum m, its sum of `p = 2^(s - m)` over sixteen lanes (key i in lane i mod 16, in
//!    ascending order, then a fixed tree), and its `acc = sum(p v)`.
//! 2. Float kinds: a score is a chain of fused multiply-adds over the dimensions, `acc` one over
//!    the keys, both ascending and in f32. The 8-bit kind: the query (per row and head) and
//!    `p * scale(v)` (per row, head and chunk) are rounded to sixteen bits, which go through the
//!    dot product as two digits of eight; all sums are integers, exact in any order.
//! 3. Chunks are merged in ascending order (`merge` in `tile.rs`), by the thread that has
//!    them all or, where chunks went to several threads, by the one that finishes last.
//!
//! Reading order: here (the call), `plan.rs` (who does what), `unit.rs` (one piece of work),
//! `float.rs` and `q8.rs` (the inner loops), `tile.rs` (what they share).

mod float;
pub mod packed;
mod plan;
mod q8;
#[cfg(test)]
mod reference;
mod tables;
#[cfg(test)]
mod tests;
mod tile;
mod unit;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kv::{BLOCK_TOKENS, KvLayout};
use crate::memory::OutOfMemory;
use crate::pack::SendPointer;
use crate::{Isa, Pool};
use plan::Plan;
use unit::Workspace;

/// Keys that are taken together: a softmax of their own, merged in order. With 256 the sums of
/// sixteen-bit probabilities times eight-bit values just fit 32 bits.
pub const CHUNK_TOKENS: usize = 256;
const CHUNK_BLOCKS: usize = CHUNK_TOKENS / BLOCK_TOKENS;

/// The shape of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// The cache, and with it the number of kv heads and their dimension.
    pub layout: KvLayout,
    /// Query heads: a multiple of the kv heads; consecutive ones share a kv head.
    pub num_heads: usize,
    /// Factor on `q . k`.
    pub scale: f32,
    /// A row at position p sees the keys in `(p - window, p]`; `None`: all up to p.
    pub window: Option<usize>,
}

/// Consecutive rows of a call that are consecutive positions of one sequence: a prompt chunk, or
/// the one row of a decode step. Their keys and values are in the cache already.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSegment<'a> {
    /// Rows; the segment's first row follows the last of the segment before.
    pub num_rows: usize,
    /// Position of the first row.
    pub start: usize,
    /// Block table of the sequence: position p is in block `blocks[p / 16]`.
    pub blocks: &'a [u32],
}

/// Working memory of attention, planned once; a call allocates nothing.
#[derive(Debug)]
pub struct AttentionScratch {
    workspaces: Vec<Mutex<Workspace>>,
    plan: Plan,
}

/// What a scratch is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionLimits {
    /// Rows of one call.
    pub num_rows: usize,
    /// Segments of one call.
    pub num_segments: usize,
    /// Positions of a sequence.
    pub num_positions: usize,
}

impl AttentionScratch {
    /// Scratch for calls within `limits`, in all of `shapes` (layers may differ), on pools of
    /// up to `num_threads`.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn new(
        shapes: &[AttentionShape],
        limits: AttentionLimits,
        num_threads: usize,
    ) -> Result<AttentionScratch, OutOfMemory> {
        let dim_max = shapes.iter().map(|shape| shape.layout.padded_dim()).max().unwrap_or(0);
        let workspaces = (0..num_threads.max(1))
            .map(|_| Workspace::new(dim_max).map(Mutex::new))
            .collect::<Result<_, _>>()?;
        Ok(AttentionScratch { workspaces, plan: Plan::new(shapes, limits, num_threads)? })
    }
}

/// Attention of all rows of `segments`, in order: row i has its queries at `q[i * q_stride..]`
/// (after rotary embedding) and its result at `out[i * num_heads * head_dim..]`.
///
/// # Panics
/// When heads do not divide, `q` or `out` are too short, a block table is too short or names a
/// block outside the cache, or the call exceeds what the scratch was planned for.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
pub fn attend(
    pool: &mut Pool,
    isa: Isa,
    shape: &AttentionShape,
    cache: &[u8],
    segments: &[AttentionSegment<'_>],
    q: &[f32],
    q_stride: usize,
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let q_size = shape.num_heads * shape.layout.head_dim();
    let num_rows: usize = segments.iter().map(|segment| segment.num_rows).sum();
    if num_rows == 0 {
        return;
    }
    assert!(
        shape.num_heads.is_multiple_of(shape.layout.num_kv_heads()) && shape.num_heads > 0,
        "{} heads for {} kv heads",
        shape.num_heads,
        shape.layout.num_kv_heads()
    );
    assert!(shape.window != Some(0), "a window of no keys");
    assert!(q_stride >= q_size && q.len() >= (num_rows - 1) * q_stride + q_size, "q is short");
    assert!(out.len() >= num_rows * q_size, "out is short");
    assert!(cache.as_ptr().cast::<[u64; 8]>().is_aligned(), "the cache is not aligned");
    for segment in segments {
        assert!(
            segment.blocks.len() * BLOCK_TOKENS >= segment.start + segment.num_rows,
            "{} blocks for {} rows at {}",
            segment.blocks.len(),
            segment.num_rows,
            segment.start
        );
    }
    let AttentionScratch { workspaces, plan } = scratch;
    let num_threads = pool.num_threads().min(workspaces.len());
    plan.prepare(shape, segments, num_threads);
    let call = unit::Call {
        shape,
        kernels: tables::kernels(isa, shape.layout.kind()),
        cache,
        segments,
        q,
        q_stride,
        out: SendPointer(out.as_mut_ptr()),
        plan,
        group: shape.num_heads / shape.layout.num_kv_heads(),
    };
    let next = AtomicUsize::new(0);
    let work = |thread: usize| {
        let Some(workspace) = workspaces.get(thread) else {
            return;
        };
        // A workspace whose thread panicked holds nothing that the next call reads.
        let mut workspace = workspace.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(unit) = plan.units().get(next.fetch_add(1, Ordering::Relaxed)) {
            call.run(unit, &mut workspace);
        }
    };
    if plan.is_small() || num_threads == 1 {
        work(0);
    } else {
        pool.run(work);
    }
}
