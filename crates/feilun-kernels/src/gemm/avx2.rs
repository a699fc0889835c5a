//! The inner loop with AVX2: tiles of four rows and 16 columns, eight sums in registers.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use super::finish::Finish;
use super::micro::{HALF_LANES, Micro, TILE_PANELS, Tile};

/// f32 FMA.
pub(super) struct Avx2;

/// Rows of the sums that are in registers at a time.
const ROWS: usize = 4;

impl Micro for Avx2 {
    const ROWS: usize = HALF_LANES;
    const PANELS: usize = 1;

    #[inline]
    unsafe fn multiply(
        &mut self,
        words: usize,
        left: [*const u32; 2],
        num_rows: usize,
        right: [*const u32; TILE_PANELS],
        _: usize,
        tile: &mut Tile,
    ) {
        for row in (0..num_rows).step_by(ROWS) {
            four_rows(words, left[0].add(row).cast(), right[0].cast(), row, tile);
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
        write_tile(finish, tile, rows, cols);
    }
}

/// # Safety
/// AVX2 is there; as [`Finish::write`].
#[target_feature(enable = "avx2,fma")]
unsafe fn write_tile(f: &Finish, tile: &Tile, rows: (usize, usize), cols: (usize, usize)) {
    f.write(tile, rows, cols);
}

/// # Safety
/// AVX2 and FMA are there, and the operands have so many words.
#[target_feature(enable = "avx2,fma")]
unsafe fn four_rows(
    words: usize,
    left: *const f32,
    right: *const f32,
    row: usize,
    tile: &mut Tile,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for word in 0..words {
        let b = [0, 8].map(|at| _mm256_loadu_ps(right.add(word * 16 + at)));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = _mm256_broadcast_ss(&*left.add(word * HALF_LANES + r));
            sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
        }
    }
    for (out, sums) in tile.0[row..].iter_mut().zip(sums) {
        _mm256_storeu_ps(out.as_mut_ptr(), sums[0]);
        _mm256_storeu_ps(out.as_mut_ptr().add(8), sums[1]);
    }
}
