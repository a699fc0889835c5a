//! Where finished tiles go.

use half::bf16;

use super::micro::Tile;
use super::pack::bf16_bits;
use super::plan::Range;
use super::{Output, Write};
use crate::pack::SendPointer;

#[derive(Clone, Copy)]
enum Target {
    F32(SendPointer<f32>),
    Bf16(SendPointer<bf16>),
}

/// Writes the tiles of one part of the result.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// The part's first value.
    target: Target,
    /// Columns of the result.
    width: usize,
    /// f32 sums of the part, `(rows, sums_width)`, where a bf16 result takes several blocks of k.
    sums: Option<SendPointer<f32>>,
    sums_width: usize,
    write: Write,
    is_first: bool,
    is_last: bool,
}

impl Finish {
    pub(super) fn new(
        c: &mut Output<'_>,
        width: usize,
        sums: Option<SendPointer<f32>>,
        rows: Range,
        cols: Range,
        write: Write,
    ) -> Finish {
        let start = rows.start * width + cols.start;
        let target = match c {
            Output::F32(c) => Target::F32(SendPointer(c.as_mut_ptr().wrapping_add(start))),
            Output::Bf16(c) => Target::Bf16(SendPointer(c.as_mut_ptr().wrapping_add(start))),
        };
        Finish { target, width, sums, sums_width: cols.len, write, is_first: true, is_last: true }
    }

    /// For the first or last block of k, both, or neither.
    pub(super) fn at(&self, is_first: bool, is_last: bool) -> Finish {
        Finish { is_first, is_last, ..*self }
    }

    /// Takes the tile whose first value is `(row, col)` of the part.
    ///
    /// # Safety
    /// So many rows and columns are in the part, whose memory is there, and no other thread
    /// uses theirs.
    #[inline(always)]
    pub(super) unsafe fn write(
        &self,
        tile: &Tile,
        (row, num_rows): (usize, usize),
        (col, num_cols): (usize, usize),
    ) {
        for (r, tile) in tile.0[..num_rows].iter().enumerate() {
            let tile = &tile[..num_cols];
            let at = (row + r) * self.width + col;
            let sums = self.sums.map(|sums| {
                let at = (row + r) * self.sums_width + col;
                // SAFETY: the sums were made as large as the part.
                unsafe { std::slice::from_raw_parts_mut(sums.get().add(at), num_cols) }
            });
            match self.target {
                Target::F32(c) => {
                    // SAFETY: the caller's promise.
                    let c = unsafe { std::slice::from_raw_parts_mut(c.get().add(at), num_cols) };
                    accumulate(self.is_first && self.write == Write::Store, tile, c);
                }
                Target::Bf16(c) => {
                    // SAFETY: the caller's promise.
                    let c = unsafe { std::slice::from_raw_parts_mut(c.get().add(at), num_cols) };
                    match sums {
                        Some(sums) => {
                            accumulate(self.is_first, tile, sums);
                            if self.is_last {
                                self.round(sums, c);
                            }
                        }
                        None => self.round(tile, c),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn round(&self, sums: &[f32], c: &mut [bf16]) {
        let add = self.write == Write::Add;
        for (c, &sum) in c.iter_mut().zip(sums) {
            let sum = if add { c.to_f32() + sum } else { sum };
            *c = bf16::from_bits(bf16_bits(sum) as u16);
        }
    }
}

#[inline(always)]
fn accumulate(store: bool, tile: &[f32], out: &mut [f32]) {
    // A fixed width: registers instead of a call for a few bytes.
    const WIDTH: usize = 16;
    for (out, sums) in out.chunks_mut(WIDTH).zip(tile.chunks(WIDTH)) {
        match (out.first_chunk_mut::<WIDTH>(), sums.first_chunk::<WIDTH>()) {
            (Some(out), Some(sums)) if store => *out = *sums,
            (Some(out), Some(sums)) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            _ => accumulate_part(store, sums, out),
        }
    }
}

/// Apart, since the compiler would join both ways into one with a length known at run time.
#[cold]
#[inline(never)]
fn accumulate_part(store: bool, sums: &[f32], out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = if store { *sum } else { *out + sum };
    }
}
