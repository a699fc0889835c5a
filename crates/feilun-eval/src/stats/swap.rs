//! The swap test: which model gave which answer must not matter if the two are the same.
//!
//! In each cluster a fair coin decides whether candidate and incumbent change places; the
//! difference is computed again. If both models are in truth one and the same, the difference
//! that was seen is one of these like any other, so that it is among the largest share α of them
//! with probability at most α: exactly, with any metric, any number of items, ties and skew
//! (Fisher's randomization test; Noreen, "Computer-intensive methods for testing hypotheses",
//! 1989, for pairs of systems).

use super::clusters::{Clusters, add};
use super::random::Random;

/// The stream of random numbers of swapping.
const PURPOSE: u64 = 2;
/// With so few clusters that differ, all 2^G swaps are tried instead of random ones.
const MAX_EXHAUSTIVE: usize = 12;

/// p-values of "the models are the same": against a better candidate, and against a worse one.
pub(super) struct Swapped {
    pub(super) p_greater: f64,
    pub(super) p_less: f64,
}

/// `clusters` must be of a difference.
pub(super) fn swap_test(clusters: &Clusters<'_>, seed: u64, num_swaps: usize) -> Swapped {
    let half = clusters.total.len() / 2;
    // Swapping clusters in which both models did the same changes nothing.
    let differing: Vec<&[f64]> = (0..clusters.len())
        .map(|cluster| clusters.row(cluster))
        .filter(|row| row[..half] != row[half..])
        .collect();
    // Equal differences may differ in their last digits, for they are sums in another order.
    let tolerance = 1e-9 * clusters.estimate.abs();
    let mut counts = Counts { below: 0, above: 0, all: 0 };
    let mut total = clusters.total.clone();
    let mut try_swap = |is_swapped: &mut dyn FnMut(usize) -> bool| {
        total.copy_from_slice(&clusters.total);
        for (index, row) in differing.iter().enumerate() {
            if is_swapped(index) {
                let (candidate, incumbent) = row.split_at(half);
                add(&mut total[..half], candidate, -1.0);
                add(&mut total[..half], incumbent, 1.0);
                add(&mut total[half..], incumbent, -1.0);
                add(&mut total[half..], candidate, 1.0);
            }
        }
        let difference = clusters.statistic.value(&total);
        counts.all += 1;
        // A swap without a metric is neither, and so counts against both claims.
        counts.below += usize::from(difference < clusters.estimate - tolerance);
        counts.above += usize::from(difference > clusters.estimate + tolerance);
    };
    if differing.len() <= MAX_EXHAUSTIVE {
        for swaps in 0..1_u32 << differing.len() {
            try_swap(&mut |index| swaps >> index & 1 == 1);
        }
    } else {
        // What was seen counts as one of the swaps.
        try_swap(&mut |_| false);
        let mut random = Random::new(seed, PURPOSE);
        for _ in 0..num_swaps {
            try_swap(&mut |_| random.uniform() < 0.5);
        }
    }
    let share_of_others = |count: usize| (counts.all - count) as f64 / counts.all as f64;
    let (p_greater, p_less) = (share_of_others(counts.below), share_of_others(counts.above));
    Swapped { p_greater, p_less }
}

/// Differences after swapping, compared with the one that was seen.
struct Counts {
    below: usize,
    above: usize,
    all: usize,
}
