//! Matrix multiply for training: `c = a b` or `c += a b`, where both operands change every step.
//!
//! Each operand is a matrix of f32 or bf16 values, either way round, or a frozen
//! [`PackedMatrix`](crate::PackedMatrix). Both are rounded to one [`Precision`]; sums are f32.
//!
//! # How it works
//! After Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008) and
//! BLIS. A *panel* is 16 lanes of an operand (rows of `a`, columns of `b`) over a block of `k`.
//! `pack` copies operands into panels, in the order in which the inner loop reads them; a `micro`
//! kernel multiplies a few panels of each into a *tile*, all of whose sums stay in registers over
//! the block of `k`; `finish` writes the tile to `c`. `plan` chooses the blocks.
//!
//! The blocks of `k` depend on `k` alone and are added up in ascending order, so that a result
//! depends neither on the number of threads nor on the other rows. With [`Precision::F32`] it is
//! the same on every instruction path, bit for bit: within a block each sum starts at 0 and takes
//! fused multiply-adds in ascending `k`. With [`Precision::Bf16`] the paths round differently:
//! `vdpbf16ps` and the AMX tiles add products in pairs and count denormals as zeros.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod finish;
mod matrix;
mod micro;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_avx512;
mod path;
mod plan;
#[cfg(test)]
mod tests;

pub use matrix::{Matrix, Output, Values};

use crate::pack::SendPointer;
use crate::{AlignedBytes, Isa, Pool};
use finish::Finish;
use micro::{Micro, TILE_PANELS, Tile};
use pack::{Operand, PANEL_LANES, Packing};
use path::Path;
use plan::{Plan, Range};

/// What both operands are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    F32,
    /// To bf16, to the nearest, ties to even.
    Bf16,
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `c = a b`.
    Store,
    /// `c += a b`.
    Add,
}

/// Memory for packed operands. It grows to what the largest product needs, a few tens of MiB at
/// most, and is then reused: a warm call allocates nothing.
#[derive(Debug, Default)]
pub struct GemmScratch {
    a: Option<AlignedBytes>,
    b: Option<AlignedBytes>,
    /// f32 sums of a part of a bf16 result that takes several blocks of k.
    sums: Option<AlignedBytes>,
}

impl GemmScratch {
    /// No memory yet.
    pub fn new() -> GemmScratch {
        GemmScratch::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        [&self.a, &self.b, &self.sums].into_iter().flatten().map(|buffer| buffer.len()).sum()
    }
}

/// Scratch grows in steps of a huge page, see [`crate::memory`].
const GROWTH_BYTES: usize = 2 << 20;

/// At least `words` words. Running out of memory ends the process, as it does for a `Vec`.
fn grown(buffer: &mut Option<AlignedBytes>, words: usize) -> *mut u32 {
    let bytes = (4 * words).next_multiple_of(GROWTH_BYTES);
    let buffer = match buffer.take().filter(|buffer| buffer.len() >= bytes) {
        Some(old) => buffer.insert(old),
        None => match AlignedBytes::zeroed(bytes) {
            Ok(new) => buffer.insert(new),
            Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u32; 16]>()),
        },
    };
    buffer.as_mut_ptr().cast()
}

/// `c = a b` or `c += a b`, where `a` is `(m, k)`, `b` is `(k, n)` and `c` is `(m, n)`, row-major.
///
/// For a linear layer with weights `w` of `(outputs, inputs)`: `y = x wᵀ` is
/// `gemm(x, w.transposed())`, `dx = dy w` is `gemm(dy, w)`, and `dw += dyᵀ x` is
/// `gemm(dy.transposed(), x)`.
///
/// ```
/// use feilun_kernels::gemm::{GemmScratch, Matrix, Output, Precision, Write, gemm};
/// use feilun_kernels::{Isa, Pool};
///
/// let mut pool = Pool::new(1)?;
/// let (x, w) = ([1.0, 2.0], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
/// let mut y = [0.0; 3];
/// gemm(
///     &mut pool,
///     Isa::best(),
///     Precision::F32,
///     &mut GemmScratch::new(),
///     Matrix::new(&x[..], 1, 2),
///     Matrix::new(&w[..], 3, 2).transposed(),
///     Output::F32(&mut y),
///     Write::Store,
/// );
/// assert_eq!(y, [11.0, 17.0, 23.0]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// When shapes do not fit.
#[expect(clippy::too_many_arguments, reason = "they are the operation")]
pub fn gemm(
    pool: &mut Pool,
    isa: Isa,
    precision: Precision,
    scratch: &mut GemmScratch,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: Output<'_>,
    write: Write,
) {
    assert_eq!(a.cols(), b.rows(), "columns of a, rows of b");
    assert_eq!(c.len(), a.rows() * b.cols(), "length of c for {} x {}", a.rows(), b.cols());
    let path = Path::of(isa, precision);
    let product = Product { a, b, path, plan: Plan::new(path, a.rows(), b.cols(), a.cols()) };
    match path {
        Path::Portable { .. } => product.run(pool, scratch, c, write, || micro::Portable),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 { .. } => product.run(pool, scratch, c, write, || avx2::Avx2),
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 { .. } => product.run(pool, scratch, c, write, || avx512::Avx512),
        #[cfg(target_arch = "x86_64")]
        Path::Avx512Bf16 => product.run(pool, scratch, c, write, || avx512::Avx512Bf16),
        #[cfg(target_arch = "x86_64")]
        Path::Amx => {
            #[cfg(test)]
            if !isa.is_available() {
                use crate::matmul::emulated_tiles::EmulatedTiles;
                let tiles = || amx::Tiles(EmulatedTiles::new());
                return product.run(pool, scratch, c, write, tiles);
            }
            product.run(pool, scratch, c, write, || amx::Tiles(crate::matmul::tile_unit::Amx));
        }
    }
}

struct Product<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    path: Path,
    plan: Plan,
}

/// Operands in panels: `[block of k][panel][word][lane]`.
#[derive(Clone, Copy)]
struct Packed {
    start: SendPointer<u32>,
    num_panels: usize,
    /// Words from one panel to the next.
    panel_words: usize,
}

impl Packed {
    /// The first word of a panel.
    fn panel(&self, block: usize, panel: usize) -> *mut u32 {
        // Stays within the memory that was grown for it: callers count as `plan` does.
        self.start.get().wrapping_add((block * self.num_panels + panel) * self.panel_words)
    }
}

impl Product<'_> {
    /// Part after part: first all threads pack its operands, then all multiply.
    fn run<M: Micro>(
        &self,
        pool: &mut Pool,
        scratch: &mut GemmScratch,
        mut c: Output<'_>,
        write: Write,
        micro: impl Fn() -> M + Sync,
    ) {
        let plan = &self.plan;
        let partial = matches!(c, Output::Bf16(_)) && plan.num_k_blocks() > 1;
        let sums = partial.then(|| {
            let len = plan.m_part * plan.n_part;
            SendPointer(grown(&mut scratch.sums, len).cast::<f32>())
        });
        let memory_a = SendPointer(grown(&mut scratch.a, plan.words(plan.m_part)));
        let memory_b = SendPointer(grown(&mut scratch.b, plan.words(plan.n_part)));
        // Which parts the scratch holds now.
        let (mut held_a, mut held_b) = (None, None);
        for rows in plan.rows() {
            for cols in plan.cols() {
                for depth in plan.depths() {
                    let a = self.packed(memory_a, rows);
                    let b = self.packed(memory_b, cols);
                    let is_new_a = held_a.replace((rows, depth)) != Some((rows, depth));
                    let is_new_b = held_b.replace((cols, depth)) != Some((cols, depth));
                    self.pack(
                        pool,
                        is_new_a.then_some((Operand::left(self.a, rows, depth), a)),
                        is_new_b.then_some((Operand::right(self.b, cols, depth), b)),
                    );
                    let finish = Finish::new(&mut c, plan.n, sums, rows, cols, write);
                    self.multiply(pool, (a, rows), (b, cols), depth, &finish, &micro);
                }
            }
        }
    }

    fn packed(&self, start: SendPointer<u32>, lanes: Range) -> Packed {
        let panel_words = self.plan.block_words() * PANEL_LANES;
        Packed { start, num_panels: lanes.len.div_ceil(PANEL_LANES), panel_words }
    }

    fn pack(
        &self,
        pool: &mut Pool,
        a: Option<(Operand<'_>, Packed)>,
        b: Option<(Operand<'_>, Packed)>,
    ) {
        let packings = [(a, self.path.left()), (b, self.path.right())].map(|(operand, layout)| {
            operand.map(|(operand, packed)| Packing {
                operand,
                packed,
                layout,
                plan: &self.plan,
                path: self.path,
            })
        });
        let [num_a, num_b] =
            [&packings[0], &packings[1]].map(|packing| packing.as_ref().map_or(0, Packing::len));
        let num_items = num_a + num_b;
        let grain = num_items.div_ceil(pool.num_threads() * 8);
        pool.for_each_range(num_items, grain, |items| {
            for item in items {
                match &packings {
                    [Some(a), _] if item < num_a => a.run(item),
                    [_, Some(b)] => b.run(item - num_a),
                    _ => {}
                }
            }
        });
    }

    fn multiply<M: Micro>(
        &self,
        pool: &mut Pool,
        (a, rows): (Packed, Range),
        (b, cols): (Packed, Range),
        depth: Range,
        finish: &Finish,
        micro: &(impl Fn() -> M + Sync),
    ) {
        let plan = &self.plan;
        let (mc, nc) = plan.block(rows.len, cols.len, pool.num_threads());
        let num_row_blocks = rows.len.div_ceil(mc);
        let num_blocks = num_row_blocks * cols.len.div_ceil(nc);
        pool.for_each_range(num_blocks, 1, |blocks| {
            let mut micro = micro();
            micro.begin();
            for block in blocks {
                // Neighbours share columns, so a thread may find them in its cache.
                let row_block = Range::nth(block % num_row_blocks, mc, rows.len);
                let col_block = Range::nth(block / num_row_blocks, nc, cols.len);
                for k_block in plan.k_blocks(depth) {
                    multiply_block(
                        &mut micro,
                        (&a, row_block),
                        (&b, col_block),
                        (k_block.index, plan.format.words(k_block.len)),
                        &finish.at(k_block.is_first, k_block.is_last),
                    );
                }
            }
            micro.end();
        });
    }
}

/// One block of rows and columns over one block of k. The panels of `a` stay in the first-level
/// cache while those of `b` come from the second.
fn multiply_block<M: Micro>(
    micro: &mut M,
    (a, rows): (&Packed, Range),
    (b, cols): (&Packed, Range),
    (k_block, words): (usize, usize),
    finish: &Finish,
) {
    let mut tile = Tile::default();
    for row in (rows.start..rows.end()).step_by(M::ROWS) {
        let num_rows = M::ROWS.min(rows.end() - row);
        let first = a.panel(k_block, row / PANEL_LANES);
        // Half a panel is contiguous, see `Layout::Halves`.
        let half = row % PANEL_LANES * (a.panel_words / PANEL_LANES);
        let left = [first.wrapping_add(half), first.wrapping_add(a.panel_words)];
        for col in (cols.start..cols.end()).step_by(M::PANELS * PANEL_LANES) {
            let num_cols = (M::PANELS * PANEL_LANES).min(cols.end() - col);
            let panels = num_cols.div_ceil(PANEL_LANES);
            let right: [*const u32; TILE_PANELS] = std::array::from_fn(|i| {
                b.panel(k_block, col / PANEL_LANES + i.min(panels - 1)).cast_const()
            });
            let left = left.map(<*mut u32>::cast_const);
            // SAFETY: the path was detected; each panel has `words` words of 16 lanes, and there
            // are `panels` of them from `col` on, and `num_rows` rows from `row` on. The tile is
            // within the block, which this thread alone has.
            unsafe {
                micro.multiply(words, left, num_rows, right, panels, &mut tile);
                micro.finish(finish, &tile, (row, num_rows), (col, num_cols));
            }
        }
    }
}
