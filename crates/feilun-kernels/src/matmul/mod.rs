//! Matrix multiply of activation rows with packed weights: `out[r][n] = Σ_k x[r][k] w[n][k]`.
//!
//! One arithmetic for every number of rows and every instruction path of the integer kernels,
//! so a result is the same bit for bit alone, in a batch, in chunks, on any thread. With the
//! quantized row `x ≈ d_x q_x` (see [`rows`](crate::rows)) and the stored weights
//! `w = d_w (q_w - zero) + m_w`, each output starts at 0 and takes, group after group of 32
//! columns in ascending order, in f32 with fused multiply-add:
//!
//! ```text
//! acc = fma(float(Σ q_x (q_w - zero)), d_w * d_x, acc)      integer sum exact
//! acc = fma(m_w, d_x Σ q_x, acc)                            types with a minimum
//! ```
//!
//! Q6_K has a scale per 16 columns and so takes the first line twice. Float weights take
//! `acc = fma(x, w, acc)` column after column. With [`Numerics::F32`] quantized weights are
//! dequantized and multiplied as floats: slow, and the reference for accuracy.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dequantize;
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) mod emulated_tiles;
mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_peak;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_unit;

pub use bf16::multiply_bf16;

use crate::pack::{PANEL_ROWS, SendPointer, is_quantized};
use crate::rows::{QuantTile, RowForms, RowTiles, TILE_ROWS, Tile, tile};
use crate::{Isa, KernelTable, PackedMatrix, Pool};

/// How quantized weights are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// Activations in two 7-bit digits, integer dot products: the fast way.
    #[default]
    Native,
    /// Activations and dequantized weights in f32.
    F32,
}

impl Numerics {
    /// The form of the rows that a matrix of this type takes.
    pub fn forms(self, weights: &PackedMatrix) -> RowForms {
        let quantized = self == Numerics::Native && is_quantized(weights.block_type());
        RowForms { float: !quantized, quantized }
    }
}

/// What is done with a finished sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `out = sum`.
    Store,
    /// `out += sum`: the residual connection.
    Add,
}

/// One matrix of a [`multiply`] call.
#[derive(Debug)]
pub struct Job<'a> {
    /// The weights.
    pub weights: &'a PackedMatrix,
    /// Added to every row, one value per output.
    pub bias: Option<&'a [f32]>,
    /// What becomes of the sums.
    pub epilogue: Epilogue,
    /// `(num_rows, weights.rows())`, row-major.
    pub out: &'a mut [f32],
}

/// An activation with its gate: `(isa, gate, up, out)`, `out = act(gate) * up`.
pub type Gate = fn(Isa, &[f32], &[f32], &mut [f32]);

/// A tile's results: `[row][lane]`.
type Sums = [[f32; PANEL_ROWS]; TILE_ROWS];

/// Multiplies all rows with each job's weights, in one parallel step, each on the path that
/// `kernels` names (an [`Isa`] names itself).
///
/// # Panics
/// When widths or lengths do not fit, or the rows lack the form that the weights take.
pub fn multiply(
    pool: &mut Pool,
    kernels: impl Into<KernelTable>,
    numerics: Numerics,
    rows: &RowTiles,
    jobs: &mut [Job<'_>],
) {
    multiply_jobs(pool, &kernels.into(), numerics, rows, jobs);
}

fn multiply_jobs(
    pool: &mut Pool,
    kernels: &KernelTable,
    numerics: Numerics,
    rows: &RowTiles,
    jobs: &mut [Job<'_>],
) {
    let num_rows = rows.num_rows;
    let mut starts = Vec::with_capacity(jobs.len());
    let mut num_panels = 0;
    let mut outs = Vec::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        check(rows, job.weights, job.out.len());
        if let Some(bias) = job.bias {
            assert_eq!(bias.len(), job.weights.rows(), "bias");
        }
        starts.push(num_panels);
        num_panels += job.weights.num_panels();
        outs.push(SendPointer(job.out.as_mut_ptr()));
    }
    let jobs: &[Job<'_>] = jobs;
    let (starts, outs) = (&starts[..], &outs[..]);
    for_each_panel(pool, num_rows, num_panels, |range, row_range| {
        let mut index = range.start;
        while index < range.end {
            let which = starts.partition_point(|&start| start <= index) - 1;
            let job = &jobs[which];
            let first = index - starts[which];
            let count = PANELS_AT_ONCE.min(range.end - index);
            let panels = first..job.weights.num_panels().min(first + count);
            index += panels.len();
            panel_tiles(
                kernels,
                numerics,
                rows,
                job.weights,
                panels,
                row_range.clone(),
                |tile, panel, sums| {
                    let lanes = PANEL_ROWS.min(job.weights.rows() - panel * PANEL_ROWS);
                    for (r, sums) in sums[..tile.used].iter().enumerate() {
                        let at = (tile.row + r) * job.weights.rows() + panel * PANEL_ROWS;
                        // SAFETY: the length of `out` was checked; this panel's columns of these
                        // rows belong to this call of the closure alone.
                        let out = unsafe {
                            std::slice::from_raw_parts_mut(outs[which].get().add(at), lanes)
                        };
                        finish(out, sums, job.bias.map(|b| &b[panel * PANEL_ROWS..]), job.epilogue);
                    }
                },
            );
        }
    });
}

/// `out[r][n] = activation(gate · x_r)[n] * (up · x_r)[n]`, the first half of a gated MLP.
///
/// # Panics
/// As [`multiply`], and when gate and up differ in shape.
#[expect(clippy::too_many_arguments, reason = "they are the operation")]
pub fn multiply_gated(
    pool: &mut Pool,
    kernels: impl Into<KernelTable>,
    numerics: Numerics,
    rows: &RowTiles,
    gate: &PackedMatrix,
    up: &PackedMatrix,
    activation: Gate,
    out: &mut [f32],
) {
    let kernels = &kernels.into();
    let isa = kernels.isa();
    check(rows, gate, out.len());
    check(rows, up, out.len());
    let target = SendPointer(out.as_mut_ptr());
    for_each_panel(pool, rows.num_rows, gate.num_panels(), |range, row_range| {
        let mut gates = GATE_SCRATCH.take();
        for first in range.clone().step_by(PANELS_AT_ONCE) {
            let panels = first..range.end.min(first + PANELS_AT_ONCE);
            gates.clear();
            panel_tiles(
                kernels,
                numerics,
                rows,
                gate,
                panels.clone(),
                row_range.clone(),
                |_, _, sums| {
                    gates.push(*sums);
                },
            );
            let mut gates = gates.iter();
            panel_tiles(
                kernels,
                numerics,
                rows,
                up,
                panels,
                row_range.clone(),
                |tile, panel, ups| {
                    let Some(gates) = gates.next() else { return };
                    let lanes = PANEL_ROWS.min(gate.rows() - panel * PANEL_ROWS);
                    let mut gated: Sums = [[0.0; PANEL_ROWS]; TILE_ROWS];
                    let gated = &mut gated[..tile.used];
                    let (gates, ups) = (&gates[..tile.used], &ups[..tile.used]);
                    activation(
                        isa,
                        gates.as_flattened(),
                        ups.as_flattened(),
                        gated.as_flattened_mut(),
                    );
                    for (r, gated) in gated.iter().enumerate() {
                        let at = (tile.row + r) * gate.rows() + panel * PANEL_ROWS;
                        // SAFETY: as in `multiply`.
                        let out =
                            unsafe { std::slice::from_raw_parts_mut(target.get().add(at), lanes) };
                        store(out, gated);
                    }
                },
            );
        }
        GATE_SCRATCH.set(gates);
    });
}

thread_local! {
    /// The gates of a few panels per thread, while their ups are computed.
    static GATE_SCRATCH: std::cell::Cell<Vec<Sums>> = const { std::cell::Cell::new(Vec::new()) };
}

fn check(rows: &RowTiles, weights: &PackedMatrix, out_len: usize) {
    assert_eq!(rows.cols, weights.cols(), "columns of rows and weights");
    assert_eq!(out_len, rows.num_rows * weights.rows(), "length of out");
}

fn finish(out: &mut [f32], sums: &[f32; PANEL_ROWS], bias: Option<&[f32]>, epilogue: Epilogue) {
    let mut sums = *sums;
    if let Some(bias) = bias {
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
    match epilogue {
        Epilogue::Store => store(out, &sums),
        Epilogue::Add => match out.first_chunk_mut::<PANEL_ROWS>() {
            Some(out) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        },
    }
}

/// Copies as many sums as there are outputs.
fn store(out: &mut [f32], sums: &[f32; PANEL_ROWS]) {
    match out.first_chunk_mut() {
        Some(out) => *out = *sums,
        None => store_part(out, sums),
    }
}

/// Apart, since the compiler would join both copies into a call with a length known at run
/// time, where a whole panel's 64 bytes are a store or two.
#[cold]
#[inline(never)]
fn store_part(out: &mut [f32], sums: &[f32; PANEL_ROWS]) {
    out.copy_from_slice(&sums[..out.len()]);
}

/// Rows that are multiplied with one panel before the next panel is taken: their quantized
/// form should stay in the second-level cache.
const ROW_BLOCK: usize = 256;

/// Up to so many rows, reading the weights takes longer than computing with them.
const FEW_ROWS: usize = 4;

/// Splits the work over panels (and over blocks of rows, the outer loop).
fn for_each_panel(
    pool: &mut Pool,
    num_rows: usize,
    num_panels: usize,
    body: impl Fn(std::ops::Range<usize>, std::ops::Range<usize>) + Sync,
) {
    // Many rows: about eight pieces a thread, to even out threads that lose time to others. Few
    // rows: one piece a thread, since each asks memory for the panels that follow its own.
    let pieces = if num_rows <= FEW_ROWS { 1 } else { 8 };
    let grain = num_panels.div_ceil(pool.num_threads() * pieces);
    let grain = if pieces == 1 { grain } else { grain.next_multiple_of(PANELS_AT_ONCE) };
    for first in (0..num_rows).step_by(ROW_BLOCK) {
        let row_range = first..num_rows.min(first + ROW_BLOCK);
        pool.for_each_range(num_panels, grain, |range| body(range, row_range.clone()));
    }
}

/// Panels that are read together where there are few rows: one stream of reads leaves half of
/// the memory's speed unused.
const PANELS_AT_ONCE: usize = 4;

/// Computes the tiles of some rows (whose start is a multiple of 16) for a few panels, tile
/// after tile; `done(tile, panel, sums)`.
fn panel_tiles(
    kernels: &KernelTable,
    numerics: Numerics,
    rows: &RowTiles,
    weights: &PackedMatrix,
    panels: std::ops::Range<usize>,
    row_range: std::ops::Range<usize>,
    mut done: impl FnMut(Tile, usize, &Sums),
) {
    debug_assert!(panels.len() <= PANELS_AT_ONCE);
    let isa = kernels.path(weights.block_type(), rows.num_rows);
    let mut sums: [Sums; PANELS_AT_ONCE] = [[[0.0; PANEL_ROWS]; TILE_ROWS]; PANELS_AT_ONCE];
    let tile_range = row_range.start / TILE_ROWS..row_range.end.div_ceil(TILE_ROWS);
    if numerics.forms(weights).quantized {
        let sections: [(&[u8], &[u8]); PANELS_AT_ONCE] = std::array::from_fn(|i| {
            let panel = weights.panel((panels.start + i).min(panels.end - 1));
            panel.split_at(weights.quant_offset)
        });
        let sections = &sections[..panels.len()];
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx && tile(rows.num_rows, tile_range.start).height >= amx::MIN_HEIGHT {
            for (panel, &section) in panels.zip(sections) {
                let done = |tile: Tile, sums: &Sums| done(tile, panel, sums);
                // SAFETY: the path was detected; the section is a whole panel of this type, as
                // many columns as the rows.
                unsafe {
                    amx::panel(weights.block_type(), section, rows, tile_range.clone(), done)
                };
            }
            return;
        }
        let sums = &mut sums[..panels.len()];
        // With many rows a panel stays in the cache for all of them, so panels come one by one.
        let together = if tile_range.len() > 1 { 1 } else { PANELS_AT_ONCE };
        for (i, sections) in sections.chunks(together).enumerate() {
            let sums = &mut sums[i * together..][..sections.len()];
            for index in tile_range.clone() {
                let tile = tile(rows.num_rows, index);
                integer_tile(isa, weights.block_type(), sections, &rows.quant_tile(tile), sums);
                for (j, sums) in sums.iter().enumerate() {
                    done(tile, panels.start + i * together + j, sums);
                }
            }
        }
    } else {
        let mut scratch = PANEL_SCRATCH.take();
        scratch.resize(weights.cols() * PANEL_ROWS, 0.0);
        let dequantized = is_quantized(weights.block_type());
        for panel in panels {
            if dequantized {
                weights.panel_to_f32(isa, panel, &mut scratch);
            }
            for index in tile_range.clone() {
                let tile = tile(rows.num_rows, index);
                let x = rows.float_tile(tile);
                let weights_panel = if dequantized {
                    FloatPanel::F32(bytemuck::cast_slice(&scratch))
                } else {
                    FloatPanel::of(weights, panel)
                };
                float_tile(
                    kernels.isa(),
                    weights_panel,
                    weights.cols(),
                    x,
                    tile.height,
                    &mut sums[0],
                );
                done(tile, panel, &sums[0]);
            }
        }
        PANEL_SCRATCH.set(scratch);
    }
}

thread_local! {
    /// One dequantized panel per thread, for `Numerics::F32`; grows to the widest matrix once.
    static PANEL_SCRATCH: std::cell::Cell<Vec<f32>> = const { std::cell::Cell::new(Vec::new()) };
}

/// A panel of float weights: `[cols][16]`, bf16 in pairs of columns.
#[derive(Clone, Copy)]
enum FloatPanel<'a> {
    F32(&'a [u8]),
    F16(&'a [u8]),
    Bf16(&'a [u8]),
}

impl<'a> FloatPanel<'a> {
    fn of(weights: &'a PackedMatrix, panel: usize) -> FloatPanel<'a> {
        let bytes = weights.panel(panel);
        match weights.block_type() {
            crate::BlockType::F16 => FloatPanel::F16(bytes),
            crate::BlockType::Bf16 => FloatPanel::Bf16(bytes),
            _ => FloatPanel::F32(bytes),
        }
    }
}

/// One tile of rows with a few panels, each given as (scales, quants).
fn integer_tile(
    isa: Isa,
    block_type: crate::BlockType,
    panels: &[(&[u8], &[u8])],
    x: &QuantTile<'_>,
    sums: &mut [Sums],
) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: the path was detected; scales and quants are whole panels of this type, and
        // the tile has as many columns.
        unsafe { avx512::integer_tile(block_type, panels, x, sums) };
        return;
    }
    for (&(scales, quants), sums) in panels.iter().zip(sums) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::integer_tile(block_type, scales, quants, x, sums) },
            _ => portable::integer_tile(block_type, scales, quants, x, sums),
        }
    }
}

fn float_tile(
    isa: Isa,
    panel: FloatPanel<'_>,
    cols: usize,
    x: &[f32],
    height: usize,
    sums: &mut Sums,
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path was detected; panel and tile have `cols` columns.
        Isa::Avx512 | Isa::Amx => unsafe { avx512::float_tile(panel, cols, x, height, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::float_tile(panel, cols, x, height, sums) },
        _ => portable::float_tile(panel, cols, x, height, sums),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockType;
    use crate::dequantize::dequantize_row;
    use crate::test_support::{Random, matmul_paths, random_rows};

    struct Case {
        block_type: BlockType,
        weights: PackedMatrix,
        /// Dequantized `(n, k)`.
        dense: Vec<f32>,
        x: Vec<f32>,
        num_rows: usize,
    }

    impl Case {
        fn new(block_type: BlockType, n: usize, k: usize, num_rows: usize) -> Case {
            let mut random = Random((n * k * 31 + num_rows) as u64);
            let stored = random_rows(block_type, n, k, &mut random);
            let mut pool = Pool::new(1).unwrap();
            let weights =
                PackedMatrix::pack(&mut pool, block_type, n, k, &stored, |row| row).unwrap();
            let row_bytes = block_type.row_bytes(k).unwrap();
            let mut dense = vec![0.0; n * k];
            for (out, row) in dense.chunks_exact_mut(k).zip(stored.chunks_exact(row_bytes)) {
                dequantize_row(block_type, row, out);
            }
            let x = random.floats(num_rows * k);
            Case { block_type, weights, dense, x, num_rows }
        }

        fn k(&self) -> usize {
            self.weights.cols()
        }

        /// The product of rows `range`, computed together.
        fn run(
            &self,
            isa: Isa,
            numerics: Numerics,
            threads: usize,
            range: std::ops::Range<usize>,
        ) -> Vec<f32> {
            let mut pool = Pool::new(threads).unwrap();
            let mut rows = RowTiles::new(range.len(), self.k()).unwrap();
            let forms = numerics.forms(&self.weights);
            rows.fill(&mut pool, isa, forms, range.len(), self.k(), |i, out| {
                out.copy_from_slice(&self.x[(range.start + i) * self.k()..][..self.k()]);
            });
            let mut out = vec![f32::NAN; range.len() * self.weights.rows()];
            let epilogue = Epilogue::Store;
            let jobs = &mut [Job { weights: &self.weights, bias: None, epilogue, out: &mut out }];
            multiply(&mut pool, isa, numerics, &rows, jobs);
            out
        }

        /// In f64, with the activations as they are, and the sum of magnitudes of the terms.
        fn reference(&self) -> Vec<(f64, f64)> {
            let mut out = Vec::new();
            for x in self.x.chunks_exact(self.k()) {
                for weights in self.dense.chunks_exact(self.k()) {
                    let terms = x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    out.push(terms.fold((0.0, 0.0), |(sum, all), t| (sum + t, all + t.abs())));
                }
            }
            out
        }
    }

    fn shapes(block_type: BlockType) -> Vec<(usize, usize)> {
        let len = block_type.block_len();
        let mut shapes = vec![(1, len), (16, 2 * len), (17, 3 * len), (50, len.max(32) * 2)];
        if len == 1 {
            shapes.extend([(15, 7), (33, 65)]);
        }
        shapes
    }

    #[test]
    fn f32_numerics_are_close_to_f64() {
        for block_type in BlockType::ALL {
            for (n, k) in shapes(block_type) {
                let case = Case::new(block_type, n, k, 5);
                for isa in matmul_paths() {
                    let found = case.run(isa, Numerics::F32, 2, 0..case.num_rows);
                    for (found, (expected, magnitude)) in found.iter().zip(case.reference()) {
                        let error = (f64::from(*found) - expected).abs();
                        // k roundings of partial sums, each at most half an ulp of the total.
                        let bound = magnitude * k as f64 * f64::from(f32::EPSILON);
                        assert!(error <= bound, "{block_type} {n}x{k} {isa:?}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn quantized_activations_cost_little() {
        for block_type in BlockType::ALL.into_iter().filter(|&ty| is_quantized(ty)) {
            let case = Case::new(block_type, 48, 1024, 3);
            let found = case.run(Isa::best(), Numerics::Native, 1, 0..3);
            let reference = case.reference();
            let squares = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>();
            let error =
                squares(&mut found.iter().zip(&reference).map(|(&f, (e, _))| f64::from(f) - e));
            let size = squares(&mut reference.iter().map(|(e, _)| *e));
            // Uniform data in -1..1: step 1/16256, error of that / sqrt(12), of rms 0.577.
            assert!((error / size).sqrt() < 1e-4, "{block_type}: {}", (error / size).sqrt());
        }
    }

    /// Every path, thread count and tiling gives the bits of the portable path, row by row.
    #[test]
    fn all_paths_agree_bit_for_bit() {
        for block_type in BlockType::ALL {
            for (n, k) in shapes(block_type) {
                for num_rows in [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33] {
                    let case = Case::new(block_type, n, k, num_rows);
                    let mut alone = Vec::new();
                    for row in 0..num_rows {
                        alone.extend(case.run(Isa::Portable, Numerics::Native, 1, row..row + 1));
                    }
                    for isa in matmul_paths() {
                        let threads = 1 + num_rows % 2;
                        let found = case.run(isa, Numerics::Native, threads, 0..num_rows);
                        let same =
                            found.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{} {n}x{k}, {num_rows} rows, {isa:?}", case.block_type);
                    }
                }
            }
        }
    }

    /// Each job takes a path of its own, and none of them changes a bit.
    #[test]
    fn a_table_of_mixed_paths_changes_nothing() {
        let paths = matmul_paths();
        let best = paths[paths.len() - 1];
        for num_rows in [1, 2, 3, 7, 16, 40] {
            for shift in 0..paths.len() {
                let mut table = KernelTable::from(best);
                for (index, (block_type, rows, _)) in KernelTable::from(best).choices().enumerate()
                {
                    assert!(table.choose(block_type, rows, paths[(index + shift) % paths.len()]));
                }
                let types = [BlockType::Q4_1, BlockType::Q6K, BlockType::Q8_0, BlockType::F16];
                let cases = types.map(|ty| Case::new(ty, 40, 512, num_rows));
                let x = &cases[0].x;
                let mut pool = Pool::new(2).unwrap();
                let mut rows = RowTiles::new(num_rows, 512).unwrap();
                let forms = RowForms { quantized: true, float: true };
                rows.fill(&mut pool, best, forms, num_rows, 512, |i, out| {
                    out.copy_from_slice(&x[i * 512..][..512]);
                });
                let mut run = |kernels: KernelTable| {
                    let mut outs = [0; 4].map(|_| vec![0.0; num_rows * 40]);
                    let mut jobs: Vec<Job<'_>> = cases
                        .iter()
                        .zip(&mut outs)
                        .map(|(case, out)| Job {
                            weights: &case.weights,
                            bias: None,
                            epilogue: Epilogue::Store,
                            out,
                        })
                        .collect();
                    multiply(&mut pool, kernels, Numerics::Native, &rows, &mut jobs);
                    outs.map(|out| out.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                };
                let expected = run(Isa::Portable.into());
                assert!(run(table) == expected, "{num_rows} rows, {shift}");
            }
        }
    }

    #[test]
    fn many_rows_are_those_alone() {
        let case = Case::new(BlockType::Q4_1, 40, 64, 600);
        let all = case.run(Isa::best(), Numerics::Native, 2, 0..600);
        for row in [0, 255, 256, 257, 511, 512, 599] {
            let alone = case.run(Isa::best(), Numerics::Native, 1, row..row + 1);
            assert_eq!(alone, all[row * 40..][..40], "row {row}");
        }
    }

    #[test]
    fn several_jobs_with_bias_and_residual() {
        let a = Case::new(BlockType::Q8_0, 20, 64, 3);
        let c = Case { x: a.x.clone(), ..Case::new(BlockType::Q4_0, 35, 64, 3) };
        let expected: Vec<Vec<f32>> =
            [&a, &c].map(|case| case.run(Isa::best(), Numerics::Native, 1, 0..3)).to_vec();
        let bias: Vec<f32> = (0..35).map(|i| i as f32).collect();
        let (mut out_a, mut out_c) = (vec![1.0; 60], vec![0.0; 105]);
        let mut pool = Pool::new(2).unwrap();
        let mut rows = RowTiles::new(3, 64).unwrap();
        let forms = RowForms { quantized: true, float: false };
        rows.fill(&mut pool, Isa::best(), forms, 3, 64, |i, out| {
            out.copy_from_slice(&a.x[i * 64..][..64]);
        });
        let jobs = &mut [
            Job { weights: &a.weights, bias: None, epilogue: Epilogue::Add, out: &mut out_a },
            Job {
                weights: &c.weights,
                bias: Some(&bias),
                epilogue: Epilogue::Store,
                out: &mut out_c,
            },
        ];
        multiply(&mut pool, Isa::best(), Numerics::Native, &rows, jobs);
        for (i, (found, expected)) in out_a.iter().zip(&expected[0]).enumerate() {
            assert_eq!(*found, 1.0 + expected, "{i}");
        }
        for (i, (found, expected)) in out_c.iter().zip(&expected[1]).enumerate() {
            assert_eq!(*found, expected + bias[i % 35], "{i}");
        }
    }

    #[test]
    fn a_gate_is_its_two_products_and_the_activation() {
        let gate = Case::new(BlockType::Q5_0, 35, 64, 18);
        let up = Case { x: gate.x.clone(), ..Case::new(BlockType::Q4_1, 35, 64, 18) };
        let both = [&gate, &up].map(|case| case.run(Isa::best(), Numerics::Native, 1, 0..18));
        let mut pool = Pool::new(2).unwrap();
        let mut rows = RowTiles::new(18, 64).unwrap();
        let forms = RowForms { quantized: true, float: false };
        rows.fill(&mut pool, Isa::best(), forms, 18, 64, |i, out| {
            out.copy_from_slice(&gate.x[i * 64..][..64]);
        });
        let mut out = vec![0.0; 18 * 35];
        let product: Gate = |_, gate, up, out| {
            out.iter_mut().zip(gate.iter().zip(up)).for_each(|(o, (g, u))| *o = g * u);
        };
        let (isa, numerics) = (Isa::best(), Numerics::Native);
        let (g, u) = (&gate.weights, &up.weights);
        multiply_gated(&mut pool, isa, numerics, &rows, g, u, product, &mut out);
        for (i, found) in out.iter().enumerate() {
            assert_eq!(*found, both[0][i] * both[1][i], "{i}");
        }
    }
}
