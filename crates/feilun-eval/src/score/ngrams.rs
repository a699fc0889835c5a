//! Counts of n-grams, and how many of a text's n-grams a reference has.
//!
//! Only the n-grams of references are kept, so memory depends on them alone: an answer of
//! megabytes is walked over once for each order.

use std::collections::HashMap;

/// A symbol that no reference has.
pub(super) const UNKNOWN: u32 = 0;

/// The n-grams of a reference, or of several, for n = 1 to an order.
#[derive(Debug, Default)]
pub(super) struct Ngrams {
    /// Bits of a symbol: an n-gram is one number, its symbols side by side.
    symbol_bits: u32,
    counts: Vec<HashMap<u128, u32>>,
}

impl Ngrams {
    /// Counts the n-grams of a text whose symbols are above 0 and below `2^symbol_bits`.
    pub(super) fn new(symbols: &[u32], order: usize, symbol_bits: u32) -> Ngrams {
        debug_assert!(order as u32 * symbol_bits <= u128::BITS, "{order} x {symbol_bits} bits");
        let counts = (1..=order)
            .map(|n| {
                let mut counts = HashMap::new();
                keys(symbols, n, symbol_bits).for_each(|key| *counts.entry(key).or_insert(0) += 1);
                counts
            })
            .collect();
        Ngrams { symbol_bits, counts }
    }

    /// Of each n-gram the larger count of the two.
    pub(super) fn merge_largest(&mut self, other: Ngrams) {
        for (mine, others) in self.counts.iter_mut().zip(other.counts) {
            for (key, count) in others {
                let mine = mine.entry(key).or_insert(0);
                *mine = count.max(*mine);
            }
        }
    }

    /// For each order, how many n-grams of a text are matched, each n-gram at most as often as it
    /// is here.
    pub(super) fn num_matches(&self, symbols: &[u32]) -> Vec<usize> {
        let orders = self.counts.iter().enumerate();
        orders
            .map(|(index, counts)| {
                let mut left = counts.clone();
                keys(symbols, index + 1, self.symbol_bits)
                    .filter(|key| match left.get_mut(key) {
                        Some(count) if *count > 0 => {
                            *count -= 1;
                            true
                        }
                        _ => false,
                    })
                    .count()
            })
            .collect()
    }
}

/// How many n-grams a text of so many symbols has.
pub(super) fn num_ngrams(num_symbols: usize, n: usize) -> usize {
    (num_symbols + 1).saturating_sub(n)
}

/// The n-grams of a text as numbers. One with [`UNKNOWN`] equals none without.
fn keys(symbols: &[u32], n: usize, symbol_bits: u32) -> impl Iterator<Item = u128> {
    let unused_bits = u128::BITS - n as u32 * symbol_bits;
    let mask = u128::MAX >> unused_bits;
    let mut key = 0u128;
    symbols.iter().enumerate().filter_map(move |(index, &symbol)| {
        key = (key << symbol_bits | u128::from(symbol)) & mask;
        (index + 1 >= n).then_some(key)
    })
}

/// Numbers for the words of references.
#[derive(Debug, Default)]
pub(super) struct WordNumbers<'a> {
    numbers: HashMap<&'a str, u32>,
}

impl<'a> WordNumbers<'a> {
    /// The symbols of a reference; new words get new numbers.
    pub(super) fn add(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        words
            .map(|word| {
                let next = self.numbers.len() as u32 + 1;
                *self.numbers.entry(word).or_insert(next)
            })
            .collect()
    }

    /// The symbols of an answer.
    pub(super) fn find<'b>(&self, words: impl Iterator<Item = &'b str>) -> Vec<u32> {
        words.map(|word| self.numbers.get(word).copied().unwrap_or(UNKNOWN)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_clipped_and_unknown_symbols_match_nothing() {
        let ngrams = Ngrams::new(&[1, 2, 1, 2], 2, 32);
        assert_eq!(ngrams.num_matches(&[1, 1, 1, 2]), [3, 1]);
        // (UNKNOWN, 1) is not the unigram 1, nor the other way round.
        assert_eq!(ngrams.num_matches(&[UNKNOWN, 1]), [1, 0]);
        assert_eq!(ngrams.num_matches(&[]), [0, 0]);
    }

    #[test]
    fn the_longest_ngrams_fill_all_bits() {
        let largest = u32::MAX;
        let ngrams = Ngrams::new(&[largest, 1, 2, largest, 3], 4, 32);
        assert_eq!(ngrams.num_matches(&[largest, 1, 2, largest]), [4, 3, 2, 1]);
        assert_eq!(ngrams.num_matches(&[7, 1, 2, largest]), [3, 2, 1, 0]);
    }

    #[test]
    fn merging_keeps_the_larger_count() {
        let mut ngrams = Ngrams::new(&[1, 1], 1, 32);
        ngrams.merge_largest(Ngrams::new(&[1, 2, 2], 1, 32));
        assert_eq!(ngrams.num_matches(&[1, 1, 1, 2, 2, 2]), [4]);
    }

    #[test]
    fn texts_shorter_than_n_have_no_ngrams() {
        assert_eq!(num_ngrams(0, 1), 0);
        assert_eq!(num_ngrams(3, 4), 0);
        assert_eq!(num_ngrams(4, 4), 1);
    }
}
