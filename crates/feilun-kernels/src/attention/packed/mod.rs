//! Causal attention for training, and its gradient: several documents packed in a row of T
//! tokens, each of which sees only itself.
//!
//! Forward, for each query head and position t of a document, over the keys j that t sees:
//! `p[j] = e^(scale * q . k[j] - lse)`, `lse = ln(sum(e^(scale * q . k[j])))`,
//! `out = sum(p[j] v[j])`. Backward, with `D = d_out . out`:
//! `d_v[j] = sum(p[j] d_out)`, `ds[j] = p[j] * (d_out . v[j] - D)`,
//! `d_q = scale * sum(ds[j] k[j])`, `d_k[j] = scale * sum(ds[j] q)`, where keys and values sum
//! over the query heads that share them. The probabilities are computed again in the backward
//! pass from `lse`, block by block (FlashAttention-2, Dao 2023), so nothing of T x T is ever in
//! memory. All arithmetic is f32.
//!
//! The result of a document is a function of that document alone: bit for bit the same whatever
//! else is packed with it, on any number of threads and on any instruction path. Keys are taken
//! in blocks of `KEYS` from the document's start, all sums ascend, and who computes what
//! (`plan.rs`) follows from the document's length and the shape.
//!
//! Reading order: here (the calls), `plan.rs` (what the tasks are), `block.rs` (which keys a
//! block of queries sees), `forward.rs` and `backward.rs` (one task), `product.rs` and `rows.rs`
//! (the inner loops), `panels.rs` (how they want their operands).

mod backward;
mod block;
mod forward;
mod panels;
mod plan;
mod product;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use crate::memory::{AlignedBytes, OutOfMemory};
use crate::vector::LANES;
use crate::{Isa, Pool};
use panels::Panels;
use plan::Plan;

/// Keys of a block.
const KEYS: usize = 64;
/// Rows (query positions times heads that share a kv head) of a block, where one position does
/// not have more.
const ROWS: usize = 96;

/// The shape of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedShape {
    /// Query heads: a multiple of the kv heads; consecutive ones share a kv head.
    pub num_heads: usize,
    /// Heads of keys and of values.
    pub num_kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Factor on `q . k`.
    pub scale: f32,
    /// A query at position p sees the keys in `(p - window, p]`; `None`: all up to p.
    pub window: Option<usize>,
}

impl PackedShape {
    /// Query heads that share a kv head.
    fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Values of a head in working memory: whole vectors.
    fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Keys that a query sees at most.
    fn reach(&self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// Query positions of a block.
    fn block_positions(&self) -> usize {
        (ROWS / self.group()).max(1)
    }

    fn block_rows(&self) -> usize {
        self.block_positions() * self.group()
    }
}

/// Values of heads, row by row: f32, or bf16 that is widened as it is read.
#[derive(Clone, Copy, Debug)]
pub enum HeadValues<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Widened.
    Bf16(&'a [bf16]),
}

impl HeadValues<'_> {
    fn len(&self) -> usize {
        match self {
            HeadValues::F32(values) => values.len(),
            HeadValues::Bf16(values) => values.len(),
        }
    }
}

impl<'a> From<&'a [f32]> for HeadValues<'a> {
    fn from(values: &'a [f32]) -> HeadValues<'a> {
        HeadValues::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for HeadValues<'a> {
    fn from(values: &'a [bf16]) -> HeadValues<'a> {
        HeadValues::Bf16(values)
    }
}

/// Working memory of packed attention. It grows to what calls ask for and stays: a warm call
/// allocates nothing. One serves all layers, forward and backward.
#[derive(Debug, Default)]
pub struct PackedScratch {
    plan: Plan,
    panels: Panels,
    workspaces: Vec<Mutex<Workspace>>,
}

/// The memory of one thread.
#[derive(Debug, Default)]
struct Workspace(Option<AlignedBytes>);

impl PackedScratch {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let workspace = |workspace: &Mutex<Workspace>| {
            lock(workspace).0.as_ref().map_or(0, |memory| memory.len())
        };
        self.panels.bytes() + self.workspaces.iter().map(workspace).sum::<usize>()
    }

    /// Makes sure of a workspace of `len` floats for each thread.
    fn grow_workspaces(&mut self, num_threads: usize, len: usize) -> Result<(), OutOfMemory> {
        if self.workspaces.len() < num_threads {
            self.workspaces.resize_with(num_threads, Mutex::default);
        }
        for workspace in &self.workspaces {
            panels::grow(&mut lock(workspace).0, len)?;
        }
        Ok(())
    }
}

/// The operands of a call.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// Queries, `[T, num_heads, head_dim]`.
    pub q: HeadValues<'a>,
    /// Keys, `[T, num_kv_heads, head_dim]`.
    pub k: HeadValues<'a>,
    /// Values, as keys.
    pub v: HeadValues<'a>,
}

/// What the forward pass found, for the backward one.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The result, `[T, num_heads, head_dim]`.
    pub out: HeadValues<'a>,
    /// Natural logarithm of each query's sum of exponentials, `[T, num_heads]`.
    pub lse: &'a [f32],
}

/// Where gradients go; what is there is replaced.
#[derive(Debug)]
pub struct HeadGradients<'a> {
    /// Of queries, `[T, num_heads, head_dim]`.
    pub d_q: &'a mut [f32],
    /// Of keys, `[T, num_kv_heads, head_dim]`.
    pub d_k: &'a mut [f32],
    /// Of values, as of keys.
    pub d_v: &'a mut [f32],
}

/// Attention of packed documents with the given lengths, in order: `out` is
/// `[T, num_heads, head_dim]`, `lse` is `[T, num_heads]`.
///
/// ```
/// use feilun_kernels::{Isa, Pool, attention::packed};
/// let shape = packed::PackedShape {
///     num_heads: 1, num_kv_heads: 1, head_dim: 2, scale: 1.0, window: None,
/// };
/// // Two documents, of two tokens and of one. Only the second token sees another.
/// let (q, k) = ([0.0; 6], [0.0; 6]);
/// let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let heads = packed::Heads { q: q[..].into(), k: k[..].into(), v: v[..].into() };
/// let (mut out, mut lse) = ([0.0; 6], [0.0; 3]);
/// let mut scratch = packed::PackedScratch::default();
/// packed::forward(
///     &mut Pool::new(1)?, Isa::best(), &shape, &[2, 1], heads, &mut scratch, &mut out, &mut lse,
/// )?;
/// assert_eq!(out, [1.0, 2.0, 2.0, 3.0, 5.0, 6.0]);
/// assert!((lse[1] - 2f32.ln()).abs() < 1e-6 && lse[2] == 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the scratch cannot grow.
///
/// # Panics
/// When heads do not divide, the head dimension is odd or zero, or lengths do not fit together.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
pub fn forward(
    pool: &mut Pool,
    isa: Isa,
    shape: &PackedShape,
    documents: &[usize],
    heads: Heads<'_>,
    scratch: &mut PackedScratch,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), OutOfMemory> {
    let num_tokens = check(shape, documents, &heads);
    assert_eq!(out.len(), num_tokens * shape.num_heads * shape.head_dim, "length of out");
    assert_eq!(lse.len(), num_tokens * shape.num_heads, "length of lse");
    scratch.plan.prepare_forward(shape, documents);
    scratch.panels.grow(shape, &scratch.plan)?;
    scratch.grow_workspaces(pool.num_threads(), forward::workspace_len(shape))?;
    let PackedScratch { plan, panels, workspaces } = scratch;
    panels.fill(pool, isa, shape, plan, &heads);
    let call = forward::Call::new(isa, shape, panels, heads.q, out, lse);
    run_tasks(pool, workspaces, plan.query_tasks(), |task, memory| call.run(task, memory));
    Ok(())
}

/// The gradient of [`forward`], from what it found and the gradient of `out`.
///
/// # Errors
/// When the scratch cannot grow.
///
/// # Panics
/// As [`forward`].
#[expect(clippy::too_many_arguments, reason = "each is another thing, and none is optional")]
pub fn backward(
    pool: &mut Pool,
    isa: Isa,
    shape: &PackedShape,
    documents: &[usize],
    heads: Heads<'_>,
    found: Found<'_>,
    d_out: HeadValues<'_>,
    scratch: &mut PackedScratch,
    gradients: HeadGradients<'_>,
) -> Result<(), OutOfMemory> {
    let num_tokens = check(shape, documents, &heads);
    let q_len = num_tokens * shape.num_heads * shape.head_dim;
    let k_len = num_tokens * shape.num_kv_heads * shape.head_dim;
    assert_eq!((found.out.len(), d_out.len()), (q_len, q_len), "lengths of out and d_out");
    assert_eq!(found.lse.len(), num_tokens * shape.num_heads, "length of lse");
    assert_eq!(gradients.d_q.len(), q_len, "length of d_q");
    assert_eq!(
        (gradients.d_k.len(), gradients.d_v.len()),
        (k_len, k_len),
        "lengths of d_k and d_v"
    );
    scratch.plan.prepare_backward(shape, documents);
    scratch.panels.grow(shape, &scratch.plan)?;
    scratch.grow_workspaces(pool.num_threads(), backward::workspace_len(shape))?;
    let PackedScratch { plan, panels, workspaces } = scratch;
    panels.fill(pool, isa, shape, plan, &heads);
    let call = backward::Call::new(isa, shape, plan, panels, heads.q, found, d_out, gradients);
    run_tasks(pool, workspaces, plan.strip_tasks(), |task, memory| call.run(task, memory));
    pool.for_each_range(plan.sums().len(), 1, |range| {
        plan.sums()[range].iter().for_each(|sum| call.add_strips(sum));
    });
    Ok(())
}

/// Runs each task once, on the thread that is free.
fn run_tasks<T: Sync>(
    pool: &mut Pool,
    workspaces: &[Mutex<Workspace>],
    tasks: &[T],
    run: impl Fn(&T, &mut [f32]) + Sync,
) {
    let next = AtomicUsize::new(0);
    pool.run(|thread| {
        let mut workspace = lock(&workspaces[thread]);
        let Some(memory) = &mut workspace.0 else {
            return;
        };
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(task, memory.as_f32_mut());
        }
    });
}

/// A workspace whose thread panicked holds nothing that the next call reads.
fn lock(workspace: &Mutex<Workspace>) -> std::sync::MutexGuard<'_, Workspace> {
    workspace.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Checks that everything fits together; gives the number of tokens.
fn check(shape: &PackedShape, documents: &[usize], heads: &Heads<'_>) -> usize {
    let PackedShape { num_heads, num_kv_heads, head_dim, window, .. } = *shape;
    assert!(
        num_kv_heads > 0 && num_heads > 0 && num_heads.is_multiple_of(num_kv_heads),
        "{num_heads} heads for {num_kv_heads} kv heads"
    );
    assert!(head_dim > 0 && head_dim.is_multiple_of(2), "a head of {head_dim} values");
    assert!(window != Some(0), "a window of no keys");
    let num_tokens = documents.iter().sum::<usize>();
    assert_eq!(heads.q.len(), num_tokens * num_heads * head_dim, "length of q");
    let k_len = num_tokens * num_kv_heads * head_dim;
    assert_eq!((heads.k.len(), heads.v.len()), (k_len, k_len), "lengths of k and v");
    num_tokens
}
