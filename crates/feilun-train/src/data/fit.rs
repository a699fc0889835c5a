//! Whole things into rows: best-fit decreasing.

use std::collections::BTreeSet;

/// Packs things of the given lengths into rows of `row_len`: the longest first, each into the
/// row with the least space that still has enough. Gives for each row the indices of its things.
/// Equal inputs give equal rows.
///
/// A length above `row_len` gets a row of its own; the caller has seen to it that there is none.
///
/// ```
/// use feilun_train::data::best_fit;
/// assert_eq!(best_fit(&[3, 6, 2, 5, 4], 10), [vec![1, 4], vec![3, 0, 2]]);
/// ```
pub fn best_fit(lengths: &[usize], row_len: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // (space left, row), without full rows.
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in order {
        let len = lengths[index];
        let (space, row) = match open.range((len, 0)..).next().copied() {
            Some(found) => {
                open.remove(&found);
                found
            }
            None => {
                rows.push(Vec::new());
                (row_len, rows.len() - 1)
            }
        };
        rows[row].push(index);
        if space > len {
            open.insert((space - len, row));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn everything_is_packed_once_and_fits(lengths in prop::collection::vec(1..50_usize, 0..200)) {
            let rows = best_fit(&lengths, 50);
            let mut seen = vec![0; lengths.len()];
            for row in &rows {
                prop_assert!(row.iter().map(|&i| lengths[i]).sum::<usize>() <= 50);
                row.iter().for_each(|&i| seen[i] += 1);
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
            // All rows but one are more than half full, or two of them would be one.
            let total = lengths.iter().sum::<usize>();
            prop_assert!(rows.len() <= 2 * total.div_ceil(50) + 1);
        }
    }

    #[test]
    fn short_things_fill_rows() {
        let lengths: Vec<usize> = (0..4000).map(|i| 20 + i * 7919 % 480).collect();
        let rows = best_fit(&lengths, 2048);
        let fill = lengths.iter().sum::<usize>() as f64 / (rows.len() * 2048) as f64;
        assert!(fill > 0.995, "{fill}");
    }
}
