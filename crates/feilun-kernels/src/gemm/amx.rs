//! The inner loop on AMX tiles: 32 rows and 32 columns, each tile of an operand that is loaded
//! serves two products.

use super::finish::Finish;
use super::micro::{Micro, TILE_COLS, TILE_PANELS, Tile};
use crate::matmul::tile_unit::{NUM_TILES, TileConfig, TileUnit};

/// Rows of a tile register, and words of one of its rows.
const SIDE: usize = 16;
/// Bytes from row to row of a packed operand.
const STRIDE: usize = 4 * SIDE;

/// Tiles 0 to 3 are sums, 4 and 5 the left operand, 6 and 7 the right one.
const CONFIG: TileConfig = TileConfig::new([(16, 64); NUM_TILES]);

/// The tile unit, or its emulation.
pub(super) struct Tiles<U>(pub(super) U);

impl<U: TileUnit> Micro for Tiles<U> {
    const ROWS: usize = 2 * SIDE;
    const PANELS: usize = 2;

    fn begin(&mut self) {
        // SAFETY: the path was detected.
        unsafe { self.0.configure(&CONFIG) };
    }

    fn end(&mut self) {
        // SAFETY: as above.
        unsafe { self.0.release() };
    }

    #[inline]
    unsafe fn multiply(
        &mut self,
        words: usize,
        left: [*const u32; 2],
        num_rows: usize,
        right: [*const u32; TILE_PANELS],
        panels: usize,
        tile: &mut Tile,
    ) {
        let unit = &mut self.0;
        // SAFETY: the caller's promise.
        unsafe {
            match (num_rows > SIDE, panels > 1) {
                (false, false) => tiles::<U, 1, 1>(unit, words, left, right, tile),
                (false, true) => tiles::<U, 1, 2>(unit, words, left, right, tile),
                (true, false) => tiles::<U, 2, 1>(unit, words, left, right, tile),
                (true, true) => tiles::<U, 2, 2>(unit, words, left, right, tile),
            }
        }
    }

    #[inline]
    unsafe fn finish(
        &self,
        finish: &Finish,
        tile: &Tile,
        rows: (usize, usize),
        cols: (usize, usize),
    ) {
        // SAFETY: machines with AMX have AVX-512, and the emulation is for those that have it.
        unsafe { super::avx512::finish(finish, tile, rows, cols) };
    }
}

/// # Safety
/// Tiles were configured; the operands have so many words, a multiple of 16.
unsafe fn tiles<U: TileUnit, const ROWS: usize, const PANELS: usize>(
    unit: &mut U,
    words: usize,
    left: [*const u32; 2],
    right: [*const u32; TILE_PANELS],
    tile: &mut Tile,
) {
    // SAFETY: a step is 16 words of 16 lanes of each operand; the tile has 32 rows of at least
    // 32 values.
    unsafe {
        unit.zero::<0>();
        unit.zero::<1>();
        unit.zero::<2>();
        unit.zero::<3>();
        for step in 0..words / SIDE {
            let at = step * SIDE * SIDE;
            unit.load::<6>(right[0].add(at).cast(), STRIDE);
            unit.load::<4>(left[0].add(at).cast(), STRIDE);
            unit.dot_bf16::<0, 4, 6>();
            if PANELS == 2 {
                unit.load::<7>(right[1].add(at).cast(), STRIDE);
                unit.dot_bf16::<1, 4, 7>();
            }
            if ROWS == 2 {
                unit.load::<5>(left[1].add(at).cast(), STRIDE);
                unit.dot_bf16::<2, 5, 6>();
            }
            if ROWS == 2 && PANELS == 2 {
                unit.dot_bf16::<3, 5, 7>();
            }
        }
        let out: *mut u8 = tile.0.as_mut_ptr().cast();
        let lower = out.add(4 * SIDE * TILE_COLS);
        unit.store::<0>(out, 4 * TILE_COLS);
        if PANELS == 2 {
            unit.store::<1>(out.add(STRIDE), 4 * TILE_COLS);
        }
        if ROWS == 2 {
            unit.store::<2>(lower, 4 * TILE_COLS);
        }
        if ROWS == 2 && PANELS == 2 {
            unit.store::<3>(lower.add(STRIDE), 4 * TILE_COLS);
        }
    }
}
