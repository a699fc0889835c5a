//! Matrix multiply of bf16 activations with bf16 weights on AMX tiles: for training, where both
//! are bf16 anyway. Serving takes f32 activations, whose results depend on no path.
//!
//! `c[m][n] += Σ_k a[m][k] b[n][k]`, in the arithmetic of `tdpbf16ps`: k is taken in steps of 32;
//! a step sums the even and the odd columns apart, each from 0 with fused multiply-add, and adds
//! both sums together to `c`. Denormals count as zeros. [`multiply_bf16`] does the same in plain
//! Rust on the other paths: slow, and the reference for tests.

use half::bf16;

use crate::pack::PANEL_ROWS;
use crate::{BlockType, Isa, PackedMatrix};

/// Columns of a step: a tile row of 64 bytes.
const STEP_COLS: usize = 32;

/// Adds the product of `num_rows` rows `a`, `(num_rows, b.cols())`, with a packed bf16 matrix to
/// `c`, `(num_rows, b.rows())`.
///
/// # Panics
/// When `b` is not bf16 or a length does not fit.
pub fn multiply_bf16(isa: Isa, a: &[bf16], num_rows: usize, b: &PackedMatrix, c: &mut [f32]) {
    assert_eq!(b.block_type(), BlockType::Bf16, "weights");
    assert_eq!(a.len(), num_rows * b.cols(), "length of a");
    assert_eq!(c.len(), num_rows * b.rows(), "length of c");
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx {
        #[cfg(test)]
        if !isa.is_available() {
            let mut unit = super::emulated_tiles::EmulatedTiles::new();
            // SAFETY: the emulation runs anywhere, and the lengths were checked.
            return unsafe { tiles::multiply(&mut unit, a, num_rows, b, c) };
        }
        // SAFETY: the path was detected, and the lengths were checked.
        unsafe { tiles::multiply(&mut super::tile_unit::Amx, a, num_rows, b, c) };
        return;
    }
    let _ = isa;
    reference(a, b, c);
}

fn reference(a: &[bf16], b: &PackedMatrix, c: &mut [f32]) {
    let (rows, cols) = (b.rows(), b.cols());
    let mut weights = vec![0.0; cols];
    for n in 0..rows {
        b.row(n, &mut weights);
        for (a, c) in a.chunks_exact(cols).zip(c[n..].iter_mut().step_by(rows)) {
            for (a, weights) in a.chunks(STEP_COLS).zip(weights.chunks(STEP_COLS)) {
                let mut sums = [0.0; 2];
                for (k, (a, &weight)) in a.iter().zip(weights).enumerate() {
                    let sum = &mut sums[k % 2];
                    *sum = flush(flush(a.to_f32()).mul_add(flush(weight), *sum));
                }
                *c = flush(flush(*c) + flush(sums[0] + sums[1]));
            }
        }
    }
}

/// Denormals are zeros to the tile unit, on the way in and on the way out.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

#[cfg(target_arch = "x86_64")]
mod tiles {
    #![expect(unsafe_op_in_unsafe_fn, reason = "every line here is a tile or pointer step")]

    use super::{PANEL_ROWS, PackedMatrix, STEP_COLS, bf16};
    use crate::matmul::tile_unit::{LINES, Line, NUM_TILES, TileConfig, TileUnit};

    const TILE_ROWS: usize = 16;
    /// Bytes from one row of a tile in memory to the next.
    const STRIDE: usize = size_of::<Line>();
    /// Tiles 0 to 3 are a block of 32 x 32 of C, 4 and 5 of A, 6 and 7 of B.
    const CONFIG: TileConfig = TileConfig::new([(16, 64); NUM_TILES]);

    /// # Safety
    /// The unit is available; `a` is whole rows of `b.cols()`, `c` of `b.rows()`, as many.
    pub(super) unsafe fn multiply<U: TileUnit>(
        unit: &mut U,
        a: &[bf16],
        num_rows: usize,
        b: &PackedMatrix,
        c: &mut [f32],
    ) {
        let steps = b.cols().div_ceil(STEP_COLS);
        let mut lines = LINES.take();
        let num_row_tiles = num_rows.div_ceil(TILE_ROWS);
        lay_out(a, b.cols(), num_row_tiles, &mut lines);
        unit.configure(&CONFIG);
        let (c, shape) = (c.as_mut_ptr(), (num_rows, b.rows()));
        let (mut tails, mut corners) = ([[Line::ZERO; TILE_ROWS]; 2], Corners::default());
        for panel in (0..b.num_panels()).step_by(2) {
            let panels = 2.min(b.num_panels() - panel);
            let tails = &mut tails;
            let b_tiles: [BTiles; 2] = std::array::from_fn(|i| {
                BTiles::new(b.panel(panel + i.min(panels - 1)), steps, &mut tails[i])
            });
            for row_tile in (0..num_row_tiles).step_by(2) {
                let rows = 2.min(num_row_tiles - row_tile);
                let a_tiles = [0, 1].map(|i| {
                    let tile = row_tile + i.min(rows - 1);
                    lines.as_ptr().add(tile * steps * TILE_ROWS)
                });
                let at = (row_tile * TILE_ROWS, panel * PANEL_ROWS);
                let c = CTiles::new(c, shape, at, &mut corners);
                match (rows, panels) {
                    (1, 1) => block::<U, 1, 1>(unit, steps, a_tiles, &b_tiles, &c),
                    (1, _) => block::<U, 1, 2>(unit, steps, a_tiles, &b_tiles, &c),
                    (_, 1) => block::<U, 2, 1>(unit, steps, a_tiles, &b_tiles, &c),
                    _ => block::<U, 2, 2>(unit, steps, a_tiles, &b_tiles, &c),
                }
                c.finish(&corners);
            }
        }
        unit.release();
        LINES.set(lines);
    }

    /// Copies A to tiles, `[row tile][step][row]`, with zeros where A ends.
    fn lay_out(a: &[bf16], cols: usize, num_row_tiles: usize, lines: &mut Vec<Line>) {
        let steps = cols.div_ceil(STEP_COLS);
        lines.clear();
        lines.resize(num_row_tiles * steps * TILE_ROWS, Line::ZERO);
        for (m, row) in a.chunks_exact(cols).enumerate() {
            let first = m / TILE_ROWS * steps * TILE_ROWS + m % TILE_ROWS;
            for (step, values) in row.chunks(STEP_COLS).enumerate() {
                let bytes: &[u8] = bytemuck::cast_slice(values);
                lines[first + step * TILE_ROWS].0[..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// The tiles of a panel: in place, but for a last step that is not whole.
    struct BTiles {
        whole: *const u8,
        whole_steps: usize,
        tail: *const u8,
    }

    impl BTiles {
        fn new(panel: &[u8], steps: usize, tail: &mut [Line; TILE_ROWS]) -> BTiles {
            let tile_bytes = TILE_ROWS * STRIDE;
            let whole_steps = panel.len() / tile_bytes;
            debug_assert!(whole_steps == steps || whole_steps + 1 == steps);
            *tail = [Line::ZERO; TILE_ROWS];
            // Pairs of columns, 64 bytes each.
            let rest = panel[whole_steps * tile_bytes..].chunks_exact(STRIDE);
            for (line, pair) in tail.iter_mut().zip(rest) {
                line.0.copy_from_slice(pair);
            }
            BTiles { whole: panel.as_ptr(), whole_steps, tail: tail.as_ptr().cast() }
        }

        /// # Safety
        /// There are as many steps, and the tail is where it was.
        #[inline]
        unsafe fn step(&self, step: usize) -> *const u8 {
            if step < self.whole_steps {
                self.whole.add(step * TILE_ROWS * STRIDE)
            } else {
                self.tail
            }
        }
    }

    /// Copies of the tiles of C that are not whole: `[row tile][panel]`.
    #[derive(Default)]
    struct Corners([[Corner; 2]; 2]);

    #[derive(Default)]
    #[repr(C, align(64))]
    struct Corner([[f32; PANEL_ROWS]; TILE_ROWS]);

    /// Up to four tiles of C: where the tile unit finds them, and where they belong.
    struct CTiles {
        /// Address and bytes from row to row, `[row tile][panel]`.
        tiles: [[(*mut u8, usize); 2]; 2],
        /// Address in C, rows and columns that are there.
        targets: [[(*mut f32, usize, usize); 2]; 2],
        /// Columns of C.
        width: usize,
    }

    impl CTiles {
        /// # Safety
        /// `c` points to `num_rows` rows of `width` values.
        unsafe fn new(
            c: *mut f32,
            (num_rows, width): (usize, usize),
            (row, col): (usize, usize),
            corners: &mut Corners,
        ) -> CTiles {
            let mut found = CTiles {
                tiles: [[(std::ptr::null_mut(), 0); 2]; 2],
                targets: [[(std::ptr::null_mut(), 0, 0); 2]; 2],
                width,
            };
            for i in 0..2 {
                for j in 0..2 {
                    let (row, col) = (row + i * TILE_ROWS, col + j * PANEL_ROWS);
                    let rows = TILE_ROWS.min(num_rows.saturating_sub(row));
                    let cols = PANEL_ROWS.min(width.saturating_sub(col));
                    if rows == 0 || cols == 0 {
                        continue;
                    }
                    let target = c.add(row * width + col);
                    found.targets[i][j] = (target, rows, cols);
                    found.tiles[i][j] = if (rows, cols) == (TILE_ROWS, PANEL_ROWS) {
                        (target.cast(), 4 * width)
                    } else {
                        let corner = &mut corners.0[i][j].0;
                        for (m, out) in corner.iter_mut().enumerate().take(rows) {
                            let row = target.add(m * width);
                            row.copy_to_nonoverlapping(out.as_mut_ptr(), cols);
                        }
                        (corner.as_mut_ptr().cast(), 4 * PANEL_ROWS)
                    };
                }
            }
            found
        }

        /// Copies back what the tile unit was given as a copy.
        ///
        /// # Safety
        /// C is where it was.
        unsafe fn finish(&self, corners: &Corners) {
            for (targets, corners) in self.targets.iter().zip(&corners.0) {
                for (&(target, rows, cols), corner) in targets.iter().zip(corners) {
                    if (rows, cols) != (TILE_ROWS, PANEL_ROWS) {
                        for (m, row) in corner.0.iter().enumerate().take(rows) {
                            let target = target.add(m * self.width);
                            target.copy_from_nonoverlapping(row.as_ptr(), cols);
                        }
                    }
                }
            }
        }
    }

    /// All steps of a block of C, whose tiles stay in registers. Each tile of A and B that is
    /// loaded serves two products.
    ///
    /// # Safety
    /// As [`multiply`]; the tiles of A, B and C are there.
    unsafe fn block<U: TileUnit, const ROWS: usize, const PANELS: usize>(
        unit: &mut U,
        steps: usize,
        a: [*const Line; 2],
        b: &[BTiles; 2],
        c: &CTiles,
    ) {
        macro_rules! each_tile {
            ($do:ident) => {
                unit.$do::<0>(c.tiles[0][0].0, c.tiles[0][0].1);
                if PANELS == 2 {
                    unit.$do::<1>(c.tiles[0][1].0, c.tiles[0][1].1);
                }
                if ROWS == 2 {
                    unit.$do::<2>(c.tiles[1][0].0, c.tiles[1][0].1);
                }
                if ROWS == 2 && PANELS == 2 {
                    unit.$do::<3>(c.tiles[1][1].0, c.tiles[1][1].1);
                }
            };
        }
        each_tile!(load);
        for step in 0..steps {
            let a = a.map(|a| a.add(step * TILE_ROWS).cast::<u8>());
            unit.load::<6>(b[0].step(step), STRIDE);
            unit.load::<4>(a[0], STRIDE);
            unit.dot_bf16::<0, 4, 6>();
            if PANELS == 2 {
                unit.load::<7>(b[1].step(step), STRIDE);
                unit.dot_bf16::<1, 4, 7>();
            }
            if ROWS == 2 {
                unit.load::<5>(a[1], STRIDE);
                unit.dot_bf16::<2, 5, 6>();
            }
            if ROWS == 2 && PANELS == 2 {
                unit.dot_bf16::<3, 5, 7>();
            }
        }
        each_tile!(store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use crate::test_support::{Random, matmul_paths, random_rows};

    fn random_bf16(len: usize, random: &mut Random) -> Vec<bf16> {
        (0..len).map(|_| bf16::from_f32(random.unit())).collect()
    }

    #[test]
    fn every_path_adds_the_same_product() {
        let mut random = Random(5);
        let mut pool = Pool::new(1).unwrap();
        for (m, n, k) in [
            (1, 1, 1),
            (1, 16, 2),
            (16, 16, 32),
            (15, 17, 31),
            (17, 15, 33),
            (16, 33, 64),
            (32, 32, 96),
            (33, 40, 95),
            (70, 49, 130),
        ] {
            let stored = random_rows(BlockType::Bf16, n, k, &mut random);
            let b = PackedMatrix::pack(&mut pool, BlockType::Bf16, n, k, &stored, |row| row);
            let b = b.unwrap();
            let a = random_bf16(m * k, &mut random);
            let start = random.floats(m * n);
            let mut expected = start.clone();
            reference(&a, &b, &mut expected);
            for isa in matmul_paths() {
                let mut found = start.clone();
                multiply_bf16(isa, &a, m, &b, &mut found);
                let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{m}x{n}x{k} {isa:?}");
            }
            let mut weights = vec![0.0; k];
            for (i, found) in expected.iter().enumerate() {
                b.row(i % n, &mut weights);
                let row = a[i / n * k..][..k].iter().zip(&weights);
                let exact = row.fold(f64::from(start[i]), |sum, (a, w)| {
                    sum + f64::from(a.to_f32()) * f64::from(*w)
                });
                let error = (f64::from(*found) - exact).abs();
                assert!(error <= 1e-6 * (k + 1) as f64, "{m}x{n}x{k}, {i}: {error}");
            }
        }
    }
}
