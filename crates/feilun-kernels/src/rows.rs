//! Activation rows in the order in which the matrix kernels read them.
//!
//! Rows are taken in tiles of up to 16; a tile is stored so that the kernel finds what it needs
//! at constant distances. Beside the f32 values there may be their quantization: per row and
//! group of 32 columns `q = round(x / d)` (ties to even), `d = max|x| / 16256`, kept as two
//! signed digits of 7 bits, `q = 128 high + low`, so that byte-wide dot products can take them.
//! A row's numbers depend on that row alone.
//!
//! Why not the 8 bits that llama.cpp uses: they cost 0.05 nats a token (mean difference to f32)
//! on SmolLM2 and on Gemma 3 270M, whichever layers are spared; two digits cost 0.0005. The lab
//! book has the measurement.

use crate::pack::{GROUP_COLS, SendPointer};
use crate::{AlignedBytes, Isa, Pool, memory::OutOfMemory};

/// Most rows in a tile.
pub const TILE_ROWS: usize = 16;

/// Digits of one row in one group: 32 high ones, then 32 low ones.
pub(crate) const GROUP_DIGITS: usize = 2 * GROUP_COLS;
/// Sums kept of one row in one group.
pub(crate) const NUM_SUMS: usize = 4;
/// Largest quant: its high digit is 127, its low digit 0.
const QUANT_MAX: f32 = 16256.0;

/// One tile of activation rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// First row.
    pub(crate) row: usize,
    /// Rows that are there.
    pub(crate) used: usize,
    /// Rows that are stored: `used` rounded up to 1, 2, 4, 8 or 16, the rest being zeros.
    pub(crate) height: usize,
}

/// The tiles of `num_rows` rows: full ones, then one for the rest.
pub(crate) fn tiles(num_rows: usize) -> impl Iterator<Item = Tile> {
    (0..num_rows.div_ceil(TILE_ROWS)).map(move |index| tile(num_rows, index))
}

pub(crate) fn tile(num_rows: usize, index: usize) -> Tile {
    let row = index * TILE_ROWS;
    let used = (num_rows - row).min(TILE_ROWS);
    Tile { row, used, height: used.next_power_of_two() }
}

/// Which forms of the rows the weights ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowForms {
    /// f32, for float weights.
    pub float: bool,
    /// Two 7-bit digits, for quantized weights.
    pub quantized: bool,
}

/// Up to a planned number of activation rows of up to a planned width, in tiles.
#[derive(Debug)]
pub struct RowTiles {
    max_rows: usize,
    max_cols: usize,
    pub(crate) num_rows: usize,
    pub(crate) cols: usize,
    /// Tile by tile `[cols][height]`.
    float: AlignedBytes,
    /// Tile by tile `[groups][height][2][32]`: high digits, low digits.
    quants: AlignedBytes,
    /// Tile by tile `[groups][height]`: d.
    scales: AlignedBytes,
    /// Tile by tile `[groups][4][height]`: the f32 `d * sum` of the quants, and as i32 minus
    /// their sum, minus that of columns 0..16, and minus that of columns 16..32.
    sums: AlignedBytes,
}

/// The quantized form of one tile, as the kernels take it.
#[derive(Clone, Copy)]
pub(crate) struct QuantTile<'a> {
    pub(crate) height: usize,
    pub(crate) quants: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
}

impl RowTiles {
    /// Plans for `max_rows` rows of `max_cols` columns.
    ///
    /// # Errors
    /// When the memory is not there.
    pub fn new(max_rows: usize, max_cols: usize) -> Result<RowTiles, OutOfMemory> {
        let rows = max_rows.next_multiple_of(TILE_ROWS);
        let groups = max_cols.div_ceil(GROUP_COLS);
        Ok(RowTiles {
            max_rows,
            max_cols,
            num_rows: 0,
            cols: 0,
            float: AlignedBytes::zeroed(rows * max_cols * 4)?,
            quants: AlignedBytes::zeroed(rows * groups * GROUP_DIGITS)?,
            scales: AlignedBytes::zeroed(rows * groups * 4)?,
            sums: AlignedBytes::zeroed(rows * groups * 4 * NUM_SUMS)?,
        })
    }

    /// Takes `num_rows` rows of `cols` columns; `row(i, out)` writes row `i`. Threads take
    /// tiles of their own.
    ///
    /// # Panics
    /// When it was not planned for so many rows or columns.
    pub fn fill(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        forms: RowForms,
        num_rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(num_rows <= self.max_rows && cols <= self.max_cols, "{num_rows} x {cols}");
        (self.num_rows, self.cols) = (num_rows, cols);
        let groups = cols.div_ceil(GROUP_COLS);
        let target = (
            SendPointer(self.float.as_mut_ptr().cast::<f32>()),
            SendPointer(self.quants.as_mut_ptr().cast::<i8>()),
            SendPointer(self.scales.as_mut_ptr().cast::<f32>()),
            SendPointer(self.sums.as_mut_ptr().cast::<f32>()),
        );
        // One row at a time, so that a lone tile of many rows keeps all threads busy.
        let body = |range: std::ops::Range<usize>| {
            let (float, quants, scales, sums) = target;
            let mut scratch = ROW_SCRATCH.take();
            scratch.resize(groups * GROUP_COLS, 0.0);
            for index in range {
                let tile = tile(num_rows, index / TILE_ROWS);
                let (height, lane) = (tile.height, index - tile.row);
                if lane < tile.used {
                    row(index, &mut scratch[..cols]);
                    scratch[cols..].fill(0.0);
                } else {
                    scratch.fill(0.0);
                }
                // SAFETY: tile `t` owns the rows `t * 16 .. t * 16 + height` of each buffer,
                // which were planned with rows rounded up to 16, and each (tile, lane) is
                // visited by one thread, once.
                unsafe {
                    if forms.float {
                        let out = float.get().add(tile.row * cols + lane);
                        for (col, &value) in scratch[..cols].iter().enumerate() {
                            *out.add(col * height) = value;
                        }
                    }
                    if forms.quantized {
                        let out = QuantRow {
                            quants: quants.get().add((tile.row * groups + lane) * GROUP_DIGITS),
                            scales: scales.get().add(tile.row * groups + lane),
                            sums: sums.get().add(tile.row * groups * NUM_SUMS + lane),
                            height,
                        };
                        quantize_row(isa, &scratch, &out);
                    }
                }
            }
            ROW_SCRATCH.set(scratch);
        };
        let stored_rows = match tiles(num_rows).last() {
            Some(last) => last.row + last.height,
            None => return,
        };
        if stored_rows <= 4 {
            body(0..stored_rows)
        } else {
            // With tiles enough for all, a thread takes whole ones: the scales of a tile's rows
            // share cache lines.
            let many = num_rows >= 2 * TILE_ROWS * pool.num_threads();
            pool.for_each_range(stored_rows, if many { TILE_ROWS } else { 4 }, body)
        }
    }

    /// The f32 values of row `row`, where they were asked for.
    pub fn float_row(&self, row: usize) -> impl Iterator<Item = f32> {
        let tile = tile(self.num_rows, row / TILE_ROWS);
        self.float_tile(tile).iter().skip(row - tile.row).step_by(tile.height).copied()
    }

    /// `[cols][height]` of the tile.
    pub(crate) fn float_tile(&self, tile: Tile) -> &[f32] {
        &self.float.as_f32()[tile.row * self.cols..][..tile.height * self.cols]
    }

    pub(crate) fn quant_tile(&self, tile: Tile) -> QuantTile<'_> {
        let groups = self.cols.div_ceil(GROUP_COLS);
        let (first, len) = (tile.row * groups, tile.height * groups);
        QuantTile {
            height: tile.height,
            quants: bytemuck::cast_slice(
                &self.quants[first * GROUP_DIGITS..][..len * GROUP_DIGITS],
            ),
            scales: &self.scales.as_f32()[first..][..len],
            sums: &self.sums.as_f32()[first * NUM_SUMS..][..len * NUM_SUMS],
        }
    }
}

thread_local! {
    /// One dense row per thread; grows to the widest row once.
    static ROW_SCRATCH: std::cell::Cell<Vec<f32>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Where one row of a tile goes.
struct QuantRow {
    quants: *mut i8,
    scales: *mut f32,
    sums: *mut f32,
    height: usize,
}

impl QuantRow {
    /// # Safety
    /// Group `group` of this row lies within the buffers, and no other thread writes it.
    unsafe fn put(&self, group: usize, scale: f32, sums: [i32; 2]) {
        // SAFETY: promised by the caller.
        unsafe {
            *self.scales.add(group * self.height) = scale;
            let out = self.sums.add(group * NUM_SUMS * self.height);
            let sum = sums[0] + sums[1];
            *out = scale * sum as f32;
            for (index, sum) in [sum, sums[0], sums[1]].into_iter().enumerate() {
                *out.add((1 + index) * self.height) = f32::from_bits((-sum).cast_unsigned());
            }
        }
    }
}

/// Quantizes a row whose length is a whole number of groups.
///
/// # Safety
/// The row has its place in the buffers to itself.
unsafe fn quantize_row(isa: Isa, row: &[f32], out: &QuantRow) {
    for (group, values) in row.chunks_exact(GROUP_COLS).enumerate() {
        // SAFETY: the group is inside the row; the features were detected for this path.
        unsafe {
            let quants = out.quants.add(group * out.height * GROUP_DIGITS);
            let (scale, sums) = match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Amx => quantize_group_avx512(values, quants),
                _ => quantize_group(values, quants),
            };
            out.put(group, scale, sums);
        }
    }
}

/// The quantization in plain Rust: scale and the sums of both halves.
///
/// # Safety
/// `digits` has room for 64 values.
unsafe fn quantize_group(values: &[f32], digits: *mut i8) -> (f32, [i32; 2]) {
    // The largest magnitude by its bits: an infinity or NaN is larger than every number.
    let max_bits = values.iter().fold(0, |max: u32, value| max.max(value.to_bits() & 0x7fff_ffff));
    let (scale, inverse) = scale_of(f32::from_bits(max_bits));
    let mut sums = [0; 2];
    for (i, value) in values.iter().enumerate() {
        let quant = (value * inverse).round_ties_even() as i32;
        sums[i / 16] += quant;
        // Rounding to the nearest multiple of 128 leaves a low digit in -64..64.
        let high = (quant + 64) >> 7;
        // SAFETY: i < 32.
        unsafe {
            *digits.add(i) = high as i8;
            *digits.add(GROUP_COLS + i) = (quant - (high << 7)) as i8;
        }
    }
    (scale, sums)
}

/// Scale and its inverse. A value that is not finite makes the scale NaN, so that it cannot
/// hide; groups too small to invert become zeros.
fn scale_of(max: f32) -> (f32, f32) {
    if !max.is_finite() {
        (f32::NAN, 0.0)
    } else if max < 1e-30 {
        (0.0, 0.0)
    } else {
        (max / QUANT_MAX, QUANT_MAX / max)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantize_group_avx512(values: &[f32], digits: *mut i8) -> (f32, [i32; 2]) {
    use std::arch::x86_64::*;
    debug_assert_eq!(values.len(), GROUP_COLS);
    // SAFETY: `values` has 32 elements and `digits` room for 64.
    unsafe {
        let halves = [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))];
        let bits = halves.map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
        let max = _mm512_reduce_max_epu32(_mm512_max_epu32(bits[0], bits[1]));
        let (scale, inverse) = scale_of(f32::from_bits(max));
        if scale.is_nan() {
            digits.write_bytes(0, GROUP_DIGITS);
            return (scale, [0; 2]);
        }
        let inverse = _mm512_set1_ps(inverse);
        let mut sums = [0; 2];
        for (i, half) in halves.into_iter().enumerate() {
            let quants = _mm512_cvtps_epi32(_mm512_mul_ps(half, inverse));
            let high = _mm512_srai_epi32::<7>(_mm512_add_epi32(quants, _mm512_set1_epi32(64)));
            let low = _mm512_sub_epi32(quants, _mm512_slli_epi32::<7>(high));
            _mm_storeu_si128(digits.add(16 * i).cast(), _mm512_cvtepi32_epi8(high));
            _mm_storeu_si128(digits.add(GROUP_COLS + 16 * i).cast(), _mm512_cvtepi32_epi8(low));
            sums[i] = _mm512_reduce_add_epi32(quants);
        }
        (scale, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Random;

    #[test]
    fn every_path_quantizes_alike_and_each_row_alone() {
        let mut random = Random(3);
        for num_rows in [1, 2, 3, 5, 8, 9, 16, 17, 31, 33] {
            for cols in [32, 96, 576] {
                let rows = random.floats(num_rows * cols);
                let mut reference: Vec<Vec<(Vec<i32>, u32)>> = Vec::new();
                for isa in Isa::available() {
                    for threads in [1, 2] {
                        let mut pool = Pool::new(threads).unwrap();
                        let mut tiles_of = RowTiles::new(num_rows, cols).unwrap();
                        let forms = RowForms { float: true, quantized: true };
                        tiles_of.fill(&mut pool, isa, forms, num_rows, cols, |i, out| {
                            out.copy_from_slice(&rows[i * cols..][..cols]);
                        });
                        let found: Vec<Vec<(Vec<i32>, u32)>> = (0..num_rows)
                            .map(|row| row_groups(&tiles_of, row, &rows[row * cols..][..cols]))
                            .collect();
                        if reference.is_empty() {
                            reference = found;
                        } else {
                            assert_eq!(reference, found, "{isa:?} {num_rows}x{cols}");
                        }
                    }
                }
            }
        }
    }

    /// The groups of a row, after checking them against the values.
    fn row_groups(tiles_of: &RowTiles, row: usize, values: &[f32]) -> Vec<(Vec<i32>, u32)> {
        let tile = tile(tiles_of.num_rows, row / TILE_ROWS);
        let (quantized, float) = (tiles_of.quant_tile(tile), tiles_of.float_tile(tile));
        let lane = row - tile.row;
        (0..values.len() / GROUP_COLS)
            .map(|group| {
                let at = group * tile.height + lane;
                let scale = quantized.scales[at];
                let digits = &quantized.quants[at * GROUP_DIGITS..][..GROUP_DIGITS];
                let (high, low) = digits.split_at(GROUP_COLS);
                let quants: Vec<i32> = high
                    .iter()
                    .zip(low)
                    .map(|(&h, &l)| 128 * i32::from(h) + i32::from(l))
                    .collect();
                for (i, &quant) in quants.iter().enumerate() {
                    let col = group * GROUP_COLS + i;
                    assert_eq!(float[col * tile.height + lane], values[col]);
                    let error = (values[col] - scale * quant as f32).abs();
                    assert!(error <= scale * 0.51, "{error} at scale {scale}");
                }
                let sum = |quants: &[i32]| quants.iter().sum::<i32>();
                let sums = &quantized.sums[group * NUM_SUMS * tile.height + lane..];
                let stored = |index: usize| sums[index * tile.height].to_bits() as i32;
                assert_eq!(sums[0], scale * sum(&quants) as f32);
                assert_eq!(stored(1), -sum(&quants));
                assert_eq!((stored(2), stored(3)), (-sum(&quants[..16]), -sum(&quants[16..])));
                (quants, scale.to_bits())
            })
            .collect()
    }

    #[test]
    fn what_is_not_finite_does_not_hide() {
        for isa in Isa::available() {
            let mut pool = Pool::new(1).unwrap();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut tiles_of = RowTiles::new(1, 64).unwrap();
                let forms = RowForms { float: false, quantized: true };
                tiles_of.fill(&mut pool, isa, forms, 1, 64, |_, out| {
                    out.fill(1.0);
                    out[40] = bad;
                });
                let tile = tiles_of.quant_tile(tile(1, 0));
                assert_eq!(tile.scales[0], 1.0 / QUANT_MAX);
                assert!(tile.scales[1].is_nan() && tile.sums[NUM_SUMS].is_nan(), "{isa:?} {bad}");
            }
        }
    }
}
