//! Rows to be inserted.

use crate::db::connection::Connection;
use crate::db::row::Row;
use crate::db::value::{Column, Value};
use crate::error::StoreError;

/// A row for a table: names of columns with their values.
#[derive(Clone)]
pub(crate) struct Insert {
    table: &'static str,
    columns: Vec<(&'static str, Value)>,
}

impl Insert {
    /// Begins a row of this table.
    pub(crate) fn into(table: &'static str) -> Self {
        Self { table, columns: Vec::new() }
    }

    /// Adds a column.
    #[must_use]
    pub(crate) fn set(mut self, column: &'static str, value: impl Column) -> Self {
        self.columns.push((column, value.encode()));
        self
    }

    /// Inserts it. Says whether it did: a row of the same name may be there already.
    pub(crate) async fn run(self, connection: &mut Connection) -> Result<bool, StoreError> {
        let sql = self.sql(" ON CONFLICT DO NOTHING");
        let values = self.columns.into_iter().map(|(_, value)| value).collect();
        Ok(connection.execute(&sql, values).await? == 1)
    }

    /// Inserts it, with another end of the statement, and gives what that returns.
    pub(crate) async fn run_returning(
        self,
        connection: &mut Connection,
        end: &str,
    ) -> Result<Option<Row>, StoreError> {
        let sql = self.sql(end);
        let values = self.columns.into_iter().map(|(_, value)| value).collect();
        connection.row(&sql, values).await
    }

    fn sql(&self, end: &str) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = (1..=names.len()).map(|index| format!("${index}")).collect();
        let (table, names, places) = (self.table, names.join(", "), places.join(", "));
        format!("INSERT INTO {table} ({names}) VALUES ({places}){end}")
    }
}
