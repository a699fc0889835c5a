//! Lists in pages.

use crate::limits::PAGE_ROWS_MAX;

/// Which rows come first. Ids are in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// The newest.
    #[default]
    NewestFirst,
    /// The oldest.
    OldestFirst,
}

/// A part of a list: `rows_max` rows behind `after`, the last row of the page before.
#[derive(Clone, Copy, Debug)]
pub struct Page<Cursor> {
    /// The last row of the page before.
    pub after: Option<Cursor>,
    /// How many; more than [`PAGE_ROWS_MAX`] are never given.
    pub rows_max: u32,
    /// Which come first.
    pub order: Order,
}

impl<Cursor> Page<Cursor> {
    /// The first `rows_max` rows, the newest first.
    pub fn newest(rows_max: u32) -> Self {
        Self { after: None, rows_max, order: Order::NewestFirst }
    }

    /// The first `rows_max` rows, the oldest first.
    pub fn oldest(rows_max: u32) -> Self {
        Self { after: None, rows_max, order: Order::OldestFirst }
    }

    /// The page behind this row.
    #[must_use]
    pub fn behind(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor), ..self }
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::from(self.rows_max.clamp(1, PAGE_ROWS_MAX))
    }
}
