//! What the forward pass keeps for the backward pass, in the precision of the matrix work.

use feilun_kernels::attention::packed::HeadValues;
use feilun_kernels::gemm::{Matrix, Precision, Values};
use feilun_kernels::memory::OutOfMemory;
use feilun_kernels::{AlignedBytes, convert};
use half::bf16;

use super::compute::Compute;

/// A buffer of activations, as f32 or as bf16.
#[derive(Debug)]
pub(super) struct Saved {
    bytes: AlignedBytes,
    precision: Precision,
    len: usize,
}

/// Values that a thread converts at a time.
const PART: usize = 4096;

impl Saved {
    pub(super) fn new(max_len: usize, precision: Precision) -> Result<Saved, OutOfMemory> {
        let bytes = AlignedBytes::zeroed(max_len * value_bytes(precision))?;
        Ok(Saved { bytes, precision, len: 0 })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps the values, and rounds them in place to what was kept: the rest of the forward
    /// pass sees what the backward pass will see.
    pub(super) fn save(&mut self, compute: &mut Compute, values: &mut [f32]) {
        let isa = compute.isa;
        if let Some(kept) = self.keep_f32(values) {
            let whole = values.len() / PART * PART;
            let round = |values: &mut [f32], kept: &mut [bf16]| {
                convert::to_bf16(isa, values, kept);
                convert::from_bf16(isa, kept, values);
            };
            let (values, rest) = values.split_at_mut(whole);
            let (kept, rest_kept) = kept.split_at_mut(whole);
            compute.pool.for_each_chunk_pair((values, PART), (kept, PART), 1, |_, a, b| {
                round(a, b);
            });
            round(rest, rest_kept);
        }
    }

    /// Keeps the values and leaves them as they are: for the residual stream, whose roundings
    /// would add up from layer to layer.
    pub(super) fn keep(&mut self, compute: &mut Compute, values: &[f32]) {
        let isa = compute.isa;
        if let Some(kept) = self.keep_f32(values) {
            let whole = values.len() / PART * PART;
            let (kept, rest_kept) = kept.split_at_mut(whole);
            compute.pool.for_each_chunk(kept, PART, 1, |index, kept| {
                convert::to_bf16(isa, &values[index * PART..][..PART], kept);
            });
            convert::to_bf16(isa, &values[whole..], rest_kept);
        }
    }

    /// Notes the length, and keeps the values if that is a matter of copying them; else says
    /// where they are to go.
    fn keep_f32(&mut self, values: &[f32]) -> Option<&mut [bf16]> {
        self.len = values.len();
        let bytes = &mut self.bytes[..values.len() * value_bytes(self.precision)];
        match self.precision {
            Precision::F32 => {
                bytemuck::cast_slice_mut(bytes).copy_from_slice(values);
                None
            }
            Precision::Bf16 => Some(bytemuck::cast_slice_mut(bytes)),
        }
    }

    /// Writes the values that were kept.
    pub(super) fn restore(&self, compute: &mut Compute, out: &mut [f32]) {
        let isa = compute.isa;
        match self.values() {
            Values::F32(values) => out.copy_from_slice(values),
            Values::Bf16(values) => {
                let (whole, rest) = out.split_at_mut(values.len() / PART * PART);
                let rest_values = &values[whole.len()..];
                compute.pool.for_each_chunk(whole, PART, 1, |index, out| {
                    convert::from_bf16(isa, &values[index * PART..][..PART], out);
                });
                convert::from_bf16(isa, rest_values, rest);
            }
        }
    }

    /// The kept values as rows of `cols` columns.
    pub(super) fn matrix(&self, cols: usize) -> Matrix<'_> {
        Matrix::new(self.values(), self.len / cols, cols)
    }

    /// The kept values as attention takes them.
    pub(super) fn heads(&self) -> HeadValues<'_> {
        match self.values() {
            Values::F32(values) => HeadValues::F32(values),
            Values::Bf16(values) => HeadValues::Bf16(values),
        }
    }

    fn values(&self) -> Values<'_> {
        let bytes = &self.bytes[..self.len * value_bytes(self.precision)];
        match self.precision {
            Precision::F32 => Values::F32(bytemuck::cast_slice(bytes)),
            Precision::Bf16 => Values::Bf16(bytemuck::cast_slice(bytes)),
        }
    }
}

fn value_bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    }
}
