//! `x += output(attend(rope(norm_q(q(h))), rope(norm_k(k(h))), v(h)))` with `h = norm(x)`, and
//! its gradient.

use feilun_kernels::attention::packed::{self, Found, HeadGradients, Heads, PackedShape};
use feilun_kernels::gemm::Write;
use feilun_kernels::memory::OutOfMemory;
use feilun_kernels::rope::RopeTable;

use super::compute::Compute;
use super::linear::{Step, rows};
use super::workspace::Workspace;
use crate::{LayerTensor, ModelConfig, TensorRole};

/// A layer at work on one batch.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) index: usize,
    pub(super) rope: &'a RopeTable,
    /// Position of each token in its document.
    pub(super) positions: &'a [usize],
    /// Lengths of the documents.
    pub(super) documents: &'a [usize],
}

impl Layer<'_> {
    pub(super) fn role(&self, tensor: LayerTensor) -> TensorRole {
        TensorRole::Layer(self.index, tensor)
    }

    fn shape(&self) -> PackedShape {
        PackedShape {
            num_heads: self.config.num_heads,
            num_kv_heads: self.config.num_kv_heads,
            head_dim: self.config.head_dim,
            window: self.config.layers[self.index].window,
            scale: self.config.attention_scale,
        }
    }

    /// Norm of each head, where the model has it, and rotary embedding.
    fn finish_heads(&self, step: &mut Step<'_>, heads: &mut [f32], norm: LayerTensor) {
        let (isa, eps, head_dim) = (step.compute.isa, self.config.norm_eps, self.config.head_dim);
        let weight = step.weights.vector(self.role(norm));
        let width = heads.len() / self.positions.len();
        step.compute.rows(heads, width, |row, heads| {
            if let Some(weight) = weight {
                for head in heads.chunks_exact_mut(head_dim) {
                    feilun_kernels::norm::rms_norm_in_place(isa, head, weight, eps);
                }
            }
            self.rope.apply(isa, heads, self.positions[row]);
        });
    }

    /// The gradient of the rotary embedding: turns back, in place.
    fn turn_back(&self, step: &mut Step<'_>, d_heads: &mut [f32]) {
        let isa = step.compute.isa;
        let width = d_heads.len() / self.positions.len();
        step.compute.rows(d_heads, width, |row, d_heads| {
            self.rope.apply_inverse(isa, d_heads, self.positions[row]);
        });
    }

    pub(super) fn attention_forward(
        &self,
        step: &mut Step<'_>,
        space: &mut Workspace,
    ) -> Result<(), OutOfMemory> {
        let (config, t) = (self.config, self.positions.len());
        let (h, q, k) = (t * config.hidden_size, t * config.q_size(), t * config.kv_size());
        let saved = &mut space.layers[self.index];
        let x_th = space.x_th.first_mut(h);
        saved.x_th.keep(step.compute, x_th);
        let normed_th = space.normed_th.first_mut(h);
        step.norm(self.role(LayerTensor::AttnNorm), config.norm_eps, x_th, normed_th);
        let normed = rows(normed_th, config.hidden_size);
        let q_tq = space.q_tq.first_mut(q);
        let k_tk = space.k_tk.first_mut(k);
        let v_tk = space.v_tk.first_mut(k);
        step.linear(self.index, LayerTensor::AttnQ, normed, q_tq);
        step.linear(self.index, LayerTensor::AttnK, normed, k_tk);
        step.linear(self.index, LayerTensor::AttnV, normed, v_tk);
        saved.q_tq.save(step.compute, q_tq);
        saved.k_tk.save(step.compute, k_tk);
        saved.v_tk.save(step.compute, v_tk);
        self.finish_heads(step, q_tq, LayerTensor::AttnQNorm);
        self.finish_heads(step, k_tk, LayerTensor::AttnKNorm);

        let attended_tq = space.attended_tq.first_mut(q);
        let lse = saved.lse.first_mut(t * config.num_heads);
        let Compute { pool, isa, attention, .. } = &mut *step.compute;
        let heads = Heads { q: (&*q_tq).into(), k: (&*k_tk).into(), v: saved.v_tk.heads() };
        let shape = self.shape();
        packed::forward(pool, *isa, &shape, self.documents, heads, attention, attended_tq, lse)?;
        saved.attended_tq.save(step.compute, attended_tq);

        let block_th = space.block_th.first_mut(h);
        let attended = saved.attended_tq.matrix(config.q_size());
        step.linear(self.index, LayerTensor::AttnOutput, attended, block_th);
        let post_norm = self.role(LayerTensor::PostAttnNorm);
        let saved = saved.blocks_th.as_mut().map(|(attention, _)| attention);
        step.add_block(post_norm, config.norm_eps, saved, block_th, normed_th, x_th);
        Ok(())
    }

    /// Turns `d_x` from the gradient after this block into that before it.
    pub(super) fn attention_backward(
        &self,
        step: &mut Step<'_>,
        space: &mut Workspace,
    ) -> Result<(), OutOfMemory> {
        let (config, t) = (self.config, self.positions.len());
        let (h, q, k) = (t * config.hidden_size, t * config.q_size(), t * config.kv_size());
        let saved = &space.layers[self.index];
        let d_x_th = space.d_x_th.first_mut(h);
        let block = saved.blocks_th.as_ref().map(|(attention, _)| attention);
        let post_norm = self.role(LayerTensor::PostAttnNorm);
        let d_block = step.post_norm_backward(
            post_norm,
            config.norm_eps,
            block,
            d_x_th,
            space.block_th.first_mut(h),
            &mut space.d_block_th,
        );

        let d_attended_tq = space.d_attended_tq.first_mut(q);
        let attended = saved.attended_tq.matrix(config.q_size());
        let d_input = Some((&mut *d_attended_tq, Write::Store));
        step.linear_backward(self.index, LayerTensor::AttnOutput, attended, d_block, d_input);

        let (q_tq, k_tk) = (space.q_tq.first_mut(q), space.k_tk.first_mut(k));
        saved.q_tq.restore(step.compute, q_tq);
        saved.k_tk.restore(step.compute, k_tk);
        if config.qk_norm {
            space.raw_tq.first_mut(q).copy_from_slice(q_tq);
            space.raw_tk.first_mut(k).copy_from_slice(k_tk);
        }
        self.finish_heads(step, q_tq, LayerTensor::AttnQNorm);
        self.finish_heads(step, k_tk, LayerTensor::AttnKNorm);

        let (d_q_tq, d_k_tk) = (space.d_q_tq.first_mut(q), space.d_k_tk.first_mut(k));
        let d_v_tk = space.d_v_tk.first_mut(k);
        let Compute { pool, isa, attention, .. } = &mut *step.compute;
        let heads = Heads { q: (&*q_tq).into(), k: (&*k_tk).into(), v: saved.v_tk.heads() };
        let lse = saved.lse.first(t * config.num_heads);
        packed::backward(
            pool,
            *isa,
            &self.shape(),
            self.documents,
            heads,
            Found { out: saved.attended_tq.heads(), lse },
            (&*d_attended_tq).into(),
            attention,
            HeadGradients { d_q: &mut *d_q_tq, d_k: &mut *d_k_tk, d_v: &mut *d_v_tk },
        )?;
        self.turn_back(step, d_q_tq);
        self.turn_back(step, d_k_tk);
        let (d_q_tq, d_k_tk) = if config.qk_norm {
            let (d_raw_tq, d_raw_tk) = (space.d_raw_tq.first_mut(q), space.d_raw_tk.first_mut(k));
            d_raw_tq.fill(0.0);
            d_raw_tk.fill(0.0);
            let (q_norm, k_norm) =
                (self.role(LayerTensor::AttnQNorm), self.role(LayerTensor::AttnKNorm));
            let eps = config.norm_eps;
            step.norm_backward(q_norm, eps, space.raw_tq.first(q), d_q_tq, d_raw_tq);
            step.norm_backward(k_norm, eps, space.raw_tk.first(k), d_k_tk, d_raw_tk);
            (d_raw_tq, d_raw_tk)
        } else {
            (d_q_tq, d_k_tk)
        };

        let x_th = space.x_th.first_mut(h);
        saved.x_th.restore(step.compute, x_th);
        let normed_th = space.normed_th.first_mut(h);
        let attn_norm = self.role(LayerTensor::AttnNorm);
        step.norm(attn_norm, config.norm_eps, x_th, normed_th);
        let normed = rows(normed_th, config.hidden_size);
        let d_normed_th = space.d_normed_th.first_mut(h);
        for (tensor, d_out, write) in [
            (LayerTensor::AttnQ, &*d_q_tq, Write::Store),
            (LayerTensor::AttnK, &*d_k_tk, Write::Add),
            (LayerTensor::AttnV, &*d_v_tk, Write::Add),
        ] {
            let d_input = Some((&mut *d_normed_th, write));
            step.linear_backward(self.index, tensor, normed, d_out, d_input);
        }
        step.norm_backward(attn_norm, config.norm_eps, x_th, d_normed_th, d_x_th);
        Ok(())
    }
}
