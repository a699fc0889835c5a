//! One connection, to write or to migrate with.

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Postgres, Sqlite};

use crate::db::failure::store_error;
use crate::db::row::Row;
use crate::db::value::Value;
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::url::{Address, StoreUrl};

/// Between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// SQLite's unit of [`StoreOptions::database_bytes_max`].
const PAGE_BYTES: u64 = 4096;
/// After a checkpoint, SQLite's log is cut to this.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything.
    Write,
    /// Reading; the database refuses everything else.
    Read,
}

/// A connection.
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A prepared statement with its values bound.
macro_rules! bound {
    ($database:ty, $sql:expr, $values:expr) => {{
        let mut query = sqlx::query::<$database>($sql);
        for value in $values {
            query = match value {
                Value::Integer(number) => query.bind(number),
                Value::Real(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

impl Connection {
    /// Connects, and tries again for as long as `options.patience` says while the database is
    /// locked or starting.
    pub(crate) async fn open(
        url: &StoreUrl,
        options: &StoreOptions,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let deadline = Instant::now() + options.patience;
        loop {
            match Self::connect(url, options, purpose).await {
                // SQLite's change to its log mode does not wait for locks by itself.
                Err(error) if may_pass(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Connects, once.
    pub(crate) async fn connect(
        url: &StoreUrl,
        options: &StoreOptions,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let connecting = async {
            match &url.0 {
                Address::Sqlite(path) => {
                    let options = sqlite_options(path, options, purpose);
                    options.connect().await.map(Self::Sqlite).map_err(store_error)
                }
                Address::Postgres(url) => {
                    let options = postgres_options(url, options, purpose)?;
                    options.connect().await.map(Self::Postgres).map_err(store_error)
                }
            }
        };
        let outcome = tokio::time::timeout(options.patience, connecting).await;
        outcome.unwrap_or_else(|_| {
            let reason = format!("no connection within {:?}", options.patience);
            Err(StoreError::Unreachable { reason })
        })
    }

    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs a statement and says how many rows it changed.
    pub(crate) async fn execute(
        &mut self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(connection) => {
                let done = bound!(Sqlite, sql, values).execute(connection).await;
                done.map(|done| done.rows_affected())
            }
            Self::Postgres(connection) => {
                let done = bound!(Postgres, sql, values).execute(connection).await;
                done.map(|done| done.rows_affected())
            }
        }
        .map_err(store_error)
    }

    /// All rows of an answer. The statement bounds their number.
    pub(crate) async fn rows(
        &mut self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(connection) => {
                let rows = bound!(Sqlite, sql, values).fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(connection) => {
                let rows = bound!(Postgres, sql, values).fetch_all(connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        }
        .map_err(store_error)
    }

    /// The first row of an answer.
    pub(crate) async fn row(
        &mut self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Several statements without values.
    pub(crate) async fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.execute(sqlx::raw_sql(sql)).await.map(drop),
            Self::Postgres(connection) => connection.execute(sqlx::raw_sql(sql)).await.map(drop),
        }
        .map_err(store_error)
    }

    /// Begins a transaction that writes.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        match self.engine() {
            // The write lock now, so that nothing within the transaction has to wait for it.
            Engine::Sqlite => self.script("BEGIN IMMEDIATE").await,
            Engine::Postgres => self.script("BEGIN").await,
        }
    }

    /// Begins a transaction that reads the database as it is at this moment.
    pub(crate) async fn begin_snapshot(&mut self) -> Result<(), StoreError> {
        match self.engine() {
            Engine::Sqlite => self.script("BEGIN").await,
            Engine::Postgres => {
                self.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
            }
        }
    }

    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.script("COMMIT").await
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), StoreError> {
        self.script("ROLLBACK").await
    }

    /// Closes it in an orderly way.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
        .map_err(store_error)
    }
}

/// Whether waiting may help to connect.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Busy { .. } | StoreError::Unreachable { .. })
}

/// How every connection to a SQLite file is set up.
fn sqlite_options(path: &Path, options: &StoreOptions, purpose: Purpose) -> SqliteConnectOptions {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(purpose == Purpose::Write)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In this mode a commit is on the disk before it returns.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.patience)
        .page_size(PAGE_BYTES as u32)
        // What is deleted is overwritten: `forget` promises it.
        .pragma("secure_delete", "ON")
        .pragma("journal_size_limit", LOG_BYTES_MAX.to_string())
        .pragma("cache_size", "-16000");
    let connect = match options.database_bytes_max {
        None => connect,
        Some(bytes) => connect.pragma("max_page_count", (bytes / PAGE_BYTES).max(1).to_string()),
    };
    match purpose {
        Purpose::Write => connect,
        // Not opened for reading alone: SQLite's log wants to write its index.
        Purpose::Read => connect.pragma("query_only", "ON"),
    }
}

/// How every connection to PostgreSQL is set up.
fn postgres_options(
    url: &str,
    options: &StoreOptions,
    purpose: Purpose,
) -> Result<PgConnectOptions, StoreError> {
    let connect = PgConnectOptions::from_str(url).map_err(|_| {
        // The cause may quote the password.
        StoreError::Url { found: StoreUrl(Address::Postgres(url.to_owned())).to_string() }
    })?;
    let milliseconds = options.statement_time_max.as_millis().to_string();
    Ok(connect.application_name("feilun").options([
        // A commit is on the disk before it returns, whatever the server's default is.
        ("synchronous_commit", "on"),
        ("statement_timeout", milliseconds.as_str()),
        ("idle_in_transaction_session_timeout", milliseconds.as_str()),
        ("client_min_messages", "warning"),
        ("default_transaction_read_only", if purpose == Purpose::Read { "on" } else { "off" }),
    ]))
}
