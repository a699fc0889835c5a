//! Speed of the matrix kernels on this machine, on random weights.

use std::time::Instant;

use crate::matmul::{Epilogue, Job, Numerics, multiply};
use crate::memory::{Arena, OutOfMemory};
use crate::rows::RowTiles;
use crate::{BlockType, Isa, PackedMatrix, Pool};

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
