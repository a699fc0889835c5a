//! Connections for reading, so that nobody who reads waits for who writes.
//!
//! A connection that broke while it was idle is noticed by the next who reads: a read is tried
//! once more, with a new one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::db::connection::{Connection, Purpose};
use crate::db::query::Query;
use crate::db::row::Row;
use crate::db::value::{Value, values};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::url::StoreUrl;

/// The readers of a store.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Inner>);

struct Inner {
    url: StoreUrl,
    options: StoreOptions,
    /// One permit for each connection that may be at work.
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Connects when the first of them reads.
    pub(crate) fn new(url: &StoreUrl, options: &StoreOptions) -> Self {
        let places = Semaphore::new(options.readers_max.max(1) as usize);
        let (url, options, idle) = (url.clone(), options.clone(), Mutex::default());
        Self(Arc::new(Inner { url, options, places, idle }))
    }

    /// All rows of an answer. The statement bounds their number.
    pub(crate) async fn rows(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let time_max = self.0.options.statement_time_max;
        let answer = tokio::time::timeout(time_max, self.read(sql, values)).await;
        answer.unwrap_or_else(|_| {
            Err(StoreError::Unreachable { reason: format!("no answer within {time_max:?}") })
        })
    }

    async fn read(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let place = tokio::time::timeout(self.0.options.patience, self.0.places.acquire()).await;
        let place = place.map_err(|_| {
            let reason = format!("{} others read already", self.0.options.readers_max);
            StoreError::Busy { reason }
        })?;
        let _place = place.map_err(|_| StoreError::Closed)?;
        // Bound to a name, so that the lock is not held while it is used.
        let idle = self.idle().pop();
        if let Some(connection) = idle {
            match self.use_up(connection, sql, values.clone()).await {
                Err(StoreError::Unreachable { .. }) => (),
                outcome => return outcome,
            }
        }
        let new = Connection::open(&self.0.url, &self.0.options, Purpose::Read).await?;
        self.use_up(new, sql, values).await
    }

    /// Reads, and keeps the connection if it is in order. A read that is given up drops it.
    async fn use_up(
        &self,
        mut connection: Connection,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let outcome = connection.rows(sql, values).await;
        if !matches!(outcome, Err(StoreError::Unreachable { .. } | StoreError::Damaged { .. })) {
            self.idle().push(connection);
        }
        outcome
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Nothing panics while it holds the lock, and a list of connections cannot be half right.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Refuses every read from now on.
    pub(crate) async fn close(&self) {
        self.0.places.close();
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            // It was for reading: closing only tidies up.
            let _ = connection.close().await;
        }
    }
}
