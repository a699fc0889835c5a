//! A row of an answer, read column by column.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row as _, Type, ValueRef as _};

use crate::db::failure::store_error;
use crate::db::value::{Column, Kind, Value};
use crate::error::StoreError;

/// One row.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// Its columns, from the first.
    pub(crate) fn columns(&self) -> Columns<'_> {
        Columns { row: self, next: 0 }
    }

    /// The value of a column, which is of this kind.
    pub(crate) fn value(&self, index: usize, kind: Kind) -> Result<Value, StoreError> {
        let value = match kind {
            Kind::Integer => Value::Integer(self.get(index)?),
            Kind::Real => Value::Real(self.get(index)?),
            Kind::Text => Value::Text(self.get(index)?),
            Kind::Bytes => Value::Bytes(self.get(index)?),
        };
        Ok(value)
    }

    fn get<T>(&self, index: usize) -> Result<Option<T>, StoreError>
    where
        T: for<'r> Decode<'r, sqlx::Sqlite> + Type<sqlx::Sqlite>,
        T: for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
    {
        match self {
            Row::Sqlite(row) => row.try_get(index),
            Row::Postgres(row) => row.try_get(index),
        }
        .map_err(store_error)
    }
}

/// The columns of a row, one after the other.
pub(crate) struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl Columns<'_> {
    /// The next column.
    pub(crate) fn next<T: Column>(&mut self) -> Result<T, StoreError> {
        let value = self.row.value(self.next, T::KIND)?;
        self.next += 1;
        T::decode(value)
    }

    /// Whether the next column, of whatever type, holds anything.
    pub(crate) fn next_is_there(&mut self) -> Result<bool, StoreError> {
        let index = self.next;
        self.next += 1;
        match self.row {
            Row::Sqlite(row) => row.try_get_raw(index).map(|value| !value.is_null()),
            Row::Postgres(row) => row.try_get_raw(index).map(|value| !value.is_null()),
        }
        .map_err(store_error)
    }
}
