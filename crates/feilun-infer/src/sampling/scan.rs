//! Passes over one row of logits, which may be 262,144 wide.
//!
//! The passes are `feilun_kernels::softmax`'s, or loops that the compiler vectorises; sums have
//! a fixed order, so that a row gives the same token on every machine.

use std::cmp::Ordering;

use feilun_kernels::{Isa, softmax};

/// Elements that are added up together in f32, before the sums are added in f64.
const BLOCK: usize = 1024;
/// Independent accumulators per block.
const LANES: usize = 16;
/// Bins of [`nucleus_end`] per unit of scaled logit, and in all; the last holds everything from
/// 16 units (a factor of 10^-7) below the maximum on.
const BINS_PER_UNIT: f32 = 64.0;
const NUM_BINS: usize = 1024;

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
/// `f32::exp`, which is another function on each platform.
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

/// `exp((x - max) / temperature)`: how likely a token is, compared with the likeliest.
pub fn weight(x: f32, max: f32, temperature: f32) -> f64 {
    f64::from(exp_nonpositive((x - max) / temperature))
}

/// `ln Σ exp(x)`; f64 sums of f32 terms, 1,024 at a time.
///
/// ```
/// use feilun_infer::sampling::scan::log_sum_exp;
/// let found = log_sum_exp(&[1000.0, 1000.0]);
/// assert!((found - (1000.0 + 2f32.ln())).abs() < 1e-3);
/// ```
pub fn log_sum_exp(row: &[f32]) -> f32 {
    softmax::log_sum_exp(Isa::best(), row)
}

/// Writes the softmax of `row / temperature`, whose maximum is `max`.
pub fn probabilities(row: &[f32], max: f32, temperature: f32, found: &mut Vec<f32>) {
    let inverse = 1.0 / temperature;
    found.clear();
    // The maximum goes first: small temperatures would carry large logits to infinity.
    found.extend(row.iter().map(|x| (x - max) * inverse));
    softmax::softmax(Isa::best(), found);
}

/// Sum of a block of at most [`BLOCK`] values.
fn block_sum(block: &[f32]) -> f64 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += chunk[lane];
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x;
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// The token at which the running sum of the probabilities, in order of ids, first exceeds `u`
/// times their sum, for `u` in `[0, 1)`. `None` if all are zero.
pub fn token_at(probabilities: &[f32], u: f64, sums: &mut Vec<f64>) -> Option<u32> {
    sums.clear();
    sums.extend(probabilities.chunks(BLOCK).map(block_sum));
    let mut target = u * sums.iter().sum::<f64>();
    // Rounding may carry the target past the end: then it is the last token of any weight.
    let mut last = None;
    for (index, (block, &sum)) in probabilities.chunks(BLOCK).zip(sums.iter()).enumerate() {
        if target >= sum && index + 1 < sums.len() {
            target -= sum;
            continue;
        }
        for (offset, &p) in block.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            last = u32::try_from(index * BLOCK + offset).ok();
            target -= f64::from(p);
            if target < 0.0 {
                return last;
            }
        }
        target = target.max(0.0);
    }
    last.or_else(|| argmax(probabilities).map(|best| best.token))
}

/// The tokens whose logit is at least `threshold` (and not -∞), in order of ids.
pub fn at_least(row: &[f32], threshold: f32, scratch: &mut Vec<u32>, found: &mut Vec<Candidate>) {
    // The least finite number, so that -∞ is never among them.
    let threshold = threshold.max(f32::MIN);
    scratch.clear();
    softmax::collect_at_least(Isa::best(), row, threshold, scratch);
    take(row, scratch, found);
}

/// The `count` likeliest tokens (fewer, if others are -∞), likeliest first.
pub fn top(
    row: &[f32],
    count: usize,
    maxima: &mut Vec<f32>,
    scratch: &mut Vec<u32>,
    found: &mut Vec<Candidate>,
) {
    softmax::top_k(Isa::best(), row, count, maxima, scratch);
    take(row, scratch, found);
    found.retain(|c| c.logit > f32::NEG_INFINITY);
}

fn take(row: &[f32], tokens: &[u32], found: &mut Vec<Candidate>) {
    found.clear();
    found.extend(tokens.iter().map(|&token| Candidate { token, logit: row[token as usize] }));
}

/// The least likely token of the smallest set of likeliest tokens whose probabilities reach
/// `needed`.
///
/// A histogram by logit finds the bin in which the sum is reached; only that bin is looked at
/// in detail. Selecting among all tokens took ten times as long on flat distributions.
pub fn nucleus_end(
    row: &[f32],
    max: f32,
    temperature: f32,
    probabilities: &[f32],
    mut needed: f64,
    found: &mut Vec<Candidate>,
) -> Option<Candidate> {
    let factor = BINS_PER_UNIT / temperature;
    // Rising in max - x, like the order of tokens, so that bins are ranges of that order. A cast
    // of what is too large, or +∞, gives the largest number.
    let bin = |x: f32| (((max - x) * factor) as u32 as usize).min(NUM_BINS - 1);
    let mut sums = vec![0f64; NUM_BINS];
    for (&x, &p) in row.iter().zip(probabilities) {
        sums[bin(x)] += f64::from(p);
    }
    let last_used = sums.iter().rposition(|&sum| sum > 0.0)?;
    let mut reached = 0;
    while reached < last_used && sums[reached] < needed {
        needed -= sums[reached];
        reached += 1;
    }
    found.clear();
    for (token, &logit) in (0..).zip(row) {
        if bin(logit) == reached && logit > f32::NEG_INFINITY {
            found.push(Candidate { token, logit });
        }
    }
    let weight = |c: &Candidate| f64::from(probabilities[c.token as usize]);
    select_end(found, needed, weight)
}

/// Sets the probabilities of tokens that are less likely than `end`, or whose logit is below
/// `least`, to zero; that of the likeliest stays.
pub fn cut(row: &[f32], end: Candidate, least: f32, probabilities: &mut [f32]) {
    // As long as `end` is above `least` (or is the likeliest), the two bounds are one.
    let (bound, last_of_equals) =
        if least > end.logit { (least, u32::MAX) } else { (end.logit, end.token) };
    let best = argmax(row);
    for (token, (x, p)) in (0u32..).zip(row.iter().zip(probabilities.iter_mut())) {
        let keeps = (*x > bound) | ((*x == bound) & (token <= last_of_equals));
        *p = if keeps { *p } else { 0.0 };
    }
    // Rounding may put the bound of min-p = 1 just above the maximum.
    if let Some(best) = best.filter(|best| best.logit < bound) {
        probabilities[best.token as usize] = 1.0;
    }
}

/// How many of the sorted candidates are needed until their weights reach `needed`; at least one.
pub fn nucleus_len(sorted: &[Candidate], needed: f64, weight: impl Fn(&Candidate) -> f64) -> usize {
    let mut reached = 0.0;
    for (index, candidate) in sorted.iter().enumerate() {
        reached += weight(candidate);
        if reached >= needed {
            return index + 1;
        }
    }
    sorted.len().max(1)
}

/// The last candidate, in order of likelihood, that is needed to reach `needed`: a quickselect
/// by weight.
fn select_end(
    candidates: &mut [Candidate],
    mut needed: f64,
    weight: impl Fn(&Candidate) -> f64,
) -> Option<Candidate> {
    let mut rest = candidates;
    while rest.len() > 64 {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half, likelier);
        let (likelier, others) = rest.split_at_mut(half);
        let reached: f64 = likelier.iter().map(&weight).sum();
        if reached >= needed {
            rest = likelier;
        } else {
            needed -= reached;
            rest = others;
        }
    }
    rest.sort_unstable_by(likelier);
    rest.get(nucleus_len(rest, needed, weight) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(len: usize, seed: u64) -> Vec<f32> {
        let logit = |i| (super::super::rng::uniform(seed, i as u64) * 40.0 - 20.0) as f32;
        // Rounded to eighths, so that there are many ties; but not to -0, which kernels order
        // before 0.
        (0..len).map(|i| (logit(i) * 8.0).round() / 8.0 + 0.0).collect()
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
            let (mut maxima, mut scratch, mut found) = (Vec::new(), Vec::new(), Vec::new());
            for count in [0, 1, 2, 40, 257, 4000, 100_000] {
                top(&row, count, &mut maxima, &mut scratch, &mut found);
                assert_eq!(found, expected[..count.min(expected.len())], "top {count} of {len}");
            }
            at_least(&row, f32::NEG_INFINITY, &mut scratch, &mut found);
            assert_eq!(found.len(), expected.len(), "all of {len}");
            at_least(&row, 3.0, &mut scratch, &mut found);
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
            let expected = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            assert!((f64::from(log_sum_exp(&row)) - expected).abs() < 2e-6, "{len}");
        }
    }

    #[test]
    fn every_token_is_reached_by_its_share_of_targets() {
        let row = row(3000, 5);
        let max = argmax(&row).unwrap().logit;
        let (mut shares, mut sums) = (Vec::new(), Vec::new());
        probabilities(&row, max, 2.0, &mut shares);
        let sum: f64 = shares.iter().map(|&p| f64::from(p)).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        let mut before = 0.0;
        for (token, &share) in shares.iter().enumerate() {
            let share = f64::from(share);
            // A block's sum is rounded in f32, so the middle of a tiny share may be missed.
            if share > 1e-4 {
                let middle = token_at(&shares, (before + share / 2.0) / sum, &mut sums);
                assert_eq!(middle, Some(token as u32));
            }
            before += share;
        }
        assert!(token_at(&shares, 1.0 - 1e-16, &mut sums).is_some());
    }
}
