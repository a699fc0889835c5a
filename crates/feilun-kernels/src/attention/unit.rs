//! One unit of work: some rows against some chunks of keys, tile by tile.

use std::ops::Range;

use super::plan::{Plan, UNIT_ROWS_MAX, Unit, keys_seen};
use super::tables::Kernels;
use super::tile::{RowState, Softmax, TILE_ROWS_MAX, Tile};
use super::{AttentionSegment, AttentionShape, CHUNK_BLOCKS, CHUNK_TOKENS};
use crate::AlignedBytes;
use crate::kv::BLOCK_TOKENS;
use crate::memory::OutOfMemory;
use crate::pack::SendPointer;

/// Most tiles of a unit for which keys and values are prefetched.
const STREAM_TILES_MAX: usize = 2;

/// Working memory of one thread.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Packed queries of the unit.
    query: AlignedBytes,
    /// Sums of values of the unit's rows, over the chunks so far.
    state: AlignedBytes,
    /// The same of one tile, of one chunk.
    acc: AlignedBytes,
    scores: AlignedBytes,
    digits: AlignedBytes,
    rows: [RowState; UNIT_ROWS_MAX],
}

impl Workspace {
    /// For heads of up to `dim` values, padding included.
    pub(super) fn new(dim: usize) -> Result<Workspace, OutOfMemory> {
        Ok(Workspace {
            query: AlignedBytes::zeroed(UNIT_ROWS_MAX * dim * size_of::<f32>())?,
            state: AlignedBytes::zeroed(UNIT_ROWS_MAX * dim * size_of::<f32>())?,
            acc: AlignedBytes::zeroed(TILE_ROWS_MAX * dim * size_of::<f32>())?,
            scores: AlignedBytes::zeroed(TILE_ROWS_MAX * CHUNK_TOKENS * size_of::<f32>())?,
            digits: AlignedBytes::zeroed(2 * TILE_ROWS_MAX * CHUNK_TOKENS)?,
            rows: [RowState::default(); UNIT_ROWS_MAX],
        })
    }
}

/// What all units of one call share. [`super::attend`] has checked the lengths of `q` and `out`
/// and of the block tables; the block ids are checked here, as they are used.
pub(super) struct Call<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kernels: &'static Kernels,
    pub(super) cache: &'a [u8],
    pub(super) segments: &'a [AttentionSegment<'a>],
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    pub(super) out: SendPointer<f32>,
    pub(super) plan: &'a Plan,
    /// Query heads per kv head.
    pub(super) group: usize,
}

impl Call<'_> {
    fn dim(&self) -> usize {
        self.shape.layout.padded_dim()
    }

    /// Row of the call, and query head, of row `index` of a unit.
    fn row_and_head(&self, unit: &Unit, index: usize) -> (usize, usize) {
        let (token, member) = (index / self.group, index % self.group);
        (unit.segment_row + token, unit.kv_head * self.group + member)
    }

    /// The keys of `chunk`, counted from its start, that row `index` of a unit sees.
    fn keys_of_chunk(&self, unit: &Unit, index: usize, chunk: usize) -> Range<usize> {
        let position = self.segments[unit.segment].start + index / self.group;
        let seen = keys_seen(self.shape.window, position);
        let start = chunk * CHUNK_TOKENS;
        let clamp = |key: usize| key.clamp(start, start + CHUNK_TOKENS) - start;
        clamp(seen.start)..clamp(seen.end)
    }

    /// Does a unit, and if it is the last part of a split, merges them.
    pub(super) fn run(&self, unit: &Unit, workspace: &mut Workspace) {
        let num_rows = unit.rows.len();
        assert!(
            num_rows <= UNIT_ROWS_MAX
                && workspace.state.len() >= UNIT_ROWS_MAX * self.dim() * size_of::<f32>(),
            "the scratch was planned for other shapes"
        );
        self.pack_queries(unit, workspace);
        workspace.state.as_f32_mut()[..num_rows * self.dim()].fill(0.0);
        for chunk in unit.chunks.clone() {
            self.run_chunk(unit, chunk, workspace);
        }
        let Some(split) = unit.split.map(|index| self.plan.split(index)) else {
            self.finish(unit, workspace);
            return;
        };
        if split.finish_part() {
            self.merge_parts(unit, split.chunks.clone(), workspace);
            self.finish(unit, workspace);
        }
    }

    fn pack_queries(&self, unit: &Unit, workspace: &mut Workspace) {
        let head_dim = self.shape.layout.head_dim();
        let row_bytes = self.kernels.query_bytes * self.dim();
        for tile in tiles(unit.rows.len(), self.kernels) {
            let out = workspace.query[tile.start * row_bytes..].as_mut_ptr();
            for index in tile.clone() {
                let (row, head) = self.row_and_head(unit, unit.rows.start + index);
                let q = &self.q[row * self.q_stride + head * head_dim..][..head_dim];
                // SAFETY: q has head_dim values; the workspace has room for all queries; the
                // kernels are those of a path that the machine has.
                workspace.rows[index] = unsafe {
                    (self.kernels.pack_query)(
                        q.as_ptr(),
                        head_dim,
                        out,
                        index - tile.start,
                        tile.len(),
                        self.dim(),
                        self.shape.scale,
                    )
                };
            }
        }
    }

    fn run_chunk(&self, unit: &Unit, chunk: usize, workspace: &mut Workspace) {
        let dim = self.dim();
        let heads = self.heads_of_chunk(unit, chunk);
        // With few tiles each byte of the cache is used about once, and computing should not
        // wait for it; with many it comes from the processor's own cache.
        let num_tiles = tiles(unit.rows.len(), self.kernels).count();
        let stream = num_tiles <= STREAM_TILES_MAX;
        let mut next_heads = heads;
        if stream && chunk + 1 < unit.chunks.end {
            next_heads = self.heads_of_chunk(unit, chunk + 1);
        }
        for tile_rows in tiles(unit.rows.len(), self.kernels) {
            let rows = &mut workspace.rows[tile_rows.clone()];
            let (mut block_start, mut block_end) = (CHUNK_BLOCKS, 0);
            for (index, row) in tile_rows.clone().zip(rows.iter_mut()) {
                let keys = self.keys_of_chunk(unit, unit.rows.start + index, chunk);
                (row.key_start, row.key_end) = (keys.start, keys.end);
                if !keys.is_empty() {
                    block_start = block_start.min(keys.start / BLOCK_TOKENS);
                    block_end = block_end.max(keys.end.div_ceil(BLOCK_TOKENS));
                }
            }
            if block_start >= block_end {
                continue;
            }
            let acc = match unit.split.map(|index| self.plan.split(index)) {
                None => workspace.acc.as_f32_mut().as_mut_ptr(),
                Some(split) => {
                    let offset = Plan::partial_offset(split, chunk) + tile_rows.start * dim;
                    // SAFETY: the plan gave this chunk of this split room for all its rows.
                    unsafe { self.plan.partials().get().add(offset) }
                }
            };
            let tile = Tile {
                query: workspace.query[tile_rows.start * self.kernels.query_bytes * dim..].as_ptr(),
                rows: std::ptr::null(),
                heads: heads.as_ptr(),
                next_heads: next_heads.as_ptr(),
                block_start,
                block_end,
                dim,
                scores: workspace.scores.as_f32_mut().as_mut_ptr(),
                digits: workspace.digits.as_mut_ptr(),
                acc,
            };
            self.run_tile(tile, rows, stream);
            match unit.split.map(|index| self.plan.split(index)) {
                None => {
                    let state = workspace.state.as_f32_mut()[tile_rows.start * dim..].as_mut_ptr();
                    for (r, row) in rows.iter_mut().enumerate() {
                        if row.key_start < row.key_end {
                            let chunk = row.chunk;
                            // SAFETY: state and acc have `dim` floats for each row of the tile.
                            unsafe {
                                let (state, acc) = (state.add(r * dim), acc.add(r * dim));
                                (self.kernels.merge)(state, &mut row.total, acc, chunk, dim);
                            }
                        }
                    }
                }
                Some(split) => {
                    let offset = Plan::partial_offset(split, chunk) + unit.rows.len() * dim;
                    for (index, row) in tile_rows.zip(rows.iter()) {
                        // SAFETY: the pairs follow the sums; nobody else has this chunk.
                        unsafe {
                            let pair = self.plan.partials().get().add(offset + 2 * index);
                            pair.write(row.chunk.max);
                            pair.add(1).write(row.chunk.sum);
                        }
                    }
                }
            }
        }
    }

    fn run_tile(&self, mut tile: Tile, rows: &mut [RowState], stream: bool) {
        let kernels = self.kernels.tiles[rows.len() - 1];
        let (scores, values) = if stream {
            (kernels.stream_scores, kernels.stream_values)
        } else {
            (kernels.scores, kernels.values)
        };
        // SAFETY: the tile was made for these rows, its pointers are as `Tile` asks, and the
        // kernels are those of a path that the machine has. The tile's pointer to the rows is
        // taken anew after they were borrowed.
        unsafe {
            tile.rows = rows.as_ptr();
            scores(&tile);
            (self.kernels.softmax)(&tile, rows);
            tile.rows = rows.as_ptr();
            values(&tile);
        }
    }

    /// Where this unit's head begins in each block of a chunk that any of its rows sees.
    fn heads_of_chunk(&self, unit: &Unit, chunk: usize) -> [*const u8; CHUNK_BLOCKS] {
        let layout = &self.shape.layout;
        let num_blocks = self.cache.len() / layout.block_bytes();
        let first = self.keys_of_chunk(unit, unit.rows.start, chunk);
        let last = self.keys_of_chunk(unit, unit.rows.end - 1, chunk);
        let table = self.segments[unit.segment].blocks;
        let mut heads = [std::ptr::null(); CHUNK_BLOCKS];
        for block in first.start / BLOCK_TOKENS..last.end.div_ceil(BLOCK_TOKENS) {
            let id = table[chunk * CHUNK_BLOCKS + block] as usize;
            assert!(id < num_blocks, "block {id} in a cache of {num_blocks} blocks");
            let offset = id * layout.block_bytes() + unit.kv_head * layout.head_bytes();
            heads[block] = self.cache[offset..].as_ptr();
        }
        heads
    }

    fn merge_parts(&self, unit: &Unit, chunks: Range<usize>, workspace: &mut Workspace) {
        let dim = self.dim();
        let Some(split) = unit.split.map(|index| self.plan.split(index)) else {
            return;
        };
        for (index, row) in workspace.rows[..unit.rows.len()].iter_mut().enumerate() {
            let state = workspace.state.as_f32_mut()[index * dim..].as_mut_ptr();
            for chunk in chunks.clone() {
                if self.keys_of_chunk(unit, unit.rows.start + index, chunk).is_empty() {
                    continue;
                }
                let offset = Plan::partial_offset(split, chunk);
                // SAFETY: all parts of the split have finished, and left their sums and pairs
                // at these places.
                unsafe {
                    let results = self.plan.partials().get().add(offset);
                    let pair = results.add(unit.rows.len() * dim + 2 * index);
                    let softmax = Softmax { max: pair.read(), sum: pair.add(1).read() };
                    let acc = results.add(index * dim);
                    (self.kernels.merge)(state, &mut row.total, acc, softmax, dim);
                }
            }
        }
    }

    fn finish(&self, unit: &Unit, workspace: &mut Workspace) {
        let head_dim = self.shape.layout.head_dim();
        for (index, row) in workspace.rows[..unit.rows.len()].iter().enumerate() {
            let (out_row, head) = self.row_and_head(unit, unit.rows.start + index);
            let offset = (out_row * self.shape.num_heads + head) * head_dim;
            let state = &workspace.state.as_f32()[index * self.dim()..][..self.dim()];
            // SAFETY: `attend` checked the length of `out`; each row and head is in one unit,
            // or in the parts of one, of which only the last comes here.
            unsafe {
                let out = self.out.get().add(offset);
                (self.kernels.finish)(state.as_ptr(), row.total.sum, out, head_dim);
            }
        }
    }
}

/// Cuts `num_rows` into one tile, if there are kernels for as many, or else into as few of the
/// preferred size as possible, nearly equal ones.
fn tiles(num_rows: usize, kernels: &Kernels) -> impl Iterator<Item = Range<usize>> {
    let num_tiles =
        if num_rows <= kernels.tiles.len() { 1 } else { num_rows.div_ceil(kernels.tile_rows) };
    (0..num_tiles).map(move |tile| num_rows * tile / num_tiles..num_rows * (tile + 1) / num_tiles)
}
