//! What every step of training computes with: threads, an instruction path, a precision.

use feilun_kernels::gemm::{GemmScratch, Matrix, Output, Precision, Write, gemm};
use feilun_kernels::{Isa, Pool, norm};

/// Rows whose share of a weight's gradient is summed by one thread, in order; the shares are
/// then summed in order too, so the number of threads changes nothing.
const SHARE_ROWS: usize = 64;

#[derive(Debug)]
pub(super) struct Compute {
    pub(super) pool: Pool,
    pub(super) isa: Isa,
    pub(super) precision: Precision,
    gemm: GemmScratch,
    shares: Vec<f32>,
}

impl Compute {
    pub(super) fn new(pool: Pool, isa: Isa, precision: Precision) -> Compute {
        Compute { pool, isa, precision, gemm: GemmScratch::default(), shares: Vec::new() }
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
        let (isa, width) = (self.isa, weight.len());
        let share_len = SHARE_ROWS * width;
        let num_shares = d_x.len().div_ceil(share_len);
        self.shares.clear();
        self.shares.resize(num_shares * width, 0.0);
        let whole = d_x.len() / share_len * share_len;
        let body = |share: usize, d_x: &mut [f32], d_weight: &mut [f32]| {
            for (row, d_x) in d_x.chunks_exact_mut(width).enumerate() {
                let at = share * share_len + row * width;
                let (x, d_out) = (&x[at..][..width], &d_out[at..][..width]);
                norm::rms_norm_backward(isa, x, weight, eps, d_out, d_x, d_weight);
            }
        };
        let (d_x, rest) = d_x.split_at_mut(whole);
        let (shares, rest_share) = self.shares.split_at_mut(whole / SHARE_ROWS);
        if !d_x.is_empty() {
            self.pool.for_each_chunk_pair((d_x, share_len), (shares, width), 1, body);
        }
        if !rest.is_empty() {
            body(num_shares - 1, rest, rest_share);
        }
        if let Some(d_weight) = d_weight {
            for share in self.shares.chunks_exact(width) {
                d_weight.iter_mut().zip(share).for_each(|(sum, share)| *sum += share);
            }
        }
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
