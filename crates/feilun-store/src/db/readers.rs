//! Connections for reading, so that nobody who reads waits for who writes.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{Postgres, Sqlite};

use crate::db::connection::{bound, postgres_options, sqlite_options};
use crate::db::failure::store_error;
use crate::db::query::Query;
use crate::db::row::Row;
use crate::db::value::{Value, values};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::url::{Address, StoreUrl};

/// The readers of a store.
#[derive(Clone)]
pub(crate) struct Readers {
    pool: Pool,
    time_max: Duration,
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Readers {
    /// Connects when the first of them reads.
    pub(crate) fn new(url: &StoreUrl, options: &StoreOptions) -> Result<Self, StoreError> {
        let pool = match &url.0 {
            Address::Sqlite(path) => {
                // Not opened for reading alone: SQLite's log wants to write its index.
                let connect = sqlite_options(path, options)
                    .create_if_missing(false)
                    .pragma("query_only", "ON");
                let pool = SqlitePoolOptions::new()
                    .max_connections(options.readers_max)
                    .acquire_timeout(options.patience);
                Pool::Sqlite(pool.connect_lazy_with(connect))
            }
            Address::Postgres(url) => {
                let connect = postgres_options(url, options)?;
                let connect = connect.options([("default_transaction_read_only", "on")]);
                let pool = PgPoolOptions::new()
                    .max_connections(options.readers_max)
                    .acquire_timeout(options.patience);
                Pool::Postgres(pool.connect_lazy_with(connect))
            }
        };
        Ok(Self { pool, time_max: options.statement_time_max })
    }

    /// All rows of an answer. The statement bounds their number.
    pub(crate) async fn rows(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let reading = async {
            match &self.pool {
                Pool::Sqlite(pool) => {
                    let rows = bound!(Sqlite, sql, values).fetch_all(pool).await;
                    rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
                }
                Pool::Postgres(pool) => {
                    let rows = bound!(Postgres, sql, values).fetch_all(pool).await;
                    rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
                }
            }
        };
        match tokio::time::timeout(self.time_max, reading).await {
            Ok(outcome) => outcome.map_err(store_error),
            Err(_) => {
                let reason = format!("no answer within {:?}", self.time_max);
                Err(StoreError::Unreachable { reason })
            }
        }
    }

    /// All rows of a statement that was put together.
    pub(crate) async fn query(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        let (sql, values) = query.into_parts();
        self.rows(&sql, values).await
    }

    /// The first row of an answer.
    pub(crate) async fn row(
        &self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.rows("SELECT 1", values![]).await.map(drop)
    }

    pub(crate) async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}
