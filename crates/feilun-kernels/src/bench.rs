//! Speed of the matrix kernels on this machine, on random weights.

use std::time::{Duration, Instant};

use crate::gemm::{GemmScratch, Matrix, Output, Precision, Write, gemm};
use crate::matmul::{Epilogue, Job, Numerics, multiply};
use crate::memory::{Arena, OutOfMemory};
use crate::rows::RowTiles;
use crate::{AlignedBytes, BlockType, Isa, PackedMatrix, Pool};

/// What a measurement of one shape found.
#[derive(Clone, Copy, Debug)]
pub struct MatmulRate {
    /// Multiplications and additions, in 10⁹ a second.
    pub gops: f64,
    /// Bytes of packed weights read, in 10⁹ a second.
    pub gigabytes: f64,
    /// Time of one product.
    pub seconds: f64,
}

/// Multiplies `num_rows` rows with matrices of `n` outputs and `k` inputs, over and over for
/// about `seconds`, going through enough copies of the matrix that none stays in a cache of
/// `cold_bytes`.
///
/// # Errors
/// When the memory is not there.
pub fn matmul_rate(
    pool: &mut Pool,
    isa: Isa,
    block_type: BlockType,
    (num_rows, n, k): (usize, usize, usize),
    cold_bytes: usize,
    seconds: f64,
) -> Result<MatmulRate, OutOfMemory> {
    let row_bytes = block_type.row_bytes(k).unwrap_or(0);
    // Zero weights with zero scales: the kernels take the same time whatever the values.
    let stored = vec![0; row_bytes * n];
    let num_copies = (cold_bytes / stored.len().max(1)).clamp(1, 200);
    let mut copies = Vec::new();
    let mut arena = Arena::default();
    for _ in 0..num_copies {
        let packed = PackedMatrix::pack_in(&mut arena, pool, block_type, n, k, &stored, |row| row);
        copies.push(packed.map_err(|_| OutOfMemory { bytes: stored.len() })?);
    }
    let numerics = Numerics::Native;
    let mut rows = RowTiles::new(num_rows, k)?;
    let forms = numerics.forms(&copies[0]);
    rows.fill(pool, isa, forms, num_rows, k, |i, out| {
        for (col, out) in out.iter_mut().enumerate() {
            *out = ((i + col) % 17) as f32 - 8.0;
        }
    });
    let mut out = vec![0.0; num_rows * n];
    let mut product = |weights: &PackedMatrix| {
        let epilogue = Epilogue::Store;
        multiply(
            pool,
            isa,
            numerics,
            &rows,
            &mut [Job { weights, bias: None, epilogue, out: &mut out }],
        );
    };
    copies.iter().for_each(&mut product);
    let start = Instant::now();
    let mut count = 0;
    while count < copies.len() || start.elapsed().as_secs_f64() < seconds {
        copies.iter().for_each(&mut product);
        count += copies.len();
    }
    let seconds = start.elapsed().as_secs_f64() / count as f64;
    let operations = 2.0 * (num_rows * n * k) as f64;
    Ok(MatmulRate {
        gops: operations / seconds / 1e9,
        gigabytes: copies[0].bytes() as f64 / seconds / 1e9,
        seconds,
    })
}

/// A product of a training step.
#[derive(Clone, Copy, Debug)]
pub struct GemmCase {
    /// Rows and columns of the result, and what is summed over.
    pub shape: (usize, usize, usize),
    /// Whether the operands are given the other way round.
    pub transposed: (bool, bool),
    /// What becomes of the result.
    pub write: Write,
}

impl GemmCase {
    /// The products of a linear layer of `(outputs, inputs)` with `rows` rows: forward, gradient
    /// of its input, gradient of its weights.
    pub fn layer(rows: usize, (outputs, inputs): (usize, usize)) -> [GemmCase; 3] {
        let case = |shape, transposed, write| GemmCase { shape, transposed, write };
        [
            case((rows, outputs, inputs), (false, true), Write::Store),
            case((rows, inputs, outputs), (false, false), Write::Store),
            case((outputs, inputs, rows), (true, false), Write::Add),
        ]
    }

    /// The products of a training step of SmolLM2-135M with `rows` rows (and as many of the head
    /// at a time as `head_rows`), with a LoRA adapter of rank 16, by name.
    pub fn training(rows: usize, head_rows: usize) -> Vec<(String, GemmCase)> {
        let layers = [
            ("q, o", rows, (576, 576)),
            ("gate, up", rows, (1536, 576)),
            ("down", rows, (576, 1536)),
            ("head", head_rows, (49152, 576)),
            ("LoRA A", rows, (16, 576)),
            ("LoRA B", rows, (576, 16)),
        ];
        let mut cases = Vec::new();
        for (name, rows, layer) in layers {
            let kinds = ["y = x wT", "dx = dy w", "dw += dyT x"];
            for (kind, case) in kinds.into_iter().zip(GemmCase::layer(rows, layer)) {
                cases.push((format!("{name}: {kind}"), case));
            }
        }
        cases
    }
}

/// 10⁹ multiplications and additions a second of a product, the best of those that fit into
/// `seconds`. Operands are f32.
///
/// # Errors
/// When the memory is not there.
pub fn gemm_rate(
    pool: &mut Pool,
    isa: Isa,
    precision: Precision,
    case: GemmCase,
    seconds: f64,
) -> Result<f64, OutOfMemory> {
    let (m, n, k) = case.shape;
    // In huge pages, as the memory of a training step is.
    let mut a = AlignedBytes::zeroed(4 * m * k)?;
    let mut b = AlignedBytes::zeroed(4 * k * n)?;
    let mut c = AlignedBytes::zeroed(4 * m * n)?;
    for values in [&mut a, &mut b] {
        values.as_f32_mut().iter_mut().enumerate().for_each(|(i, value)| *value = (i % 17) as f32);
    }
    let stored = |(rows, cols), transposed| if transposed { (cols, rows) } else { (rows, cols) };
    let (a_rows, a_cols) = stored((m, k), case.transposed.0);
    let (b_rows, b_cols) = stored((k, n), case.transposed.1);
    let mut scratch = GemmScratch::new();
    let mut product = || {
        let left = Matrix::new(a.as_f32(), a_rows, a_cols);
        let right = Matrix::new(b.as_f32(), b_rows, b_cols);
        let left = if case.transposed.0 { left.transposed() } else { left };
        let right = if case.transposed.1 { right.transposed() } else { right };
        let out = Output::F32(c.as_f32_mut());
        let start = Instant::now();
        gemm(pool, isa, precision, &mut scratch, left, right, out, case.write);
        start.elapsed().as_secs_f64()
    };
    product();
    let start = Instant::now();
    let mut best = product();
    while start.elapsed().as_secs_f64() < seconds {
        best = best.min(product());
    }
    Ok(2.0 * (m * n * k) as f64 / best / 1e9)
}

/// Operations per second of one thread that the instructions of [`gemm`] reach at best on a
/// path; `None` where it has no vector instructions that we measure.
pub fn gemm_peak(isa: Isa, precision: Precision, duration: Duration) -> Option<f64> {
    let rates = crate::machine::measure_peak_rates(isa, duration)?;
    let bf16 = rates.bf16_dot.map_or(rates.f32_fma, |rate| rate.max(rates.f32_fma));
    Some(if precision == Precision::F32 { rates.f32_fma } else { bf16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_of_a_layer_is_measured() {
        let mut pool = Pool::new(1).unwrap();
        for case in GemmCase::layer(5, (3, 7)) {
            let (m, n, k) = case.shape;
            assert_eq!(m * n * k, 105);
            let rate = gemm_rate(&mut pool, Isa::best(), Precision::Bf16, case, 0.0).unwrap();
            assert!(rate > 0.0, "{case:?}");
        }
    }
}
