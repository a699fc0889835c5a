//! Random choices that are the same on every machine.

use feilun_infer::sampling::rng::{fork_seed, uniform};

/// A sequence of choices that a seed determines.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    seed: u64,
    position: u64,
}

impl Draws {
    /// The choices for a seed and a path: which skill, which item, which attempt.
    pub(super) fn new(seed: u64, path: &[usize]) -> Draws {
        Draws { seed, position: 0 }.fork(path)
    }

    /// Other choices, for what is further down the path.
    pub(super) fn fork(&self, path: &[usize]) -> Draws {
        // The 0th fork is the seed itself, so it is not used.
        let seed = path.iter().fold(self.seed, |seed, &index| fork_seed(seed, index as u64 + 1));
        Draws { seed, position: 0 }
    }

    /// A number below `len`, which is above 0.
    pub(super) fn below(&mut self, len: usize) -> usize {
        debug_assert!(len > 0, "nothing to choose from");
        self.position += 1;
        // Multiplication and truncation of f64 are exact rules: no machine differs.
        (uniform(self.seed, self.position) * len as f64) as usize
    }

    /// A number from `min` to `max`, both included.
    pub(super) fn between(&mut self, min: i64, max: i64) -> i64 {
        min + self.below((max - min + 1) as usize) as i64
    }

    /// True in one of `of` cases.
    pub(super) fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Some of a list, each at most once, in random order.
    pub(super) fn sample<T: Copy>(&mut self, from: &[T], count: usize) -> Vec<T> {
        debug_assert!(count <= from.len(), "{count} of {}", from.len());
        let mut left = from.to_vec();
        self.shuffle(&mut left);
        left.truncate(count);
        left
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_and_path_alone() {
        let draw = |seed, path: &[usize]| {
            let mut draws = Draws::new(seed, path);
            (0..8).map(|_| draws.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, &[0, 1]), draw(7, &[0, 1]));
        assert_ne!(draw(7, &[0, 1]), draw(7, &[1, 0]));
        assert_ne!(draw(7, &[0, 1]), draw(8, &[0, 1]));
        // Written down, so that a machine that differs is noticed.
        assert_eq!(draw(7, &[0, 1]), [312, 952, 951, 499, 820, 457, 627, 873]);
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        let mut draws = Draws::new(1, &[]);
        for _ in 0..6000 {
            *counts.entry(draws.sample(&[1, 2, 3], 3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Four standard deviations of a binomial with p = 1/6.
        assert!(counts.values().all(|&count: &i32| (count - 1000).abs() < 116), "{counts:?}");
    }
}
