//! The order of things as a pure function: a permutation that is computed element by element.

/// A permutation of `0..len` that a key selects: a Feistel network over the next power of four,
/// with values outside the range sent through it again (cycle walking).
///
/// Nothing is stored, so any position of any epoch is found without replaying what came before.
///
/// ```
/// use feilun_train::data::{Permutation, Purpose};
///
/// let order = Permutation::new(5, 42, 0, Purpose::Examples);
/// let mut all: Vec<u64> = (0..5).map(|position| order.get(position)).collect();
/// assert_eq!(order.position(all[3]), 3);
/// all.sort();
/// assert_eq!(all, [0, 1, 2, 3, 4]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; NUM_ROUNDS],
}

/// What a permutation is of, so that two with the same seed do not resemble each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Which example comes when.
    Examples,
    /// Which row of packed examples comes when.
    Rows,
    /// Which answer stands against which prompt in the reference point of KTO.
    Mismatches,
}

/// Four rounds make a permutation that cannot be told from a random one by chosen inputs and
/// outputs (Luby and Rackoff 1988) if the round function is random; small ranges get more.
const NUM_ROUNDS: usize = 8;

impl Permutation {
    /// The permutation for a seed, an epoch and a purpose.
    pub fn new(len: u64, seed: u64, epoch: u64, purpose: Purpose) -> Permutation {
        // Bits for the largest value, split in two halves.
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"feilun data order 1");
        for number in [seed, epoch, purpose as u64, len] {
            hasher.update(&number.to_le_bytes());
        }
        let mut bytes = [0; 8 * NUM_ROUNDS];
        hasher.finalize_xof().fill(&mut bytes);
        let mut keys = [0; NUM_ROUNDS];
        for (key, bytes) in keys.iter_mut().zip(bytes.chunks_exact(8)) {
            *key = bytes.iter().rev().fold(0, |key, &byte| key << 8 | u64::from(byte));
        }
        Permutation { len, half_bits, keys }
    }

    /// What is at a position, which must be below the length.
    pub fn get(&self, position: u64) -> u64 {
        debug_assert!(position < self.len, "position {position} of {}", self.len);
        let mut value = position;
        // The walk ends: it follows a cycle that contains `position` itself.
        loop {
            value = self.forward(value);
            if value < self.len {
                return value;
            }
        }
    }

    /// Where a value is.
    pub fn position(&self, value: u64) -> u64 {
        debug_assert!(value < self.len, "value {value} of {}", self.len);
        let mut position = value;
        loop {
            position = self.backward(position);
            if position < self.len {
                return position;
            }
        }
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.halves(value);
        for &key in &self.keys {
            (left, right) = (right, left ^ self.round(right, key));
        }
        left << self.half_bits | right
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut left, mut right) = self.halves(value);
        for &key in self.keys.iter().rev() {
            (left, right) = (right ^ self.round(left, key), left);
        }
        left << self.half_bits | right
    }

    fn halves(&self, value: u64) -> (u64, u64) {
        (value >> self.half_bits, value & self.mask())
    }

    fn mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }

    /// The finalizer of MurmurHash3, which mixes every bit into every other.
    fn round(&self, half: u64, key: u64) -> u64 {
        let mut x = half ^ key;
        x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (x ^ x >> 33) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_never_changes() {
        // Resuming an old run depends on it.
        let order = Permutation::new(10, 1, 2, Purpose::Examples);
        let found: Vec<u64> = (0..10).map(|i| order.get(i)).collect();
        assert_eq!(found, [1, 2, 5, 8, 9, 3, 4, 0, 7, 6]);
    }

    #[test]
    fn every_value_comes_everywhere_equally_often() {
        for len in [2, 3, 5, 16, 17] {
            let num_seeds = 4000_u64;
            let mut counts = vec![0_u64; (len * len) as usize];
            for seed in 0..num_seeds {
                let order = Permutation::new(len, seed, 0, Purpose::Rows);
                for i in 0..len {
                    counts[(i * len + order.get(i)) as usize] += 1;
                }
            }
            // Six standard deviations of a binomial count.
            let p = 1.0 / len as f64;
            let mean = num_seeds as f64 * p;
            let limit = 6.0 * (mean * (1.0 - p)).sqrt();
            for &count in &counts {
                assert!((count as f64 - mean).abs() < limit, "{len}: {count}, expected {mean}");
            }
        }
    }

    #[test]
    fn all_orders_of_four_things_occur() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..2000 {
            let order = Permutation::new(4, seed, 0, Purpose::Examples);
            seen.insert([0, 1, 2, 3].map(|i| order.get(i)));
        }
        assert_eq!(seen.len(), 24);
    }

    #[test]
    fn seeds_epochs_and_purposes_give_other_orders() {
        let list = |seed, epoch, purpose| -> Vec<u64> {
            let order = Permutation::new(1000, seed, epoch, purpose);
            (0..1000).map(|i| order.get(i)).collect()
        };
        let base = list(7, 0, Purpose::Examples);
        for other in [
            list(8, 0, Purpose::Examples),
            list(7, 1, Purpose::Examples),
            list(7, 0, Purpose::Rows),
        ] {
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of 1000 places agree, about 1 is expected");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_permutation(len in 1_u64..3000, seed: u64, epoch in 0_u64..9) {
            let order = Permutation::new(len, seed, epoch, Purpose::Examples);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let value = order.get(i);
                prop_assert!(!std::mem::replace(&mut seen[value as usize], true));
                prop_assert_eq!(order.position(value), i);
            }
        }

        #[test]
        fn huge_lengths_work(len in 1_u64..=u64::MAX >> 1, seed: u64, at: prop::sample::Index) {
            let order = Permutation::new(len, seed, 0, Purpose::Examples);
            let position = at.index(usize::MAX) as u64 % len;
            prop_assert_eq!(order.position(order.get(position)), position);
        }
    }
}
