//! A statement that is put together from parts, with its values.

use crate::db::value::{Column, Value};
use crate::page::{Order, Page};

/// A statement and its values.
pub(crate) struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    /// Begins a statement that has no values yet.
    pub(crate) fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new() }
    }

    /// Adds text of ours. Text of others is a value, always.
    pub(crate) fn text(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a value.
    pub(crate) fn value(&mut self, value: impl Column) -> &mut Self {
        self.values.push(value.encode());
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
        self
    }

    /// Adds text and a value behind it, if there is one.
    pub(crate) fn condition(&mut self, sql: &'static str, value: Option<impl Column>) -> &mut Self {
        if let Some(value) = value {
            self.text(sql).value(value);
        }
        self
    }

    /// Adds the end of a statement whose `WHERE` has at least one condition, and whose rows are
    /// in the order of their column `id`.
    pub(crate) fn page(&mut self, page: Page<impl Column + Copy>) -> &mut Self {
        match page.order {
            Order::NewestFirst => {
                self.condition(" AND id < ", page.after).text(" ORDER BY id DESC LIMIT ")
            }
            Order::OldestFirst => {
                self.condition(" AND id > ", page.after).text(" ORDER BY id LIMIT ")
            }
        }
        .value(page.limit())
    }

    /// The statement and its values.
    pub(crate) fn into_parts(self) -> (String, Vec<Value>) {
        (self.sql, self.values)
    }
}
