//! `x += down(act(gate(h)) * up(h))` with `h = norm(x)`, and its gradient.

use feilun_kernels::gemm::Write;
use feilun_kernels::{Isa, activation};

use super::attention_block::Layer;
use super::compute::Compute;
use super::linear::{Step, rows};
use super::saved::Saved;
use super::workspace::{Buffer, Workspace};
use crate::config::Activation;
use crate::{LayerTensor, TensorRole};

/// Values of the gate that a thread computes at a time.
const PART: usize = 1024;

impl Layer<'_> {
    pub(super) fn mlp_forward(&self, step: &mut Step<'_>, space: &mut Workspace) {
        let (config, t) = (self.config, self.positions.len());
        let (h, i) = (t * config.hidden_size, t * config.intermediate_size);
        let saved = &mut space.layers[self.index];
        let x_th = space.x_th.first_mut(h);
        saved.x_mid_th.keep(step.compute, x_th);
        let normed_th = space.normed_th.first_mut(h);
        let (gate_ti, up_ti) = (space.gate_ti.first_mut(i), space.up_ti.first_mut(i));
        self.gate_and_up(step, x_th, normed_th, gate_ti, up_ti);
        if let Some((gate, up)) = &mut saved.gate_up_ti {
            gate.save(step.compute, gate_ti);
            up.save(step.compute, up_ti);
        }
        let gated_ti = space.gated_ti.first_mut(i);
        gated(step.compute, config.activation, gate_ti, up_ti, gated_ti);
        let block_th = space.block_th.first_mut(h);
        let gated = rows(gated_ti, config.intermediate_size);
        step.linear(self.index, LayerTensor::MlpDown, gated, block_th);
        let post_norm = self.role(LayerTensor::PostMlpNorm);
        let saved = saved.blocks_th.as_mut().map(|(_, mlp)| mlp);
        step.add_block(post_norm, config.norm_eps, saved, block_th, normed_th, x_th);
    }

    /// The MLP up to its activation.
    fn gate_and_up(
        &self,
        step: &mut Step<'_>,
        x_th: &[f32],
        normed_th: &mut [f32],
        gate_ti: &mut [f32],
        up_ti: &mut [f32],
    ) {
        step.norm(self.role(LayerTensor::MlpNorm), self.config.norm_eps, x_th, normed_th);
        let normed = rows(normed_th, self.config.hidden_size);
        step.linear(self.index, LayerTensor::MlpGate, normed, gate_ti);
        step.linear(self.index, LayerTensor::MlpUp, normed, up_ti);
    }

    /// Turns `d_x` from the gradient after this block into that before it.
    pub(super) fn mlp_backward(&self, step: &mut Step<'_>, space: &mut Workspace) {
        let (config, t) = (self.config, self.positions.len());
        let (h, i) = (t * config.hidden_size, t * config.intermediate_size);
        let saved = &space.layers[self.index];
        let d_x_th = space.d_x_th.first_mut(h);
        let block = saved.blocks_th.as_ref().map(|(_, mlp)| mlp);
        let post_norm = self.role(LayerTensor::PostMlpNorm);
        let d_block = step.post_norm_backward(
            post_norm,
            config.norm_eps,
            block,
            d_x_th,
            space.block_th.first_mut(h),
            &mut space.d_block_th,
        );

        let x_th = space.x_th.first_mut(h);
        saved.x_mid_th.restore(step.compute, x_th);
        let normed_th = space.normed_th.first_mut(h);
        let (gate_ti, up_ti) = (space.gate_ti.first_mut(i), space.up_ti.first_mut(i));
        match &saved.gate_up_ti {
            Some((gate, up)) => {
                step.norm(self.role(LayerTensor::MlpNorm), config.norm_eps, x_th, normed_th);
                gate.restore(step.compute, gate_ti);
                up.restore(step.compute, up_ti);
            }
            None => self.gate_and_up(step, x_th, normed_th, gate_ti, up_ti),
        }
        let gated_ti = space.gated_ti.first_mut(i);
        gated(step.compute, config.activation, gate_ti, up_ti, gated_ti);
        let d_gated_ti = space.d_gated_ti.first_mut(i);
        let gated = rows(gated_ti, config.intermediate_size);
        let d_input = Some((&mut *d_gated_ti, Write::Store));
        step.linear_backward(self.index, LayerTensor::MlpDown, gated, d_block, d_input);
        gated_backward(step.compute, config.activation, gate_ti, up_ti, d_gated_ti);
        let (d_gate_ti, d_up_ti) = (gate_ti, up_ti);

        let normed = rows(normed_th, config.hidden_size);
        let d_normed_th = space.d_normed_th.first_mut(h);
        let d_input = Some((&mut *d_normed_th, Write::Store));
        step.linear_backward(self.index, LayerTensor::MlpGate, normed, d_gate_ti, d_input);
        let d_input = Some((&mut *d_normed_th, Write::Add));
        step.linear_backward(self.index, LayerTensor::MlpUp, normed, d_up_ti, d_input);
        let mlp_norm = self.role(LayerTensor::MlpNorm);
        step.norm_backward(mlp_norm, config.norm_eps, x_th, d_normed_th, d_x_th);
    }
}

impl Step<'_> {
    /// `x += block`, through the block's post-norm where it has one.
    pub(super) fn add_block(
        &mut self,
        post_norm: TensorRole,
        eps: f32,
        saved: Option<&mut Saved>,
        block_th: &mut [f32],
        normed_th: &mut [f32],
        x_th: &mut [f32],
    ) {
        let block_th = match saved {
            None => &*block_th,
            Some(saved) => {
                saved.save(self.compute, block_th);
                self.norm(post_norm, eps, block_th, normed_th);
                &*normed_th
            }
        };
        let isa = self.compute.isa;
        let width = x_th.len().min(PART);
        let (whole, rest) = x_th.split_at_mut(x_th.len() / width * width);
        let done = whole.len();
        self.compute.rows(whole, width, |part, x| {
            activation::add_assign(isa, x, &block_th[part * width..][..width]);
        });
        activation::add_assign(isa, rest, &block_th[done..]);
    }

    /// The gradient before a block's post-norm: `d_x` itself where there is none.
    pub(super) fn post_norm_backward<'a>(
        &mut self,
        post_norm: TensorRole,
        eps: f32,
        block: Option<&Saved>,
        d_x_th: &'a [f32],
        block_th: &mut [f32],
        d_block_th: &'a mut Buffer,
    ) -> &'a [f32] {
        let Some(block) = block else { return d_x_th };
        let d_block_th = d_block_th.first_mut(d_x_th.len());
        block.restore(self.compute, block_th);
        d_block_th.fill(0.0);
        self.norm_backward(post_norm, eps, block_th, d_x_th, d_block_th);
        d_block_th
    }
}

/// `out = act(gate) * up`.
fn gated(compute: &mut Compute, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let act: fn(Isa, &[f32], &[f32], &mut [f32]) = match activation {
        Activation::Silu => activation::silu_mul,
        Activation::GeluTanh => activation::gelu_tanh_mul,
    };
    let isa = compute.isa;
    let (whole, rest) = out.split_at_mut(out.len() / PART * PART);
    let done = whole.len();
    compute.rows(whole, PART, |part, out| {
        act(isa, &gate[part * PART..][..PART], &up[part * PART..][..PART], out);
    });
    act(isa, &gate[done..], &up[done..], rest);
}

/// Replaces the operands of [`gated`] by their gradients.
fn gated_backward(
    compute: &mut Compute,
    activation: Activation,
    gate: &mut [f32],
    up: &mut [f32],
    d_out: &[f32],
) {
    let backward = match activation {
        Activation::Silu => feilun_kernels::backward::silu_mul,
        Activation::GeluTanh => feilun_kernels::backward::gelu_tanh_mul,
    };
    let isa = compute.isa;
    let whole = gate.len() / PART * PART;
    let (gate, rest_gate) = gate.split_at_mut(whole);
    let (up, rest_up) = up.split_at_mut(whole);
    compute.pool.for_each_chunk_pair((gate, PART), (up, PART), 16, |part, gate, up| {
        backward(isa, gate, up, &d_out[part * PART..][..PART]);
    });
    backward(isa, rest_gate, rest_up, &d_out[whole..]);
}
