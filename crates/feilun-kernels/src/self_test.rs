//! A look at each instruction path before it is trusted: a few products on every storage type,
//! and one of bf16 with bf16, compared with the portable path bit for bit. It takes some
//! milliseconds.
//!
//! Why at all: machines that announce instructions and compute wrongly, or not at all under
//! their hypervisor, exist; so do compilers that drop what a kernel needs. A wrong answer at
//! start is better than wrong answers for a month.

use half::bf16;

use crate::matmul::{Epilogue, Job, Numerics, multiply, multiply_bf16};
use crate::rows::RowTiles;
use crate::{BlockType, Isa, PackedMatrix, Pool};

/// Why a path is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// This machine cannot run it.
    #[error("this machine cannot run the {} path", isa.name())]
    NotAvailable {
        /// The path.
        isa: Isa,
    },
    /// It gives other results than the portable path.
    #[error(
        "the {} path computes {found} where the portable path computes {expected} \
         ({block_type} weights, {num_rows} rows)", isa.name()
    )]
    Differs {
        /// The path.
        isa: Isa,
        /// Storage type of the weights.
        block_type: BlockType,
        /// Rows multiplied together.
        num_rows: usize,
        /// The path's result.
        found: f32,
        /// What it should be.
        expected: f32,
    },
    /// The test could not be carried out.
    #[error("the self-test could not run: {0}")]
    NotRun(String),
}

const OUTPUTS: usize = 17;
const INPUTS: usize = 256;
/// A tile of 16 and one of 8.
const ROWS: usize = 24;

/// Compares a path with the portable one.
///
/// # Errors
/// When they differ, naming where.
pub fn self_test(isa: Isa) -> Result<(), SelfTestError> {
    if !isa.is_available() {
        return Err(SelfTestError::NotAvailable { isa });
    }
    for block_type in BlockType::ALL {
        let weights = some_weights(block_type)?;
        let expected = product(Isa::Portable, &weights, ROWS)?;
        // Tiles of each height that kernels know, and two together.
        for num_rows in [1, 2, 8, 16, ROWS] {
            let found = product(isa, &weights, num_rows)?;
            compare(isa, block_type, num_rows, &found, &expected)?;
        }
        if block_type == BlockType::Bf16 {
            let expected = bf16_product(Isa::Portable)?;
            compare(isa, block_type, ROWS, &bf16_product(isa)?, &expected)?;
        }
    }
    Ok(())
}

/// A row's result is the same in any company, so fewer rows than expected are compared too.
fn compare(
    isa: Isa,
    block_type: BlockType,
    num_rows: usize,
    found: &[f32],
    expected: &[f32],
) -> Result<(), SelfTestError> {
    let differs = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
    match found.iter().zip(expected).find(differs) {
        Some((&found, &expected)) => {
            Err(SelfTestError::Differs { isa, block_type, num_rows, found, expected })
        }
        None => Ok(()),
    }
}

/// The fastest path of this machine that passes its test, and what was wrong with faster ones.
pub fn best_tested() -> (Isa, Vec<SelfTestError>) {
    let mut failures = Vec::new();
    for isa in Isa::available().into_iter().rev() {
        match self_test(isa) {
            Ok(()) => return (isa, failures),
            Err(failure) => failures.push(failure),
        }
    }
    (Isa::Portable, failures)
}

/// Weights from a byte pattern in which every bit moves; scales stay finite because the high
/// bytes of an f16 are kept below the exponent of infinity.
fn some_weights(block_type: BlockType) -> Result<PackedMatrix, SelfTestError> {
    let not_run = |error: &dyn std::fmt::Display| SelfTestError::NotRun(error.to_string());
    let row_bytes = block_type.row_bytes(INPUTS).unwrap_or(0);
    let stored: Vec<u8> = (0..OUTPUTS * row_bytes)
        .map(|i| (i as u32).wrapping_mul(0x9e37_79b1).rotate_left(7) as u8 & 0xbb)
        .collect();
    let mut pool = Pool::new(1).map_err(|error| not_run(&error))?;
    PackedMatrix::pack(&mut pool, block_type, OUTPUTS, INPUTS, &stored, |row| row)
        .map_err(|error| not_run(&error))
}

/// Small whole numbers, whose sums are exact in any order.
fn bf16_product(isa: Isa) -> Result<Vec<f32>, SelfTestError> {
    let not_run = |error: &dyn std::fmt::Display| SelfTestError::NotRun(error.to_string());
    let numbers = |count: usize, factor: usize| -> Vec<bf16> {
        (0..count).map(|i| bf16::from_f32((i * factor % 61) as f32 - 30.0)).collect()
    };
    let stored: Vec<u8> =
        numbers(OUTPUTS * INPUTS, 7).into_iter().flat_map(bf16::to_le_bytes).collect();
    let mut pool = Pool::new(1).map_err(|error| not_run(&error))?;
    let weights =
        PackedMatrix::pack(&mut pool, BlockType::Bf16, OUTPUTS, INPUTS, &stored, |row| row)
            .map_err(|error| not_run(&error))?;
    let mut out = vec![1.0; ROWS * OUTPUTS];
    multiply_bf16(isa, &numbers(ROWS * INPUTS, 11), ROWS, &weights, &mut out);
    Ok(out)
}

fn product(isa: Isa, weights: &PackedMatrix, num_rows: usize) -> Result<Vec<f32>, SelfTestError> {
    let not_run = |error: &dyn std::fmt::Display| SelfTestError::NotRun(error.to_string());
    let mut pool = Pool::new(1).map_err(|error| not_run(&error))?;
    let mut rows = RowTiles::new(num_rows, INPUTS).map_err(|error| not_run(&error))?;
    let numerics = Numerics::Native;
    rows.fill(&mut pool, isa, numerics.forms(weights), num_rows, INPUTS, |row, out| {
        for (col, out) in out.iter_mut().enumerate() {
            *out = ((row * 31 + col * 17) % 61) as f32 / 8.0 - 3.5;
        }
    });
    let mut out = vec![0.0; num_rows * OUTPUTS];
    let job = Job { weights, bias: None, epilogue: Epilogue::Store, out: &mut out };
    multiply(&mut pool, isa, numerics, &rows, &mut [job]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_this_machine_passes() {
        for isa in Isa::available() {
            self_test(isa).unwrap();
        }
        assert_eq!(best_tested().0, Isa::best());
    }

    #[test]
    fn the_results_are_numbers_worth_comparing() {
        for block_type in BlockType::ALL {
            let out = product(Isa::best(), &some_weights(block_type).unwrap(), 2).unwrap();
            let mut distinct: Vec<u32> = out.iter().map(|value| value.to_bits()).collect();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(out.iter().all(|value| value.is_finite()), "{block_type}: {out:?}");
            assert!(distinct.len() > OUTPUTS, "{block_type}: {out:?}");
        }
    }
}
