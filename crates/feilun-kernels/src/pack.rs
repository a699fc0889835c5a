//! Weight matrices in the order in which the kernels read them.
//!
//! A matrix of `rows` outputs and `cols` inputs becomes panels of 16 rows (the last one filled
//! up with zeros). The 16 rows of a panel are the 16 lanes of a vector register, so a kernel
//! reads a panel from front to back, each lane sums its own row in one fixed order, and no
//! lane ever looks at another.
//!
//! Quantized weights stay packed, bit for bit: a panel is a section of scales and a section of
//! quants. The quants of one *group* (32 columns × 16 rows) are 8 *steps* of 4 columns; step `s`
//! is conceptually 64 bytes, byte `4 * lane + j` being column `4 s + j` of row `lane`, which is
//! what an integer dot-product instruction takes.
//!
//! | bits | bytes of a group | content |
//! |---|---|---|
//! | 4 | 256 | chunk `c` of 64 bytes: low nibbles are step `c`, high nibbles step `c + 4` |
//! | 5 | 320 | as 4; then 64 bytes whose bit `s` is the fifth bit of step `s` |
//! | 6 | 384 | as 4; then 2 × 64 bytes: bits `2 i, 2 i + 1` of chunk `h` belong to step `4 h + i` |
//! | 8 | 512 | chunk `s` is step `s` (signed weights are stored with 128 added) |
//!
//! Float weights are stored as `[cols][16]`, bf16 as pairs of columns `[cols / 2][16][2]`.

use crate::dequantize::{f16_at, k_scale_min};
use crate::memory::{Arena, ArenaBytes, OutOfMemory};
use crate::{BlockType, Isa, Pool};

/// Rows of a panel: the 32-bit lanes of a 512-bit register.
pub const PANEL_ROWS: usize = 16;
/// Columns of a group, and of a quantization group of the activations.
pub const GROUP_COLS: usize = 32;
/// Bytes of one column step of 4 in a panel.
pub(crate) const STEP_BYTES: usize = 64;
/// Groups in a block of 256.
const SUPER_GROUPS: usize = 8;

/// Why a matrix cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The bytes are not the rows that were announced.
    #[error("{found} bytes for {rows} rows of {cols} {block_type} weights")]
    Size {
        /// Storage type.
        block_type: BlockType,
        /// Rows announced.
        rows: usize,
        /// Columns announced.
        cols: usize,
        /// Bytes given.
        found: usize,
    },
    /// A scale that is NaN or infinite would silently poison every answer.
    #[error("row {row}, block {block}: the scale is not a finite number")]
    NotFinite {
        /// Stored row.
        row: usize,
        /// Block in the row.
        block: usize,
    },
    /// No memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// A weight matrix in panels. Immutable.
#[derive(Debug)]
pub struct PackedMatrix {
    pub(crate) block_type: BlockType,
    rows: usize,
    cols: usize,
    /// Bytes of a panel, a multiple of 64.
    panel_bytes: usize,
    /// Where the quants begin in a panel; 0 for floats.
    pub(crate) quant_offset: usize,
    bytes: ArenaBytes,
}

/// Bits of a quant as they are stored, and how to read the scales.
pub(crate) const fn quant_bits(block_type: BlockType) -> usize {
    match block_type {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => 4,
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => 5,
        BlockType::Q6K => 6,
        BlockType::Q8_0 => 8,
        BlockType::F16 | BlockType::Bf16 => 16,
        BlockType::F32 => 32,
    }
}

/// What is subtracted from a stored quant: `weight = scale * (quant - zero) + min`.
pub(crate) const fn zero_point(block_type: BlockType) -> i32 {
    match block_type {
        BlockType::Q4_0 => 8,
        BlockType::Q5_0 => 16,
        BlockType::Q6K => 32,
        BlockType::Q8_0 => 128,
        _ => 0,
    }
}

/// Whether weights have a minimum besides the scale.
pub(crate) const fn has_min(block_type: BlockType) -> bool {
    matches!(block_type, BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K)
}

/// Whether the type is a quantized one (integer kernels) or a float.
pub const fn is_quantized(block_type: BlockType) -> bool {
    !matches!(block_type, BlockType::F32 | BlockType::F16 | BlockType::Bf16)
}

/// Bytes of the quants of one group.
pub(crate) const fn group_bytes(block_type: BlockType) -> usize {
    quant_bits(block_type) * GROUP_COLS * PANEL_ROWS / 8
}

/// Bytes of the scales of one group of 32 (legacy types) or of one block of 256 (K types).
///
/// - legacy: `[f16; 16]` scales, then `[f16; 16]` minima where the type has them;
/// - Q4_K, Q5_K: `[f16; 16]` d, `[f16; 16]` dmin, then per group `[u8; 16]` scales and minima;
/// - Q6_K: `[f16; 16]` d, then per half group `[i8; 16]` scales.
pub(crate) const fn scale_record_bytes(block_type: BlockType) -> usize {
    match block_type {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => 32,
        BlockType::Q4_1 | BlockType::Q5_1 => 64,
        BlockType::Q4K | BlockType::Q5K => 64 + SUPER_GROUPS * 32,
        BlockType::Q6K => 32 + SUPER_GROUPS * 32,
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => 0,
    }
}

impl PackedMatrix {
    /// Packs stored rows into memory of their own; see [`PackedMatrix::pack_in`].
    ///
    /// # Errors
    /// When the sizes do not agree, a scale is not finite, or memory is short.
    pub fn pack(
        pool: &mut Pool,
        block_type: BlockType,
        rows: usize,
        cols: usize,
        stored: &[u8],
        row_of: impl Fn(usize) -> usize + Sync,
    ) -> Result<PackedMatrix, PackError> {
        Self::pack_in(&mut Arena::default(), pool, block_type, rows, cols, stored, row_of)
    }

    /// Packs stored rows. `row_of(i)` names the stored row that becomes row `i`. Matrices that
    /// are read one after another should share an arena.
    ///
    /// # Errors
    /// When the sizes do not agree, a scale is not finite, or memory is short.
    pub fn pack_in(
        arena: &mut Arena,
        pool: &mut Pool,
        block_type: BlockType,
        rows: usize,
        cols: usize,
        stored: &[u8],
        row_of: impl Fn(usize) -> usize + Sync,
    ) -> Result<PackedMatrix, PackError> {
        let size_error = || PackError::Size { block_type, rows, cols, found: stored.len() };
        let row_bytes = block_type.row_bytes(cols).ok_or_else(size_error)?;
        if row_bytes.checked_mul(rows) != Some(stored.len()) || stored.is_empty() {
            return Err(size_error());
        }
        let num_panels = rows.div_ceil(PANEL_ROWS);
        let scale_bytes = scale_record_bytes(block_type) * (cols / block_type.block_len());
        let quant_offset =
            if is_quantized(block_type) { scale_bytes.next_multiple_of(64) } else { 0 };
        // Pairs of columns for bf16, hence the rounding up to two.
        let quant_bytes = PANEL_ROWS * quant_bits(block_type) * cols.next_multiple_of(2) / 8;
        let panel_bytes = quant_offset + quant_bytes;
        let total = panel_bytes.checked_mul(num_panels).ok_or(OutOfMemory { bytes: usize::MAX })?;
        let mut bytes = arena.allocate(total)?;

        let bad_scale = std::sync::Mutex::new(None);
        let target = SendPointer(bytes.as_mut_ptr());
        pool.for_each_range(num_panels, num_panels.div_ceil(64), |panels| {
            for panel in panels {
                // SAFETY: panels are disjoint parts of `bytes`, and each is visited once.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(
                        target.get().add(panel * panel_bytes),
                        panel_bytes,
                    )
                };
                let first = panel * PANEL_ROWS;
                for lane in 0..PANEL_ROWS.min(rows - first) {
                    let row = row_of(first + lane);
                    let row_stored = &stored[row * row_bytes..][..row_bytes];
                    if is_quantized(block_type) {
                        let (scales, quants) = out.split_at_mut(quant_offset);
                        if let Err(block) = pack_row(block_type, row_stored, lane, scales, quants) {
                            *bad_scale.lock().unwrap_or_else(|e| e.into_inner()) =
                                Some(PackError::NotFinite { row, block });
                        }
                    } else {
                        pack_float_row(block_type, row_stored, lane, out);
                    }
                }
            }
        });
        match bad_scale.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => Ok(PackedMatrix { block_type, rows, cols, panel_bytes, quant_offset, bytes }),
        }
    }

    /// Storage type of the weights.
    pub fn block_type(&self) -> BlockType {
        self.block_type
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Memory that the panels take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn num_panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    pub(crate) fn panel(&self, panel: usize) -> &[u8] {
        &self.bytes[panel * self.panel_bytes..][..self.panel_bytes]
    }

    /// Writes row `row`, dequantized, to `out` (embedding lookup).
    ///
    /// # Panics
    /// When `row` or `out.len()` is not of this matrix.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let panel = self.panel(row / PANEL_ROWS);
        let lane = row % PANEL_ROWS;
        for (col, out) in out.iter_mut().enumerate() {
            *out = self.weight(panel, lane, col);
        }
    }

    /// Dequantizes a panel to `out`, `[cols][16]`: what [`PackedMatrix::row`] gives for each of
    /// its rows.
    pub(crate) fn panel_to_f32(&self, isa: Isa, panel: usize, out: &mut [f32]) {
        self.panel_columns(isa, panel, 0..self.cols, out);
    }

    /// Dequantizes some columns of a panel to `out`, `[columns][16]`. Those of quantized weights
    /// are whole groups.
    pub(crate) fn panel_columns(
        &self,
        isa: Isa,
        panel: usize,
        cols: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        assert!(cols.end <= self.cols && out.len() == cols.len() * PANEL_ROWS, "{cols:?}");
        let panel = self.panel(panel);
        if !is_quantized(self.block_type) {
            for (col, out) in cols.zip(out.chunks_exact_mut(PANEL_ROWS)) {
                for (lane, out) in out.iter_mut().enumerate() {
                    *out = self.weight(panel, lane, col);
                }
            }
            return;
        }
        assert!(cols.start.is_multiple_of(GROUP_COLS) && cols.end.is_multiple_of(GROUP_COLS));
        let (scales, quants) = panel.split_at(self.quant_offset);
        let first = cols.start / GROUP_COLS;
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx512 {
            let groups = first..cols.end / GROUP_COLS;
            // SAFETY: the path was detected; the panel is one of the type and has the groups.
            unsafe {
                crate::matmul::dequantize::groups_to_f32(
                    self.block_type,
                    scales,
                    quants,
                    groups,
                    out,
                );
            }
            return;
        }
        let _ = isa;
        let group_bytes = group_bytes(self.block_type);
        let groups = out.chunks_exact_mut(GROUP_COLS * PANEL_ROWS);
        let stored = quants.chunks_exact(group_bytes).skip(first);
        for (g, (out, group)) in (first..).zip(groups.zip(stored)) {
            let scales_at = |col: usize| -> [(f32, f32); PANEL_ROWS] {
                std::array::from_fn(|lane| {
                    stored_scale(self.block_type, scales, lane, g * GROUP_COLS + col)
                })
            };
            let halves = [scales_at(0), scales_at(GROUP_COLS / 2)];
            for (col, out) in out.chunks_exact_mut(PANEL_ROWS).enumerate() {
                for (lane, (out, (scale, min))) in out.iter_mut().zip(halves[col / 16]).enumerate()
                {
                    let quant = i32::from(stored_quant(self.block_type, group, lane, col));
                    *out = scale * (quant - zero_point(self.block_type)) as f32 + min;
                }
            }
        }
    }

    #[inline]
    fn weight(&self, panel: &[u8], lane: usize, col: usize) -> f32 {
        let at = |index: usize| half::f16::from_le_bytes([panel[2 * index], panel[2 * index + 1]]);
        match self.block_type {
            BlockType::F32 => {
                let at = 4 * (col * PANEL_ROWS + lane);
                f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
            }
            BlockType::F16 => at(col * PANEL_ROWS + lane).to_f32(),
            BlockType::Bf16 => {
                let bits = at((col / 2 * PANEL_ROWS + lane) * 2 + col % 2).to_bits();
                half::bf16::from_bits(bits).to_f32()
            }
            block_type => {
                let (scales, quants) = panel.split_at(self.quant_offset);
                let group = &quants[col / GROUP_COLS * group_bytes(block_type)..];
                let quant = stored_quant(block_type, group, lane, col % GROUP_COLS);
                let (scale, min) = stored_scale(block_type, scales, lane, col);
                scale * (i32::from(quant) - zero_point(block_type)) as f32 + min
            }
        }
    }
}

/// The quant of a lane and column of a packed group.
pub(crate) fn stored_quant(block_type: BlockType, group: &[u8], lane: usize, col: usize) -> u8 {
    let (step, at) = (col / 4, lane * 4 + col % 4);
    if quant_bits(block_type) == 8 {
        return group[step * STEP_BYTES + at];
    }
    let low = group[step % 4 * STEP_BYTES + at] >> (step / 4 * 4) & 15;
    match quant_bits(block_type) {
        5 => low | (group[4 * STEP_BYTES + at] >> step & 1) << 4,
        6 => low | (group[(4 + step / 4) * STEP_BYTES + at] >> (step % 4 * 2) & 3) << 4,
        _ => low,
    }
}

/// Scale and minimum of a lane and column of a packed panel.
pub(crate) fn stored_scale(
    block_type: BlockType,
    scales: &[u8],
    lane: usize,
    col: usize,
) -> (f32, f32) {
    let record = &scales[col / block_type.block_len() * scale_record_bytes(block_type)..];
    let group = col % block_type.block_len() / GROUP_COLS;
    match block_type {
        BlockType::Q4_1 | BlockType::Q5_1 => {
            (f16_at(record, 2 * lane), f16_at(record, 32 + 2 * lane))
        }
        BlockType::Q4K | BlockType::Q5K => {
            let scale = record[64 + group * 32 + lane];
            let min = record[64 + group * 32 + 16 + lane];
            (
                f16_at(record, 2 * lane) * f32::from(scale),
                -(f16_at(record, 32 + 2 * lane) * f32::from(min)),
            )
        }
        BlockType::Q6K => {
            let scale = record[32 + col % 256 / 16 * 16 + lane].cast_signed();
            (f16_at(record, 2 * lane) * f32::from(scale), 0.0)
        }
        _ => (f16_at(record, 2 * lane), 0.0),
    }
}

fn pack_float_row(block_type: BlockType, stored: &[u8], lane: usize, out: &mut [u8]) {
    let size = block_type.block_bytes();
    for (col, weight) in stored.chunks_exact(size).enumerate() {
        let index = match block_type {
            BlockType::Bf16 => (col / 2 * PANEL_ROWS + lane) * 2 + col % 2,
            _ => col * PANEL_ROWS + lane,
        };
        out[index * size..][..size].copy_from_slice(weight);
    }
}

/// Packs one stored row into lane `lane` of a panel; `Err(block)` where a scale is not finite.
fn pack_row(
    block_type: BlockType,
    stored: &[u8],
    lane: usize,
    scales: &mut [u8],
    quants: &mut [u8],
) -> Result<(), usize> {
    let record_bytes = scale_record_bytes(block_type);
    let groups_per_block = block_type.block_len() / GROUP_COLS;
    let mut unpacked = [[0; 8]; SUPER_GROUPS];
    for (index, block) in stored.chunks_exact(block_type.block_bytes()).enumerate() {
        pack_scales(block_type, block, lane, &mut scales[index * record_bytes..][..record_bytes])
            .map_err(|()| index)?;
        unpack_quants(block_type, block, &mut unpacked);
        for (g, words) in unpacked[..groups_per_block].iter().enumerate() {
            let size = group_bytes(block_type);
            let group = &mut quants[(index * groups_per_block + g) * size..][..size];
            pack_group(block_type, words, lane, group);
        }
    }
    Ok(())
}

fn pack_scales(
    block_type: BlockType,
    block: &[u8],
    lane: usize,
    record: &mut [u8],
) -> Result<(), ()> {
    let mut copy_f16 = |from: usize, to: usize| {
        record[to + 2 * lane..][..2].copy_from_slice(&block[from..from + 2]);
        // All exponent bits set: infinite or NaN.
        if block[from + 1] & 0x7c == 0x7c { Err(()) } else { Ok(()) }
    };
    match block_type {
        BlockType::Q6K => {
            copy_f16(208, 0)?;
            for half_group in 0..16 {
                record[32 + half_group * 16 + lane] = block[192 + half_group];
            }
        }
        BlockType::Q4K | BlockType::Q5K => {
            copy_f16(0, 0)?;
            copy_f16(2, 32)?;
            for group in 0..SUPER_GROUPS {
                let (scale, min) = k_scale_min(&block[4..16], group);
                record[64 + group * 32 + lane] = scale;
                record[64 + group * 32 + 16 + lane] = min;
            }
        }
        BlockType::Q4_1 | BlockType::Q5_1 => {
            copy_f16(0, 0)?;
            copy_f16(2, 32)?;
        }
        _ => copy_f16(0, 0)?,
    }
    Ok(())
}

/// The quants of a stored block as bytes, four to a word: `out[group][step]`, zero point not
/// subtracted (Q8_0: 128 added). The loops run over fixed sizes so that they vectorise; this
/// is most of the time of loading a model.
fn unpack_quants(block_type: BlockType, block: &[u8], out: &mut [[u32; 8]; SUPER_GROUPS]) {
    let out: &mut [[u8; 32]; SUPER_GROUPS] = bytemuck::cast_mut(out);
    match block_type {
        BlockType::Q8_0 => {
            for (out, &quant) in out[0].iter_mut().zip(&block[2..34]) {
                *out = quant ^ 0x80;
            }
        }
        BlockType::Q4_0 => unpack_nibbles(&block[2..18], &mut out[0]),
        BlockType::Q4_1 => unpack_nibbles(&block[4..20], &mut out[0]),
        BlockType::Q5_0 => {
            unpack_nibbles(&block[6..22], &mut out[0]);
            add_fifth_bits(&block[2..6], &mut out[0]);
        }
        BlockType::Q5_1 => {
            unpack_nibbles(&block[8..24], &mut out[0]);
            add_fifth_bits(&block[4..8], &mut out[0]);
        }
        BlockType::Q4K | BlockType::Q5K => {
            let nibbles = &block[if block_type == BlockType::Q4K { 16 } else { 48 }..][..128];
            for (pair, bytes) in out.chunks_exact_mut(2).zip(nibbles.chunks_exact(32)) {
                for i in 0..32 {
                    pair[0][i] = bytes[i] & 15;
                    pair[1][i] = bytes[i] >> 4;
                }
            }
            if block_type == BlockType::Q5K {
                for (group, out) in out.iter_mut().enumerate() {
                    for (out, high) in out.iter_mut().zip(&block[16..48]) {
                        *out |= (high >> group & 1) << 4;
                    }
                }
            }
        }
        BlockType::Q6K => {
            for (group, out) in out.iter_mut().enumerate() {
                let (half, quarter) = (group / 4, group % 4);
                let low = &block[half * 64 + quarter % 2 * 32..][..32];
                let high = &block[128 + half * 32..][..32];
                for i in 0..32 {
                    let nibble = low[i] >> (quarter / 2 * 4) & 15;
                    out[i] = nibble | (high[i] >> (quarter * 2) & 3) << 4;
                }
            }
        }
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
    }
}

fn unpack_nibbles(bytes: &[u8], out: &mut [u8; 32]) {
    for (i, byte) in bytes.iter().enumerate().take(16) {
        out[i] = byte & 15;
        out[i + 16] = byte >> 4;
    }
}

fn add_fifth_bits(bytes: &[u8], out: &mut [u8; 32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Distributes the 8 words of a row over its lane of a group.
fn pack_group(block_type: BlockType, words: &[u32; 8], lane: usize, group: &mut [u8]) {
    let mut put = |chunk: usize, word: u32| {
        group[chunk * STEP_BYTES + 4 * lane..][..4].copy_from_slice(&word.to_le_bytes());
    };
    if quant_bits(block_type) == 8 {
        for (step, &word) in words.iter().enumerate() {
            put(step, word);
        }
        return;
    }
    const LOW: u32 = 0x0f0f_0f0f;
    for chunk in 0..4 {
        put(chunk, words[chunk] & LOW | (words[chunk + 4] & LOW) << 4);
    }
    match quant_bits(block_type) {
        5 => {
            let bits = |step: usize| (words[step] >> 4 & 0x0101_0101) << step;
            put(4, (0..8).fold(0, |all, step| all | bits(step)));
        }
        6 => {
            for half in 0..2 {
                let pair = |i: usize| (words[4 * half + i] >> 4 & 0x0303_0303) << (2 * i);
                put(4 + half, (0..4).fold(0, |all, i| all | pair(i)));
            }
        }
        _ => {}
    }
}

/// A pointer that threads may share; whoever uses it keeps to disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct SendPointer<T>(pub(crate) *mut T);

impl<T> SendPointer<T> {
    /// A method, so that closures capture the whole struct and not the bare pointer.
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: a pointer is only an address; every use has its own SAFETY comment.
unsafe impl<T> Send for SendPointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SendPointer<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize::dequantize_row;
    use crate::test_support::{Random, random_rows};

    #[test]
    fn packing_keeps_every_weight() {
        let mut pool = Pool::new(2).unwrap();
        let mut random = Random(1);
        for block_type in BlockType::ALL {
            for (rows, blocks) in [(1, 1), (15, 2), (16, 3), (17, 1), (40, 2)] {
                let cols = block_type.block_len() * blocks;
                let stored = random_rows(block_type, rows, cols, &mut random);
                let reversed = |row: usize| rows - 1 - row;
                let packed =
                    PackedMatrix::pack(&mut pool, block_type, rows, cols, &stored, reversed)
                        .unwrap();
                let mut expected = vec![0.0; cols];
                let mut found = vec![0.0; cols];
                for row in 0..rows {
                    let row_bytes = block_type.row_bytes(cols).unwrap();
                    let stored = &stored[reversed(row) * row_bytes..][..row_bytes];
                    dequantize_row(block_type, stored, &mut expected);
                    packed.row(row, &mut found);
                    assert_eq!(expected, found, "{block_type} {rows}x{cols} row {row}");
                }
            }
        }
    }

    #[test]
    fn panels_are_the_rows() {
        let mut pool = Pool::new(1).unwrap();
        let mut random = Random(4);
        for block_type in BlockType::ALL {
            let (rows, cols) = (35, 512);
            let stored = random_rows(block_type, rows, cols, &mut random);
            let packed =
                PackedMatrix::pack(&mut pool, block_type, rows, cols, &stored, |row| row).unwrap();
            for isa in crate::test_support::matmul_paths() {
                for part in [0..512, 0..32, 96..320, 480..512] {
                    let mut found = vec![f32::NAN; part.len() * PANEL_ROWS];
                    let mut row = vec![0.0; cols];
                    for panel in 0..3 {
                        packed.panel_columns(isa, panel, part.clone(), &mut found);
                        for lane in 0..PANEL_ROWS.min(rows - panel * PANEL_ROWS) {
                            packed.row(panel * PANEL_ROWS + lane, &mut row);
                            let found = found[lane..].iter().step_by(PANEL_ROWS);
                            let same = row[part.clone()]
                                .iter()
                                .zip(found)
                                .all(|(row, found)| row.to_bits() == found.to_bits());
                            assert!(same, "{block_type} {isa:?} {part:?} {panel} {lane}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_is_named() {
        let mut pool = Pool::new(1).unwrap();
        for block_type in BlockType::ALL.into_iter().filter(|&ty| is_quantized(ty)) {
            let cols = 2 * block_type.block_len();
            let mut stored = random_rows(block_type, 3, cols, &mut Random(2));
            let scale_at = if block_type == BlockType::Q6K { 208 } else { 0 };
            let at = 5 * block_type.block_bytes() + scale_at;
            stored[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
            let error = PackedMatrix::pack(&mut pool, block_type, 3, cols, &stored, |row| row);
            assert!(
                matches!(error, Err(PackError::NotFinite { row: 2, block: 1 })),
                "{block_type}: {error:?}"
            );
        }
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let mut pool = Pool::new(1).unwrap();
        for (rows, cols, bytes) in [(2, 32, 19), (2, 33, 40), (0, 32, 0), (usize::MAX, 64, 40)] {
            let stored = vec![0; bytes];
            let packed =
                PackedMatrix::pack(&mut pool, BlockType::Q4_1, rows, cols, &stored, |row| row);
            assert!(matches!(packed, Err(PackError::Size { .. })), "{rows}x{cols}");
        }
    }
}
