//! The inner loop: a tile of sums over one block of k.

use super::finish::Finish;

/// Rows and panels of the largest tile of any path.
pub(super) const TILE_ROWS: usize = 32;
pub(super) const TILE_PANELS: usize = 3;
/// Columns from one row of a tile to the next.
pub(super) const TILE_COLS: usize = TILE_PANELS * 16;

/// The sums of a tile, `[row][column]`. What a path does not compute is left as it is.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [[f32; TILE_COLS]; TILE_ROWS]);

impl Default for Tile {
    fn default() -> Tile {
        Tile([[0.0; TILE_COLS]; TILE_ROWS])
    }
}

/// An instruction path's inner loop, and what it needs around it.
pub(super) trait Micro {
    /// Rows of a tile.
    const ROWS: usize;
    /// Most panels of the right operand in a tile.
    const PANELS: usize;

    /// Called on a thread before its first tile.
    fn begin(&mut self) {}
    /// Called on a thread after its last tile.
    fn end(&mut self) {}

    /// `tile[r][c] = Σ_k left[r][k] right[k][c]`.
    ///
    /// # Safety
    /// The path was detected. `left` are `words` words of `ROWS` lanes: `[word][ROWS]`, or for
    /// AMX one panel, and a second one where `num_rows` is more than 16. The first `panels` of
    /// `right` are `words` words of 16 lanes each, and `panels <= PANELS`.
    unsafe fn multiply(
        &mut self,
        words: usize,
        left: [*const u32; 2],
        num_rows: usize,
        right: [*const u32; TILE_PANELS],
        panels: usize,
        tile: &mut Tile,
    );

    /// [`Finish::write`] in the path's instructions; `rows` and `cols` are first and number.
    ///
    /// # Safety
    /// The path was detected; as [`Finish::write`].
    unsafe fn finish(
        &self,
        finish: &Finish,
        tile: &Tile,
        rows: (usize, usize),
        cols: (usize, usize),
    );
}

/// Rows of a tile of the vector paths: half a panel.
pub(super) const HALF_LANES: usize = 8;

/// Plain Rust.
pub(super) struct Portable;

impl Micro for Portable {
    const ROWS: usize = HALF_LANES;
    const PANELS: usize = 1;

    unsafe fn multiply(
        &mut self,
        words: usize,
        left: [*const u32; 2],
        _: usize,
        right: [*const u32; TILE_PANELS],
        _: usize,
        tile: &mut Tile,
    ) {
        // SAFETY: the caller promises so many words, which are f32 on this path.
        let (left, right) = unsafe {
            (
                std::slice::from_raw_parts(left[0].cast::<f32>(), words * HALF_LANES),
                std::slice::from_raw_parts(right[0].cast::<f32>(), words * 16),
            )
        };
        let mut sums = [[0.0_f32; 16]; HALF_LANES];
        for (left, right) in left.chunks_exact(HALF_LANES).zip(right.chunks_exact(16)) {
            for (sums, &a) in sums.iter_mut().zip(left) {
                for (sum, &b) in sums.iter_mut().zip(right) {
                    *sum = a.mul_add(b, *sum);
                }
            }
        }
        for (out, sums) in tile.0.iter_mut().zip(&sums) {
            out[..16].copy_from_slice(sums);
        }
    }

    unsafe fn finish(
        &self,
        finish: &Finish,
        tile: &Tile,
        rows: (usize, usize),
        cols: (usize, usize),
    ) {
        // SAFETY: the caller's promise.
        unsafe { finish.write(tile, rows, cols) };
    }
}
