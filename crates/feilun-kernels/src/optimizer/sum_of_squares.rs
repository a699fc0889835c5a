//! The square of a gradient's length.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::vector::{LANES, Simd, load_partial, simd_fns};
use crate::{Isa, Pool};

/// Most parts of a sum: a bound on the memory for their results.
const PARTS_MAX: usize = 1024;
/// Fewest values of a part, so that small sums are not cut up.
const PART_LEN_MIN: usize = 1 << 14;
/// Squares that are added in f32 before the sum goes on in f64.
const RUN_LEN: usize = 1024;
/// Independent chains of additions, enough to hide their latency.
const NUM_SUMS: usize = 4;

/// The sum of all squares. It is not a number, or infinite, if one of the values is; also if a
/// square is too large for f32 (above 1.8e19 squared).
///
/// ```
/// use feilun_kernels::{Isa, Pool, optimizer};
/// let sum = optimizer::sum_of_squares(&mut Pool::new(1)?, Isa::best(), &[3.0, 4.0]);
/// assert_eq!(sum, 25.0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn sum_of_squares(pool: &mut Pool, isa: Isa, values: &[f32]) -> f64 {
    let part_len = values.len().div_ceil(PARTS_MAX).next_multiple_of(RUN_LEN).max(PART_LEN_MIN);
    let sums = [const { AtomicU64::new(0) }; PARTS_MAX];
    let num_parts = values.len().div_ceil(part_len);
    pool.for_each_range(num_parts, 1, |range| {
        for index in range {
            let part = &values[index * part_len..values.len().min((index + 1) * part_len)];
            sums[index].store(part_sum(isa, part).to_bits(), Ordering::Relaxed);
        }
    });
    sums[..num_parts].iter().map(|sum| f64::from_bits(sum.load(Ordering::Relaxed))).sum()
}

simd_fns! {
    fn part_sum(values: &[f32]) -> f64 = part_sum_kernel;
}

#[inline(always)]
fn part_sum_kernel<S: Simd>(simd: S, values: &[f32]) -> f64 {
    let mut total = 0.0;
    for run in values.chunks(RUN_LEN) {
        let mut sums = [simd.splat(0.0); NUM_SUMS];
        let (groups, rest) = run.as_chunks::<{ NUM_SUMS * LANES }>();
        for group in groups {
            for (sum, chunk) in sums.iter_mut().zip(group.as_chunks::<LANES>().0) {
                let value = simd.load_array(chunk);
                *sum = simd.fma(value, value, *sum);
            }
        }
        for (sum, chunk) in sums.iter_mut().zip(rest.chunks(LANES)) {
            let value = load_partial(simd, chunk, 0.0);
            *sum = simd.fma(value, value, *sum);
        }
        let sum = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
        total += f64::from(simd.reduce_add(sum));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::test_rows::{LENGTHS, values};

    /// Lengths of one part and of several, and one for which parts are longer than the least.
    fn lengths() -> Vec<usize> {
        let long = [PART_LEN_MIN - 1, PART_LEN_MIN, 3 * PART_LEN_MIN + 17];
        let longest = PARTS_MAX * PART_LEN_MIN + 1;
        [0].into_iter().chain(LENGTHS).chain(long).chain([longest]).collect()
    }

    #[test]
    fn agrees_with_f64_on_every_path_and_number_of_threads() {
        for len in lengths() {
            let row = values(len, 1, 3.0);
            let expected: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
            let first = sum_of_squares(&mut Pool::new(1).unwrap(), Isa::best(), &row);
            assert!((first - expected).abs() <= 1e-6 * expected, "{len}: {first} {expected}");
            for isa in Isa::available() {
                for num_threads in [1, 2] {
                    let mut pool = Pool::new(num_threads).unwrap();
                    let found = sum_of_squares(&mut pool, isa, &row);
                    assert_eq!(found.to_bits(), first.to_bits(), "{isa:?} {len}");
                }
            }
        }
    }

    #[test]
    fn one_bad_value_shows() {
        let mut pool = Pool::new(2).unwrap();
        for isa in Isa::available() {
            for at in [0, 1000, 99_999] {
                let mut row = values(100_000, 1, 1.0);
                row[at] = f32::NAN;
                assert!(sum_of_squares(&mut pool, isa, &row).is_nan());
                row[at] = f32::NEG_INFINITY;
                assert_eq!(sum_of_squares(&mut pool, isa, &row), f64::INFINITY);
            }
        }
    }
}
