//! The memory of a training step, planned once: what layers keep, and what they work in.
//!
//! Shapes: T = tokens of a batch, H = hidden size, Q and K = widths of q and of k, I = width of
//! the MLP, V = vocabulary. Suffixes of names are shapes.

use feilun_kernels::AlignedBytes;
use feilun_kernels::gemm::Precision;
use feilun_kernels::memory::OutOfMemory;

use super::saved::Saved;
use crate::ModelConfig;

/// What one layer keeps of its forward pass.
#[derive(Debug)]
pub(super) struct LayerSaved {
    /// The residual stream before attention.
    pub(super) x_th: Saved,
    /// Before their norms and rotary embedding.
    pub(super) q_tq: Saved,
    pub(super) k_tk: Saved,
    pub(super) v_tk: Saved,
    pub(super) attended_tq: Saved,
    /// log Σ exp of each row of scores, `(T, heads)`.
    pub(super) lse: Buffer,
    /// The residual stream before the MLP.
    pub(super) x_mid_th: Saved,
    /// `None`: computed again in the backward pass.
    pub(super) gate_up_ti: Option<(Saved, Saved)>,
    /// The blocks' results before their post-norms, where there are such.
    pub(super) blocks_th: Option<(Saved, Saved)>,
}

/// A planned buffer of f32, of which a step uses the beginning.
#[derive(Debug)]
pub(super) struct Buffer(AlignedBytes);

impl Buffer {
    pub(super) fn new(len: usize) -> Result<Buffer, OutOfMemory> {
        let bytes = len.checked_mul(4).ok_or(OutOfMemory { bytes: usize::MAX })?;
        Ok(Buffer(AlignedBytes::zeroed(bytes)?))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self, len: usize) -> &[f32] {
        &self.0.as_f32()[..len]
    }

    pub(super) fn first_mut(&mut self, len: usize) -> &mut [f32] {
        &mut self.0.as_f32_mut()[..len]
    }
}

/// What all layers work in, one after the other.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The residual stream; in the backward pass, what a layer kept of it.
    pub(super) x_th: Buffer,
    pub(super) d_x_th: Buffer,
    pub(super) normed_th: Buffer,
    pub(super) d_normed_th: Buffer,
    pub(super) block_th: Buffer,
    pub(super) d_block_th: Buffer,
    pub(super) q_tq: Buffer,
    pub(super) d_q_tq: Buffer,
    pub(super) attended_tq: Buffer,
    pub(super) d_attended_tq: Buffer,
    pub(super) k_tk: Buffer,
    pub(super) d_k_tk: Buffer,
    pub(super) v_tk: Buffer,
    pub(super) d_v_tk: Buffer,
    /// q and k before their norms, and the gradients there, where the heads have norms.
    pub(super) raw_tq: Buffer,
    pub(super) raw_tk: Buffer,
    pub(super) d_raw_tq: Buffer,
    pub(super) d_raw_tk: Buffer,
    pub(super) gate_ti: Buffer,
    pub(super) up_ti: Buffer,
    pub(super) gated_ti: Buffer,
    pub(super) d_gated_ti: Buffer,
    pub(super) layers: Vec<LayerSaved>,
}

impl Workspace {
    /// Memory of all buffers.
    pub(super) fn bytes(&self) -> usize {
        let buffers = [
            &self.x_th,
            &self.d_x_th,
            &self.normed_th,
            &self.d_normed_th,
            &self.block_th,
            &self.d_block_th,
            &self.q_tq,
            &self.d_q_tq,
            &self.attended_tq,
            &self.d_attended_tq,
            &self.k_tk,
            &self.d_k_tk,
            &self.v_tk,
            &self.d_v_tk,
            &self.raw_tq,
            &self.raw_tk,
            &self.d_raw_tq,
            &self.d_raw_tk,
            &self.gate_ti,
            &self.up_ti,
            &self.gated_ti,
            &self.d_gated_ti,
        ];
        let layers = self.layers.iter().map(LayerSaved::bytes);
        buffers.into_iter().map(Buffer::bytes).sum::<usize>() + layers.sum::<usize>()
    }
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) max_tokens: usize,
    pub(super) precision: Precision,
    pub(super) keep_mlp: bool,
}

impl Workspace {
    pub(super) fn new(config: &ModelConfig, plan: Plan) -> Result<Workspace, OutOfMemory> {
        let t = plan.max_tokens;
        let (h, i) = (t * config.hidden_size, t * config.intermediate_size);
        let (q, k) = (t * config.q_size(), t * config.kv_size());
        let (raw_q, raw_k) = if config.qk_norm { (q, k) } else { (0, 0) };
        let layers = config.layers.iter().map(|_| LayerSaved::new(config, plan));
        Ok(Workspace {
            x_th: Buffer::new(h)?,
            d_x_th: Buffer::new(h)?,
            normed_th: Buffer::new(h)?,
            d_normed_th: Buffer::new(h)?,
            block_th: Buffer::new(h)?,
            d_block_th: Buffer::new(if config.post_norms { h } else { 0 })?,
            q_tq: Buffer::new(q)?,
            d_q_tq: Buffer::new(q)?,
            attended_tq: Buffer::new(q)?,
            d_attended_tq: Buffer::new(q)?,
            k_tk: Buffer::new(k)?,
            d_k_tk: Buffer::new(k)?,
            v_tk: Buffer::new(k)?,
            d_v_tk: Buffer::new(k)?,
            raw_tq: Buffer::new(raw_q)?,
            raw_tk: Buffer::new(raw_k)?,
            d_raw_tq: Buffer::new(raw_q)?,
            d_raw_tk: Buffer::new(raw_k)?,
            gate_ti: Buffer::new(i)?,
            up_ti: Buffer::new(i)?,
            gated_ti: Buffer::new(i)?,
            d_gated_ti: Buffer::new(i)?,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }
}

impl LayerSaved {
    fn bytes(&self) -> usize {
        let pairs = [&self.gate_up_ti, &self.blocks_th].into_iter().flatten();
        let saved =
            [&self.x_th, &self.q_tq, &self.k_tk, &self.v_tk, &self.attended_tq, &self.x_mid_th];
        let saved = saved.into_iter().chain(pairs.flat_map(|(a, b)| [a, b]));
        saved.map(Saved::bytes).sum::<usize>() + self.lse.bytes()
    }

    fn new(config: &ModelConfig, plan: Plan) -> Result<LayerSaved, OutOfMemory> {
        let t = plan.max_tokens;
        let saved = |width: usize| Saved::new(t * width, plan.precision);
        let pair = |wanted: bool, width: usize| {
            wanted.then(|| Ok((saved(width)?, saved(width)?))).transpose()
        };
        Ok(LayerSaved {
            x_th: saved(config.hidden_size)?,
            q_tq: saved(config.q_size())?,
            k_tk: saved(config.kv_size())?,
            v_tk: saved(config.kv_size())?,
            attended_tq: saved(config.q_size())?,
            lse: Buffer::new(t * config.num_heads)?,
            x_mid_th: saved(config.hidden_size)?,
            gate_up_ti: pair(plan.keep_mlp, config.intermediate_size)?,
            blocks_th: pair(config.post_norms, config.hidden_size)?,
        })
    }
}
