//! What every step of training computes with: threads, an instruction path, a precision.

use feilun_kernels::attention::packed::PackedScratch;
use feilun_kernels::gemm::{GemmScratch, Matrix, Output, Precision, Write, gemm};
use feilun_kernels::{Isa, Pool, backward, norm};

#[derive(Debug)]
pub(super) struct Compute {
    pub(super) pool: Pool,
    pub(super) isa: Isa,
    pub(super) precision: Precision,
    gemm: GemmScratch,
    pub(super) attention: PackedScratch,
    parts: Vec<f32>,
    /// Takes the gradient of a frozen norm's weight.
    unwanted: Vec<f32>,
}

impl Compute {
    pub(super) fn new(pool: Pool, isa: Isa, precision: Precision) -> Compute {
        let (parts, unwanted) = (Vec::new(), Vec::new());
        let (gemm, attention) = (GemmScratch::default(), PackedScratch::default());
        Compute { pool, isa, precision, gemm, attention, parts, unwanted }
    }

    /// Memory of what was needed so far.
    pub(super) fn bytes(&self) -> usize {
        self.gemm.bytes() + self.attention.bytes() + 4 * (self.parts.len() + self.unwanted.len())
    }

    /// `out = a b` or `out += a b`.
    pub(super) fn multiply(&mut self, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], write: Write) {
        let out = Output::F32(out);
        gemm(&mut self.pool, self.isa, self.precision, &mut self.gemm, a, b, out, write);
    }

    /// `body(row index, row)` for each row.
    pub(super) fn rows(
        &mut self,
        values: &mut [f32],
        width: usize,
        body: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.pool.for_each_chunk(values, width, 16, body);
    }

    /// `out = rms_norm(x)`, row by row.
    pub(super) fn rms_norm(&mut self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let (isa, width) = (self.isa, weight.len());
        self.rows(out, width, |row, out| {
            norm::rms_norm(isa, &x[row * width..][..width], weight, eps, out);
        });
    }

    /// The gradient of [`Compute::rms_norm`]: adds to `d_x`, and to `d_weight` where it is asked
    /// for.
    pub(super) fn rms_norm_backward(
        &mut self,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        d_out: &[f32],
        d_x: &mut [f32],
        d_weight: Option<&mut [f32]>,
    ) {
        let Compute { pool, isa, parts, unwanted, .. } = self;
        let d_weight = d_weight.unwrap_or_else(|| {
            unwanted.resize(weight.len(), 0.0);
            unwanted
        });
        backward::rms_norm_rows(pool, *isa, x, weight, eps, d_out, d_x, d_weight, parts);
    }

    /// Adds to each row the bias.
    pub(super) fn add_bias(&mut self, out: &mut [f32], bias: &[f32]) {
        self.rows(out, bias.len(), |_, out| {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        });
    }

    /// Adds the sum of all rows to `d_bias`, columns split among the threads.
    pub(super) fn bias_backward(&mut self, d_out: &[f32], d_bias: &mut [f32]) {
        let width = d_bias.len();
        let part = 64.min(width);
        let add = |start: usize, d_bias: &mut [f32]| {
            for row in d_out.chunks_exact(width) {
                let row = &row[start..][..d_bias.len()];
                d_bias.iter_mut().zip(row).for_each(|(sum, d_out)| *sum += d_out);
            }
        };
        let (whole, rest) = d_bias.split_at_mut(width / part * part);
        self.pool.for_each_chunk(whole, part, 1, |index, d_bias| add(index * part, d_bias));
        add(width - rest.len(), rest);
    }
}
