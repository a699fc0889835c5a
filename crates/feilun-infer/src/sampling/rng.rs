//! Random numbers without state: a draw is a pure function of a seed and a position.
//!
//! A generator that advances would make a request's result depend on how often it was
//! preempted, forked or recomputed. Here the draw for the n-th generated token is computed from
//! (seed, n) alone.

/// 2^64 divided by the golden ratio, the increment of splitmix64 (Steele, Lea, Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64 (variant 13 of Stafford's mixers): a bijection in which each
/// input bit flips each output bit with probability close to one half.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, 1)`, uniform over multiples of 2^-53.
pub fn uniform(seed: u64, position: u64) -> f64 {
    // The seed is mixed before the position is added, so that the streams of neighbouring seeds
    // are not shifted copies of each other.
    let bits = mix(mix(seed ^ GOLDEN).wrapping_add(position.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// The seed of the `index`-th of several samples of one request; the first keeps the seed.
pub fn fork_seed(seed: u64, index: u64) -> u64 {
    if index == 0 { seed } else { mix(seed.wrapping_add(mix(index))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform() {
        for seed in [0, 1, 42, u64::MAX] {
            let mut bins = [0u32; 64];
            let num_draws = 64_000u64;
            for position in 0..num_draws {
                let u = uniform(seed, position);
                assert!((0.0..1.0).contains(&u));
                bins[(u * 64.0) as usize] += 1;
            }
            let expected = num_draws as f64 / 64.0;
            let chi2: f64 =
                bins.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            // 63 degrees of freedom: 110 is exceeded with probability 2e-4.
            assert!(chi2 < 110.0, "seed {seed}: chi2 {chi2}");
        }
    }

    #[test]
    fn neighbouring_seeds_and_positions_are_uncorrelated() {
        let num = 20_000;
        let correlation = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
            pairs.map(|(a, b)| (a - 0.5) * (b - 0.5)).sum::<f64>() / f64::from(num) * 12.0
        };
        let by_seed =
            correlation(&mut (0..num).map(|i| (uniform(i as u64, 7), uniform(i as u64 + 1, 7))));
        let by_position =
            correlation(&mut (0..num).map(|i| (uniform(3, i as u64), uniform(3, i as u64 + 1))));
        let diagonal =
            correlation(&mut (0..num).map(|i| (uniform(i as u64, 8), uniform(i as u64 + 1, 7))));
        for c in [by_seed, by_position, diagonal] {
            assert!(c.abs() < 4.0 / f64::from(num).sqrt(), "{c}");
        }
    }

    #[test]
    fn the_first_fork_keeps_its_seed() {
        assert_eq!(fork_seed(5, 0), 5);
        assert_ne!(fork_seed(5, 1), fork_seed(5, 2));
    }
}
