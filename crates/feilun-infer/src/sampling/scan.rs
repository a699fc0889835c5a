//! Passes over one row of logits, which may be 262,144 wide: written so that the compiler
//! vectorises them, with fixed orders of summation.

use std::cmp::Ordering;

/// Elements that are looked at together: small enough for the first-level cache, large enough to
/// amortise what is done per block.
const BLOCK: usize = 1024;
/// Independent accumulators per block.
const LANES: usize = 16;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub token: u32,
    /// Its logit.
    pub logit: f32,
}

/// Likelier first, and of equals the lower id first. Total, because rows with NaN are refused
/// before anything is compared.
pub fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// Maximum of a block, and whether it holds a NaN.
fn block_max(block: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [0u32; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            // A comparison rather than f32::max: it compiles to one instruction.
            max[lane] = if x > max[lane] { x } else { max[lane] };
            nan[lane] |= u32::from(x.is_nan());
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        max[lane] = if x > max[lane] { x } else { max[lane] };
        nan[lane] |= u32::from(x.is_nan());
    }
    let any_nan = nan.iter().fold(0, |all, n| all | n) != 0;
    (max.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m }), any_nan)
}

/// The likeliest token; `None` if the row is empty, holds NaN or +∞, or is -∞ throughout.
///
/// ```
/// use feilun_infer::sampling::scan::argmax;
/// assert_eq!(argmax(&[0.0, 2.0, 2.0, 1.0]).map(|best| best.token), Some(1));
/// assert_eq!(argmax(&[0.0, f32::NAN]), None);
/// ```
pub fn argmax(row: &[f32]) -> Option<Candidate> {
    let mut best = (f32::NEG_INFINITY, 0);
    let mut any_nan = false;
    for (index, block) in row.chunks(BLOCK).enumerate() {
        let (max, nan) = block_max(block);
        any_nan |= nan;
        if max > best.0 {
            best = (max, index);
        }
    }
    if any_nan || !best.0.is_finite() {
        return None;
    }
    let start = best.1 * BLOCK;
    let offset = row.get(start..)?.iter().position(|&x| x == best.0)?;
    Some(Candidate { token: u32::try_from(start + offset).ok()?, logit: best.0 })
}

/// e^x for x <= 0, to within 3e-7 of its value; below -87 it is about 1e-38.
///
/// 2^n times a polynomial, after Cody and Waite: x = n ln 2 + r, |r| <= ln 2 / 2. Not
/// `f32::exp`, which the compiler cannot vectorise.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer and leaves it in the low
    // bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with so few bits that n times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // Taylor to the sixth power: the first term left out is below 2e-7 of the value.
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * scale
}

/// `exp((x - max) * inverse_temperature)`: a weight of one token. Every path that draws uses
/// this function, so that they agree to the last bit.
#[inline(always)]
pub fn weight(x: f32, max: f32, inverse_temperature: f32) -> f32 {
    exp_nonpositive((x - max) * inverse_temperature)
}

/// Sum of the weights of a block of at most [`BLOCK`] logits.
fn block_weight(block: &[f32], max: f32, inverse_temperature: f32) -> f64 {
    let mut sums = [0f32; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += weight(chunk[lane], max, inverse_temperature);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        sums[lane] += weight(x, max, inverse_temperature);
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// Sum of the weights of the row. Sums of each block are appended to `block_sums`.
pub fn weight_sum(
    row: &[f32],
    max: f32,
    inverse_temperature: f32,
    block_sums: &mut Vec<f64>,
) -> f64 {
    block_sums.clear();
    block_sums.extend(row.chunks(BLOCK).map(|block| block_weight(block, max, inverse_temperature)));
    block_sums.iter().sum()
}

/// `ln Σ exp(x)`, without overflow; f32 terms, f64 sums of 1,024 terms each.
///
/// ```
/// use feilun_infer::sampling::scan::log_sum_exp;
/// let found = log_sum_exp(&[1000.0, 1000.0], 1000.0);
/// assert!((found - (1000.0 + 2f64.ln())).abs() < 1e-6);
/// ```
pub fn log_sum_exp(row: &[f32], max: f32) -> f64 {
    let sum: f64 = row.chunks(BLOCK).map(|block| block_weight(block, max, 1.0)).sum();
    f64::from(max) + sum.ln()
}

/// The token at which the running sum of the weights, in order of ids, first exceeds `target`.
/// `block_sums` are those of [`weight_sum`].
pub fn token_at(
    row: &[f32],
    max: f32,
    inverse_temperature: f32,
    block_sums: &[f64],
    mut target: f64,
) -> Option<u32> {
    // Rounding may carry the target past the end: then it is the last token that has a weight.
    let mut last = None;
    for (index, (block, &sum)) in row.chunks(BLOCK).zip(block_sums).enumerate() {
        if target >= sum && index + 1 < block_sums.len() {
            target -= sum;
            continue;
        }
        for (offset, &x) in block.iter().enumerate() {
            if x == f32::NEG_INFINITY {
                continue;
            }
            last = u32::try_from(index * BLOCK + offset).ok();
            target -= f64::from(weight(x, max, inverse_temperature));
            if target < 0.0 {
                return last;
            }
        }
        target = target.max(0.0);
    }
    last.or_else(|| argmax(row).map(|best| best.token))
}

/// The tokens whose logit is at least `threshold` (and not -∞), in order of ids.
pub fn at_least(row: &[f32], threshold: f32, found: &mut Vec<Candidate>) {
    found.clear();
    for (index, block) in row.chunks(BLOCK).enumerate() {
        collect(block, index * BLOCK, threshold, found);
    }
}

/// The `count` likeliest tokens (fewer, if others are -∞), likeliest first.
pub fn top(row: &[f32], count: usize, found: &mut Vec<Candidate>) {
    found.clear();
    if count == 0 {
        return;
    }
    // Whenever twice as many as needed have gathered, the lesser half goes, and only logits
    // above the least of the rest matter from there on. Equals come later and so lose.
    let mut threshold = f32::NEG_INFINITY;
    let full = count.saturating_mul(2).max(256);
    for (index, block) in row.chunks(BLOCK).enumerate() {
        collect(block, index * BLOCK, threshold, found);
        if found.len() >= full {
            found.select_nth_unstable_by(count - 1, likelier);
            found.truncate(count);
            threshold = found[count - 1].logit;
        }
    }
    if found.len() > count {
        found.select_nth_unstable_by(count - 1, likelier);
        found.truncate(count);
    }
    found.sort_unstable_by(likelier);
}

/// Appends what is at least `threshold`; most groups are skipped by one vector comparison.
fn collect(block: &[f32], start: usize, threshold: f32, found: &mut Vec<Candidate>) {
    for (index, group) in block.chunks(LANES).enumerate() {
        let any = group.iter().fold(0u32, |any, &x| any | u32::from(x >= threshold));
        if any == 0 {
            continue;
        }
        for (lane, &logit) in group.iter().enumerate() {
            if logit >= threshold && logit > f32::NEG_INFINITY {
                let token = (start + index * LANES + lane) as u32;
                found.push(Candidate { token, logit });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(len: usize, seed: u64) -> Vec<f32> {
        let logit = |i| (super::super::rng::uniform(seed, i as u64) * 40.0 - 20.0) as f32;
        // Rounded to eighths, so that there are many ties.
        (0..len).map(|i| (logit(i) * 8.0).round() / 8.0).collect()
    }

    fn sorted(row: &[f32]) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = (0..)
            .zip(row)
            .map(|(token, &logit)| Candidate { token, logit })
            .filter(|c| c.logit > f32::NEG_INFINITY)
            .collect();
        all.sort_by(likelier);
        all
    }

    #[test]
    fn exponential_is_accurate() {
        for i in 0..200_000 {
            let x = -87.0 * i as f32 / 200_000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        assert!(exp_nonpositive(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp_nonpositive(0.0), 1.0);
    }

    #[test]
    fn scans_agree_with_sorting() {
        for len in [1, 2, 15, 16, 17, 1023, 1024, 1025, 5000, 50_257] {
            let mut row = row(len, len as u64);
            if len > 3 {
                row[len / 2] = f32::NEG_INFINITY;
            }
            let expected = sorted(&row);
            assert_eq!(argmax(&row), Some(expected[0]), "argmax of {len}");
            let mut found = Vec::new();
            for count in [0, 1, 2, 40, 257, 4000, 100_000] {
                top(&row, count, &mut found);
                assert_eq!(found, expected[..count.min(expected.len())], "top {count} of {len}");
            }
            at_least(&row, 3.0, &mut found);
            found.sort_by(likelier);
            let above: Vec<_> = expected.iter().copied().filter(|c| c.logit >= 3.0).collect();
            assert_eq!(found, above, "at least 3 of {len}");
        }
    }

    #[test]
    fn rows_that_are_not_numbers_have_no_maximum() {
        for bad in [f32::NAN, f32::INFINITY] {
            for position in [0, 15, 16, 1024, 2999] {
                let mut row = row(3000, 1);
                row[position] = bad;
                assert_eq!(argmax(&row), None, "{bad} at {position}");
            }
        }
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 20]), None);
    }

    #[test]
    fn log_sum_exp_agrees_with_f64() {
        for len in [1, 7, 16, 1025, 262_144] {
            let row = row(len, 9);
            let max = argmax(&row).unwrap().logit;
            let expected = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&row, max) - expected).abs() < 1e-6, "{len}");
        }
    }

    #[test]
    fn every_token_is_reached_by_its_share_of_targets() {
        let row = row(3000, 5);
        let max = argmax(&row).unwrap().logit;
        let mut block_sums = Vec::new();
        let sum = weight_sum(&row, max, 0.5, &mut block_sums);
        let mut before = 0.0;
        for (token, &x) in row.iter().enumerate() {
            let share = f64::from(weight(x, max, 0.5));
            let middle = token_at(&row, max, 0.5, &block_sums, before + share / 2.0);
            // A block's sum is rounded in f32, so the middle of a tiny share may be missed.
            if share / sum > 1e-4 {
                assert_eq!(middle, Some(token as u32));
            }
            before += share;
        }
        assert!(token_at(&row, max, 0.5, &block_sums, sum * 1.01).is_some());
    }
}
