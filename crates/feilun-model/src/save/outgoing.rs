//! One tensor on its way from a source to a file: reordered, encoded by blocks, checked.

use std::fmt;
use std::io::Write;

use feilun_kernels::quantize::quantize_row;
use feilun_kernels::{BlockType, Pool};

use super::atomic::WriteError;
use super::error::SaveError;
use super::source::WeightSource;
use super::storage::Storage;
use crate::config::ModelConfig;
use crate::tensor::{RowOrder, TensorRole};
use crate::tensor_names::{self, Naming, Shape};

/// Weights that are in memory at a time: 4 MiB as f32.
const CHUNK_WEIGHTS: usize = 1 << 20;
/// Rows that a thread takes at a time.
const GRAIN: usize = 4;
/// The largest f16: the type itself and the scales of blocks can hold no more.
const MAX_HALF: f32 = 65_504.0;

/// What writing needs besides the weights.
pub struct Job<'a> {
    /// Threads that encode.
    pub pool: &'a mut Pool,
    /// Hears how many bytes of weights are written, and of how many.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("num_threads", &self.pool.num_threads()).finish()
    }
}

/// A tensor as it will be in the file.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) name: String,
    pub(super) block_type: BlockType,
    role: TensorRole,
    shape: Shape,
    /// The order of the file's rows.
    row_order: RowOrder,
    /// Taken from every weight before it is stored.
    offset: f32,
}

impl Outgoing {
    /// All tensors of a model, in the order of the computation.
    pub(super) fn all(config: &ModelConfig, naming: Naming, storage: Storage) -> Vec<Outgoing> {
        let outgoing = |needed: tensor_names::Needed| {
            let (row_order, offset) = tensor_names::storage(naming, needed.kind, config);
            Outgoing {
                name: tensor_names::name(naming, config.architecture, needed.role),
                block_type: storage.of(needed.role, needed.shape),
                role: needed.role,
                shape: needed.shape,
                row_order,
                offset,
            }
        };
        tensor_names::needed(config).into_iter().map(outgoing).collect()
    }

    /// Outermost first.
    pub(super) fn dims(&self) -> Vec<usize> {
        match self.shape {
            Shape::Vector(len) => vec![len],
            Shape::Matrix(rows, cols) => vec![rows, cols],
        }
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.rows_and_cols().0 * self.row_bytes()
    }

    /// A vector is one row.
    fn rows_and_cols(&self) -> (usize, usize) {
        match self.shape {
            Shape::Vector(len) => (1, len),
            Shape::Matrix(rows, cols) => (rows, cols),
        }
    }

    fn row_bytes(&self) -> usize {
        // The storage was chosen so that rows are whole blocks.
        self.block_type.row_bytes(self.rows_and_cols().1).unwrap_or(0)
    }

    /// The canonical row (of a vector: the element) that lies at `stored` in the file.
    fn canonical(&self, stored: usize) -> usize {
        match self.row_order {
            RowOrder::Canonical => stored,
            RowOrder::InterleavedPairs { head_dim } => {
                let (head, at) = (stored / head_dim, stored % head_dim);
                head * head_dim + at % 2 * (head_dim / 2) + at / 2
            }
        }
    }

    fn read_row(&self, source: &dyn WeightSource, stored: usize, out: &mut [f32]) {
        match self.shape {
            Shape::Matrix(..) => source.row(self.role, self.canonical(stored), out),
            Shape::Vector(_) => {
                source.row(self.role, 0, out);
                if self.row_order != RowOrder::Canonical {
                    let canonical = out.to_vec();
                    for (i, value) in out.iter_mut().enumerate() {
                        *value = canonical[self.canonical(i)];
                    }
                }
            }
        }
        if self.offset != 0.0 {
            out.iter_mut().for_each(|value| *value -= self.offset);
        }
    }

    /// Whether the storage can hold the values; `first` is the index of the first of them.
    fn check(&self, first: usize, values: &[f32]) -> Result<(), SaveError> {
        let max = match self.block_type {
            BlockType::F32 | BlockType::Bf16 => f32::MAX,
            _ => MAX_HALF,
        };
        let is_bad = |value: &f32| value.is_nan() || value.abs() > max;
        let Some(at) = values.iter().position(is_bad) else { return Ok(()) };
        let (name, index, value) = (self.name.clone(), first + at, values[at]);
        match value.is_finite() {
            true => Err(SaveError::TooLarge { name, index, value, block_type: self.block_type }),
            false => Err(SaveError::NotFinite { name, index, value }),
        }
    }
}

/// Writes tensors one after another; keeps its buffers and the count of bytes.
pub(super) struct Encoder<'a, 'b> {
    source: &'a dyn WeightSource,
    job: &'a mut Job<'b>,
    total_bytes: u64,
    done_bytes: u64,
    floats: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'a, 'b> Encoder<'a, 'b> {
    pub(super) fn new(
        source: &'a dyn WeightSource,
        job: &'a mut Job<'b>,
        tensors: &[Outgoing],
    ) -> Encoder<'a, 'b> {
        let total_bytes = tensors.iter().map(|tensor| tensor.num_bytes() as u64).sum();
        Encoder { source, job, total_bytes, done_bytes: 0, floats: Vec::new(), bytes: Vec::new() }
    }

    pub(super) fn write(
        &mut self,
        tensor: &Outgoing,
        out: &mut dyn Write,
    ) -> Result<(), WriteError> {
        let (num_rows, cols) = tensor.rows_and_cols();
        let row_bytes = tensor.row_bytes();
        let chunk_rows = (CHUNK_WEIGHTS / cols).max(1);
        for first in (0..num_rows).step_by(chunk_rows) {
            let rows = chunk_rows.min(num_rows - first);
            self.floats.resize(rows * cols, 0.0);
            self.bytes.resize(rows * row_bytes, 0);
            let (source, pool) = (self.source, &mut *self.job.pool);
            pool.for_each_chunk(&mut self.floats, cols, GRAIN, |row, out| {
                tensor.read_row(source, first + row, out);
            });
            tensor.check(first * cols, &self.floats)?;
            let floats = &self.floats;
            pool.for_each_chunk(&mut self.bytes, row_bytes, GRAIN, |row, out| {
                quantize_row(tensor.block_type, &floats[row * cols..][..cols], out);
            });
            out.write_all(&self.bytes)?;
            self.done_bytes += self.bytes.len() as u64;
            (self.job.progress)(self.done_bytes, self.total_bytes);
        }
        Ok(())
    }
}
