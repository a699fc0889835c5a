//! Copies operands into panels: 16 lanes of a block of k, in the order of the inner loop, in the
//! precision of the product.
//!
//! An operand lies in memory either with k contiguous (the rows of a matrix are the lanes), so
//! that packing transposes, or with the lanes contiguous.

use super::Packed;
use super::matrix::{Matrix, Source, Values};
use super::path::{Format, Layout, Path};
use super::plan::{Plan, Range};
use crate::PackedMatrix;
use crate::pack::PANEL_ROWS;

/// Lanes of a panel.
pub(super) const PANEL_LANES: usize = 16;
const _: () = assert!(PANEL_LANES == PANEL_ROWS, "frozen weights come in the same panels");

/// k of an item of work where the lanes are contiguous, and its panels: 4 KiB of f32 a row.
const ITEM_K: usize = 64;
const ITEM_PANELS: usize = 64;

/// The part of an operand that is packed at a time.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    matrix: Matrix<'a>,
    /// Whether the lanes are rows of the matrix as it is stored, and k its columns.
    lanes_are_rows: bool,
    lanes: Range,
    depth: Range,
}

impl<'a> Operand<'a> {
    /// `a`, whose lanes are its rows.
    pub(super) fn left(matrix: Matrix<'a>, lanes: Range, depth: Range) -> Operand<'a> {
        Operand { matrix, lanes_are_rows: !matrix.is_transposed, lanes, depth }
    }

    /// `b`, whose lanes are its columns.
    pub(super) fn right(matrix: Matrix<'a>, lanes: Range, depth: Range) -> Operand<'a> {
        Operand { matrix, lanes_are_rows: matrix.is_transposed, lanes, depth }
    }
}

/// The work of packing one part of an operand, in items that threads share.
pub(super) struct Packing<'a> {
    pub(super) operand: Operand<'a>,
    pub(super) packed: Packed,
    pub(super) layout: Layout,
    pub(super) plan: &'a Plan,
    pub(super) path: Path,
}

/// Values of some panels over a part of a block of k, and where they go.
pub(super) struct Strip<'a> {
    /// The first lane's first k is the first value.
    pub(super) values: Values<'a>,
    /// Values from lane to lane and from k to k; one of them is 1.
    pub(super) lane_stride: usize,
    pub(super) k_stride: usize,
    /// Values that are there; the rest of the last panel, and of the words, is zeros.
    pub(super) num_lanes: usize,
    pub(super) num_k: usize,
    /// The first panel; the next is `panel_words` on.
    pub(super) target: *mut u32,
    pub(super) panel_words: usize,
    /// Words of each lane that are written.
    pub(super) first_word: usize,
    pub(super) num_words: usize,
    pub(super) format: Format,
    pub(super) layout: Layout,
}

impl Packing<'_> {
    /// Number of items.
    pub(super) fn len(&self) -> usize {
        let Operand { matrix, lanes_are_rows, lanes, depth } = self.operand;
        match (matrix.source, lanes_are_rows) {
            (_, true) => lanes.len.div_ceil(PANEL_LANES),
            (Source::Values(_), false) => self.num_chunks() * self.num_panel_groups(),
            (Source::Packed(_), false) => depth.len.div_ceil(PANEL_ROWS),
        }
    }

    pub(super) fn run(&self, item: usize) {
        let Operand { matrix, lanes_are_rows, lanes, .. } = self.operand;
        let lane_range = |index, size| {
            let part = Range::nth(index, size, lanes.len);
            Range { start: lanes.start + part.start, len: part.len }
        };
        match (matrix.source, lanes_are_rows) {
            (Source::Values(values), true) => {
                self.rows(values, item, lane_range(item, PANEL_LANES));
            }
            (Source::Values(values), false) => {
                let groups = self.num_panel_groups();
                let lanes = lane_range(item % groups, ITEM_PANELS * PANEL_LANES);
                self.columns(values, item / groups, item % groups * ITEM_PANELS, lanes);
            }
            (Source::Packed(weights), true) => {
                self.packed_rows(weights, item, lane_range(item, PANEL_LANES));
            }
            (Source::Packed(weights), false) => self.packed_columns(weights, item),
        }
    }

    fn num_panel_groups(&self) -> usize {
        self.operand.lanes.len.div_ceil(PANEL_LANES * ITEM_PANELS)
    }

    fn chunks_per_block(&self) -> usize {
        self.plan.k_block.div_ceil(ITEM_K)
    }

    fn num_chunks(&self) -> usize {
        let depth = self.operand.depth.len;
        depth / self.plan.k_block * self.chunks_per_block()
            + (depth % self.plan.k_block).div_ceil(ITEM_K)
    }

    /// A panel whose lanes are rows of values, over all blocks of k.
    fn rows(&self, values: Values<'_>, panel: usize, lanes: Range) {
        let width = self.operand.matrix.stored_cols;
        for block in self.plan.k_blocks(self.operand.depth) {
            let k = self.operand.depth.start + block.index * self.plan.k_block;
            self.pack(&Strip {
                values: from(values, lanes.start * width + k),
                lane_stride: width,
                k_stride: 1,
                num_lanes: lanes.len,
                num_k: block.len,
                num_words: self.plan.format.words(block.len),
                ..self.strip(block.index, panel)
            });
        }
    }

    /// Some panels whose lanes are columns of values, over a part of a block of k.
    fn columns(&self, values: Values<'_>, chunk: usize, panel: usize, lanes: Range) {
        let width = self.operand.matrix.stored_cols;
        let Range { start: depth_start, len: depth } = self.operand.depth;
        let block = chunk / self.chunks_per_block();
        let k_block = Range::nth(block, self.plan.k_block, depth);
        let part = Range::nth(chunk % self.chunks_per_block(), ITEM_K, k_block.len);
        let first = (depth_start + k_block.start + part.start) * width + lanes.start;
        let (first_word, num_words) = self.words(k_block.len, part);
        self.pack(&Strip {
            values: from(values, first),
            lane_stride: 1,
            k_stride: width,
            num_lanes: lanes.len,
            num_k: part.len,
            first_word,
            num_words,
            ..self.strip(block, panel)
        });
    }

    /// A panel whose lanes are rows of weights, over all blocks of k.
    fn packed_rows(&self, weights: &PackedMatrix, panel: usize, lanes: Range) {
        let depth = self.operand.depth;
        with_panel(weights, lanes.start / PANEL_ROWS, depth, self.path, |values| {
            for block in self.plan.k_blocks(depth) {
                self.pack(&Strip {
                    values: Values::F32(&values[block.index * self.plan.k_block * PANEL_ROWS..]),
                    lane_stride: 1,
                    k_stride: PANEL_ROWS,
                    num_lanes: lanes.len,
                    num_k: block.len,
                    num_words: self.plan.format.words(block.len),
                    ..self.strip(block.index, panel)
                });
            }
        });
    }

    /// All panels whose lanes are columns of weights, over the 16 rows that are k of one of the
    /// weights' own panels.
    fn packed_columns(&self, weights: &PackedMatrix, item: usize) {
        let Operand { lanes, depth, .. } = self.operand;
        let part = Range::nth(item, PANEL_ROWS, depth.len);
        let block = part.start / self.plan.k_block;
        let k_block = Range::nth(block, self.plan.k_block, depth.len);
        let within = Range { start: part.start - k_block.start, len: part.len };
        let (first_word, num_words) = self.words(k_block.len, within);
        let panel = (depth.start + part.start) / PANEL_ROWS;
        with_panel(weights, panel, lanes, self.path, |values| {
            self.pack(&Strip {
                values: Values::F32(values),
                lane_stride: PANEL_ROWS,
                k_stride: 1,
                num_lanes: lanes.len,
                num_k: part.len,
                first_word,
                num_words,
                ..self.strip(block, 0)
            });
        });
    }

    /// First word and number of words of a part of a block of k; the last part fills it up.
    fn words(&self, block_len: usize, part: Range) -> (usize, usize) {
        let format = self.plan.format;
        let first = part.start / format.k_per_word();
        let is_last = part.end() == block_len;
        let end = if is_last { format.words(block_len) } else { part.end() / format.k_per_word() };
        (first, end - first)
    }

    /// A strip without values.
    fn strip(&self, block: usize, panel: usize) -> Strip<'static> {
        Strip {
            values: Values::F32(&[]),
            lane_stride: 0,
            k_stride: 0,
            num_lanes: 0,
            num_k: 0,
            target: self.packed.panel(block, panel),
            panel_words: self.packed.panel_words,
            first_word: 0,
            num_words: 0,
            format: self.plan.format,
            layout: self.layout,
        }
    }

    fn pack(&self, strip: &Strip<'_>) {
        strip.check();
        // SAFETY: the values were checked; the target is a part of the scratch that this item
        // alone writes, and the path was detected.
        unsafe {
            match self.path {
                Path::Portable { .. } => pack_portable(strip),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 { .. } => pack_avx2(strip),
                #[cfg(target_arch = "x86_64")]
                _ => super::pack_avx512::pack(strip),
            }
        }
    }
}

/// The values from an index on.
fn from(values: Values<'_>, start: usize) -> Values<'_> {
    match values {
        Values::F32(values) => Values::F32(values.get(start..).unwrap_or_default()),
        Values::Bf16(values) => Values::Bf16(values.get(start..).unwrap_or_default()),
    }
}

thread_local! {
    /// A dequantized panel per thread; grows to the longest part once.
    static PANEL: std::cell::Cell<Vec<f32>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Calls `body` with some columns of a panel of weights, `[column][16]`.
fn with_panel(
    weights: &PackedMatrix,
    panel: usize,
    cols: Range,
    path: Path,
    body: impl FnOnce(&[f32]),
) {
    let mut values = PANEL.take();
    values.resize(values.len().max(cols.len * PANEL_ROWS), 0.0);
    let part = &mut values[..cols.len * PANEL_ROWS];
    weights.panel_columns(path.isa(), panel, cols.start..cols.end(), part);
    body(part);
    PANEL.set(values);
}

impl Strip<'_> {
    /// The values are there. (That the target is, follows from how `Packing` counts.)
    fn check(&self) {
        if self.num_lanes > 0 && self.num_k > 0 {
            let last = (self.num_lanes - 1) * self.lane_stride + (self.num_k - 1) * self.k_stride;
            assert!(last < self.values.len(), "{last} of {} values", self.values.len());
        }
    }
}

/// # Safety
/// AVX2 was detected; as [`pack_portable`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_avx2(strip: &Strip<'_>) {
    // SAFETY: the caller's promise.
    unsafe { pack_portable(strip) };
}

/// # Safety
/// The values were checked, and the target has the panels.
#[inline(always)]
unsafe fn pack_portable(strip: &Strip<'_>) {
    match strip.values {
        Values::F32(values) => {
            // SAFETY: the caller's promise.
            unsafe { pack_values(strip, |index| values[index]) };
        }
        Values::Bf16(values) => {
            // SAFETY: the caller's promise.
            unsafe { pack_values(strip, |index| values[index].to_f32()) };
        }
    }
}

/// # Safety
/// As [`pack_portable`].
#[inline(always)]
unsafe fn pack_values(strip: &Strip<'_>, value: impl Fn(usize) -> f32) {
    let value = |lane: usize, k: usize| {
        let is_there = lane < strip.num_lanes && k < strip.num_k;
        if is_there { value(lane * strip.lane_stride + k * strip.k_stride) } else { 0.0 }
    };
    for panel in 0..strip.num_lanes.div_ceil(PANEL_LANES) {
        let target = strip.target.wrapping_add(panel * strip.panel_words);
        for word in 0..strip.num_words {
            for lane in 0..PANEL_LANES {
                let from = panel * PANEL_LANES + lane;
                let bits = match strip.format {
                    Format::F32 => value(from, word).to_bits(),
                    Format::RoundedF32 => bf16_bits(value(from, word)) << 16,
                    Format::Pairs | Format::TilePairs => {
                        bf16_bits(value(from, 2 * word))
                            | bf16_bits(value(from, 2 * word + 1)) << 16
                    }
                };
                let at = strip.layout.index(strip.panel_words, strip.first_word + word, lane);
                // SAFETY: the caller promises the panel.
                unsafe { target.add(at).write(bits) };
            }
        }
    }
}

/// The bits of the nearest bf16, ties to even, as `bf16::from_f32`, but without a branch.
#[inline(always)]
pub(super) fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    // Wraps for some NaN, whose result is not used.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

impl Layout {
    /// Where a word of a lane lies in a panel of `panel_words` words.
    pub(super) fn index(self, panel_words: usize, word: usize, lane: usize) -> usize {
        match self {
            Layout::Whole => word * PANEL_LANES + lane,
            Layout::Halves => lane / 8 * (panel_words / 2) + word * 8 + lane % 8,
            Layout::Rows => word / 16 * (16 * PANEL_LANES) + lane * 16 + word % 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::test_support::Random;

    #[test]
    fn rounding_is_that_of_half() {
        let mut random = Random(1);
        let special =
            [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff, 0x7f80_0000, 0xff80_0000];
        let ties = [0x3f80_8000, 0x3f81_8000, 0x7f7f_ffff, 1, 0x8000, 0x8000_0000, 0x007f_ffff];
        let others = (0..100_000).map(|_| random.next() as u32);
        for bits in special.into_iter().chain(ties).chain(others) {
            let value = f32::from_bits(bits);
            let expected = u32::from(bf16::from_f32(value).to_bits());
            assert_eq!(bf16_bits(value), expected, "{bits:#x}");
        }
    }
}
