//! The keys and values of all sequences of a session, layer by layer, in blocks of 16 tokens.

use feilun_kernels::attention::{
    AttentionLimits, AttentionScratch, AttentionSegment, AttentionShape, attend,
};
use feilun_kernels::kv::{self, KvKind, KvLayout, KvLayoutError, KvRows, KvSlot};
use feilun_kernels::memory::OutOfMemory;
use feilun_kernels::{AlignedBytes, Isa, Pool};

use crate::step_rows::StepRows;
use crate::{KV_BLOCK_TOKENS, ModelConfig};

/// Why a session could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Attention heads that no kernel takes.
    #[error(transparent)]
    Heads(#[from] KvLayoutError),
    /// Too little memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

#[derive(Debug)]
pub(crate) struct KvCache {
    layout: KvLayout,
    /// Attention of each layer: they differ in the window.
    shapes: Vec<AttentionShape>,
    layers: Vec<AlignedBytes>,
    scratch: AttentionScratch,
    slots: Vec<KvSlot>,
}

impl KvCache {
    pub(crate) fn new(
        config: &ModelConfig,
        kind: KvKind,
        num_blocks: usize,
        max_rows: usize,
        num_threads: usize,
    ) -> Result<KvCache, SessionError> {
        let layout = KvLayout::new(kind, config.num_kv_heads, config.head_dim)?;
        let shape = |window| AttentionShape {
            layout,
            num_heads: config.num_heads,
            scale: config.attention_scale,
            window,
        };
        let shapes: Vec<AttentionShape> =
            config.layers.iter().map(|layer| shape(layer.window)).collect();
        let limits = AttentionLimits {
            num_rows: max_rows,
            num_segments: max_rows,
            num_positions: num_blocks * KV_BLOCK_TOKENS,
        };
        let scratch = AttentionScratch::new(&shapes, limits, num_threads)?;
        let layer_bytes = num_blocks
            .checked_mul(layout.block_bytes())
            .ok_or(OutOfMemory { bytes: usize::MAX })?;
        let layers = config
            .layers
            .iter()
            .map(|_| AlignedBytes::zeroed(layer_bytes))
            .collect::<Result<_, _>>()?;
        Ok(KvCache { layout, shapes, layers, scratch, slots: Vec::with_capacity(max_rows) })
    }

    /// Memory of all blocks.
    pub(crate) fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.len()).sum()
    }

    /// Finds the place of each row of a step; once per step, before [`KvCache::attend`].
    pub(crate) fn place(&mut self, rows: &StepRows) {
        self.slots.clear();
        for segment in rows.segments() {
            let positions = segment.start..segment.start + segment.num_rows;
            self.slots.extend(positions.map(|position| KvSlot {
                block: segment.blocks[position / KV_BLOCK_TOKENS],
                offset: (position % KV_BLOCK_TOKENS) as u32,
            }));
        }
    }

    /// Appends the keys and values of a step to a layer.
    pub(crate) fn write(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        layer: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let rows = KvRows { keys, values, stride: self.layout.kv_size() };
        kv::write(pool, isa, &self.layout, &mut self.layers[layer], &self.slots, rows);
    }

    /// Attention of a step's queries over what the layer holds.
    pub(crate) fn attend(
        &mut self,
        pool: &mut Pool,
        isa: Isa,
        layer: usize,
        segments: &[AttentionSegment<'_>],
        q: &[f32],
        out: &mut [f32],
    ) {
        let shape = &self.shapes[layer];
        let stride = shape.num_heads * self.layout.head_dim();
        let (cache, scratch) = (&self.layers[layer], &mut self.scratch);
        attend(pool, isa, shape, cache, segments, q, stride, scratch, out);
    }
}
