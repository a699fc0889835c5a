//! Which keys the rows of a block of queries see in a block of keys.

use std::ops::Range;

use super::product::TILE_ROWS;
use crate::vector::LANES;

/// A block of queries against a block of keys. Row r is head `r % group` of the position
/// `first_position + r / group`; columns count from `first_key`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) first_position: usize,
    pub(super) group: usize,
    pub(super) num_rows: usize,
    pub(super) first_key: usize,
    pub(super) num_keys: usize,
    /// A query at p sees the keys in `(p - reach, p]`.
    pub(super) reach: usize,
}

impl Block {
    fn position(&self, row: usize) -> usize {
        self.first_position + row / self.group
    }

    /// The columns of which at least one of `rows` sees the key; 0..0 where there are none.
    pub(super) fn columns(&self, rows: &Range<usize>) -> Range<usize> {
        let (first, last) = (self.position(rows.start), self.position(rows.end - 1));
        let start = (first + 1).saturating_sub(self.reach).max(self.first_key);
        let end = (last + 1).min(self.first_key + self.num_keys);
        if start < end { start - self.first_key..end - self.first_key } else { 0..0 }
    }

    /// The rows that see at least one of the keys in `columns`; an empty range if none does.
    pub(super) fn rows(&self, columns: &Range<usize>) -> Range<usize> {
        let first_key = self.first_key + columns.start;
        let end_position = (self.first_key + columns.end - 1).saturating_add(self.reach);
        let start = first_key.saturating_sub(self.first_position) * self.group;
        let end = end_position
            .saturating_sub(self.first_position)
            .saturating_mul(self.group)
            .min(self.num_rows);
        start.min(end)..end
    }

    /// Calls `visit` with tiles of rows and the columns that one of them sees. Where all rows
    /// see all keys, that is one call.
    pub(super) fn for_each_row_span(&self, mut visit: impl FnMut(Range<usize>, Range<usize>)) {
        let (all, full) = (0..self.num_rows, 0..self.num_keys);
        let last = self.num_rows - 1..self.num_rows;
        if self.columns(&(0..1)) == full && self.columns(&last) == full {
            visit(all, full);
            return;
        }
        for start in all.step_by(TILE_ROWS) {
            let rows = start..self.num_rows.min(start + TILE_ROWS);
            let columns = self.columns(&rows);
            if !columns.is_empty() {
                visit(rows, columns);
            }
        }
    }

    /// The same the other way round: tiles of keys and the rows that see one of them.
    pub(super) fn for_each_key_span(&self, mut visit: impl FnMut(Range<usize>, Range<usize>)) {
        let (all, full) = (0..self.num_keys, 0..self.num_rows);
        let last = self.num_keys - 1..self.num_keys;
        if self.rows(&(0..1)) == full && self.rows(&last) == full {
            visit(all, full);
            return;
        }
        for start in all.step_by(TILE_ROWS) {
            let keys = start..self.num_keys.min(start + TILE_ROWS);
            let rows = self.rows(&keys);
            if !rows.is_empty() {
                visit(keys, rows);
            }
        }
    }
}

/// `columns` widened to whole vectors.
pub(super) fn whole_vectors(columns: &Range<usize>) -> Range<usize> {
    columns.start / LANES * LANES..columns.end.next_multiple_of(LANES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_what_is_seen_and_nothing_that_nobody_sees() {
        for group in [1, 2, 3, 7] {
            for reach in [1, 2, 5, 16, 40, usize::MAX] {
                for (first_position, positions) in [(0, 1), (0, 32), (32, 32), (64, 13), (100, 5)] {
                    for (first_key, num_keys) in [(0, 64), (0, 9), (64, 64), (64, 41)] {
                        let num_rows = positions * group;
                        check(Block {
                            first_position,
                            group,
                            num_rows,
                            first_key,
                            num_keys,
                            reach,
                        });
                    }
                }
            }
        }
    }

    #[track_caller]
    fn check(block: Block) {
        let Block { num_rows, num_keys, .. } = block;
        let sees = |row: usize, column: usize| {
            let position = block.first_position + row / block.group;
            let key = block.first_key + column;
            key <= position && position - key < block.reach
        };
        let mut by_rows = vec![false; num_rows * num_keys];
        let mut by_keys = by_rows.clone();
        block.for_each_row_span(|rows, columns| {
            assert!(rows.clone().any(|row| columns.clone().any(|column| sees(row, column))));
            for row in rows {
                columns.clone().for_each(|column| by_rows[row * num_keys + column] = true);
            }
        });
        block.for_each_key_span(|columns, rows| {
            assert!(rows.clone().any(|row| columns.clone().any(|column| sees(row, column))));
            for row in rows {
                columns.clone().for_each(|column| by_keys[row * num_keys + column] = true);
            }
        });
        for row in 0..num_rows {
            let seen: Vec<usize> = (0..num_keys).filter(|column| sees(row, *column)).collect();
            assert_eq!(block.columns(&(row..row + 1)).collect::<Vec<_>>(), seen, "{block:?}");
            for column in seen {
                assert!(by_rows[row * num_keys + column], "{block:?}");
                assert!(by_keys[row * num_keys + column], "{block:?}");
            }
        }
    }
}
