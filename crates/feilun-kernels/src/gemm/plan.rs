//! The sizes of blocks: what fits which cache.

use super::pack::PANEL_LANES;
use super::path::{Format, Path};

/// Lanes of either operand, and blocks of k, that are packed at a time: bounds the scratch to
/// 20 MiB an operand.
const PART_LANES: usize = 2048;
const PART_BLOCKS: usize = 4;
/// Longest block of k. A half panel of eight f32 lanes takes 20 KiB, two AMX panels 40 KiB: most
/// of a first-level cache. Widths of small models (576, 640) are one block.
const MAX_BLOCK_K: usize = 640;
/// A block is a whole number of AMX steps, and of groups of quantized weights.
const BLOCK_K_MULTIPLE: usize = 32;
/// Whole tiles of 32 (AMX) and of 48 (AVX-512) columns.
const COL_MULTIPLE: usize = 96;
/// Whole tiles of 8 and of 32 rows.
const ROW_MULTIPLE: usize = 32;
/// Rows that use a block of `b` while it is in the second-level cache.
const MAX_BLOCK_ROWS: usize = 256;
/// Blocks per thread, so that a thread that loses its processor for a while does not stop all.
const BLOCKS_PER_THREAD: usize = 8;

/// A part of rows, columns or k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Range {
    /// Part `index` of `total`, in parts of `size`.
    pub(super) fn nth(index: usize, size: usize, total: usize) -> Range {
        let start = index * size;
        Range { start, len: size.min(total - start) }
    }

    pub(super) fn end(&self) -> usize {
        self.start + self.len
    }
}

/// A block of k.
pub(super) struct KBlock {
    /// Within the packed part.
    pub(super) index: usize,
    pub(super) len: usize,
    /// Of all of k.
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

/// How one product is cut up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) format: Format,
    m: usize,
    pub(super) n: usize,
    k: usize,
    /// Rows of `a`, columns of `b`, and k that are packed at a time.
    pub(super) m_part: usize,
    pub(super) n_part: usize,
    k_part: usize,
    /// Length of a block of k, but for the last.
    pub(super) k_block: usize,
    /// Bytes of `b` that a block may take in the second-level cache.
    cache_bytes: usize,
}

/// The size of equal parts, none larger than `max` rounded up to the multiple.
fn even(total: usize, max: usize, multiple: usize) -> usize {
    let count = total.div_ceil(max).max(1);
    total.div_ceil(count).max(1).next_multiple_of(multiple)
}

impl Plan {
    pub(super) fn new(path: Path, m: usize, n: usize, k: usize) -> Plan {
        // Depends on k alone: it decides the order of additions.
        let k_block = even(k, MAX_BLOCK_K, BLOCK_K_MULTIPLE);
        Plan {
            format: path.format(),
            m,
            n,
            k,
            m_part: even(m, PART_LANES, ROW_MULTIPLE),
            n_part: even(n, PART_LANES, COL_MULTIPLE),
            k_part: k_block * k.div_ceil(k_block).clamp(1, PART_BLOCKS),
            k_block,
            cache_bytes: path.cache_bytes(),
        }
    }

    pub(super) fn num_k_blocks(&self) -> usize {
        self.k.div_ceil(self.k_block).max(1)
    }

    /// Words of one lane of a whole block of k.
    pub(super) fn block_words(&self) -> usize {
        self.format.words(self.k_block)
    }

    /// Words of packed `lanes`.
    pub(super) fn words(&self, lanes: usize) -> usize {
        lanes.next_multiple_of(PANEL_LANES) * self.block_words() * (self.k_part / self.k_block)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Range> + use<> {
        let (size, total) = (self.m_part, self.m);
        (0..total.div_ceil(size)).map(move |index| Range::nth(index, size, total))
    }

    pub(super) fn cols(&self) -> impl Iterator<Item = Range> + use<> {
        let (size, total) = (self.n_part, self.n);
        (0..total.div_ceil(size)).map(move |index| Range::nth(index, size, total))
    }

    /// At least one, if an empty one: a product over no `k` is zero, and must be stored.
    pub(super) fn depths(&self) -> impl Iterator<Item = Range> + use<> {
        let (size, total) = (self.k_part, self.k);
        (0..total.div_ceil(size).max(1)).map(move |index| Range::nth(index, size, total))
    }

    pub(super) fn k_blocks(&self, depth: Range) -> impl Iterator<Item = KBlock> + use<> {
        let (size, total) = (self.k_block, self.k);
        (0..depth.len.div_ceil(size).max(1)).map(move |index| {
            let range = Range::nth(index, size, depth.len);
            let start = depth.start + range.start;
            KBlock {
                index,
                len: range.len,
                is_first: start == 0,
                is_last: start + range.len == total,
            }
        })
    }

    /// Rows and columns that one thread computes at a time.
    pub(super) fn block(&self, rows: usize, cols: usize, num_threads: usize) -> (usize, usize) {
        let lane_bytes = 4 * self.block_words().max(1);
        let max_cols = (self.cache_bytes / lane_bytes / COL_MULTIPLE).max(1) * COL_MULTIPLE;
        let nc = even(cols, max_cols, COL_MULTIPLE);
        let wanted = (num_threads * BLOCKS_PER_THREAD).div_ceil(cols.div_ceil(nc));
        let max_rows = rows.div_ceil(wanted).min(MAX_BLOCK_ROWS).next_multiple_of(ROW_MULTIPLE);
        (even(rows, max_rows, ROW_MULTIPLE), nc)
    }
}
