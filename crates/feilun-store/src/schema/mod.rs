//! The schema and its numbered migrations: one text for both databases.
//!
//! A migration, once released, never changes: the database keeps its digest. A new one gets the
//! next number and a line in [`MIGRATIONS`].

use crate::db::{Connection, Engine, values};
use crate::error::StoreError;
use crate::timestamp::Timestamp;

/// Every migration, in order; the first is number 1.
const MIGRATIONS: &[&str] =
    &[include_str!("0001_first.sql"), include_str!("0002_sessions_of_keys.sql")];

/// Every table that holds what users gave us, parents before children, with its primary key.
pub(crate) const TABLES: &[(&str, &str)] = &[
    ("configs", "hash"),
    ("users", "id"),
    ("keys", "id"),
    ("sessions", "token_hash"),
    ("conversations", "id"),
    ("turns", "id"),
    ("feedback", "id"),
    ("events", "id"),
    ("models", "digest"),
    ("aliases", "name"),
    ("alias_moves", "id"),
    ("runs", "id"),
    ("run_events", "id"),
    ("files", "id"),
    ("audit", "id"),
];

/// Any number that nobody else in the same PostgreSQL takes for a lock of their own.
const MIGRATION_LOCK: i64 = 0x6665_696c_756e;

/// The newest schema that this program knows.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.len() as i64
}

/// Brings the database to schema `target`, all or nothing. Others that open it meanwhile wait.
pub(crate) async fn migrate(connection: &mut Connection, target: i64) -> Result<(), StoreError> {
    connection.begin().await?;
    match migrate_in_transaction(connection, target).await {
        Ok(()) => connection.commit().await,
        Err(error) => {
            // The first error is the one that tells; a connection that cannot roll back is
            // dropped by the caller, which rolls back too.
            let _ = connection.rollback().await;
            Err(error)
        }
    }
}

async fn migrate_in_transaction(
    connection: &mut Connection,
    target: i64,
) -> Result<(), StoreError> {
    // SQLite's write lock was taken by the transaction itself.
    if connection.engine() == Engine::Postgres {
        connection.rows("SELECT pg_advisory_xact_lock($1)", values![MIGRATION_LOCK]).await?;
    }
    let create = "CREATE TABLE IF NOT EXISTS schema_migrations (
        number {integer} PRIMARY KEY, digest {bytes} NOT NULL, applied_at {integer} NOT NULL
    ) {strict}";
    connection.script(&in_dialect(create, connection.engine())).await?;
    let rows = connection
        .rows("SELECT number, digest FROM schema_migrations ORDER BY number", values![])
        .await?;
    if let Some(last) = rows.last() {
        let found = last.columns().next()?;
        if found > newest() {
            return Err(StoreError::SchemaTooNew { found, known: newest() });
        }
    }
    for (row, text) in rows.iter().zip(MIGRATIONS) {
        let mut columns = row.columns();
        let (number, digest): (i64, Vec<u8>) = (columns.next()?, columns.next()?);
        if digest != digest_of(text) {
            return Err(StoreError::SchemaDiffers { number });
        }
    }
    for (index, text) in MIGRATIONS.iter().enumerate().skip(rows.len()) {
        let number = index as i64 + 1;
        if number > target {
            break;
        }
        connection.script(&in_dialect(text, connection.engine())).await?;
        let record = "INSERT INTO schema_migrations VALUES ($1, $2, $3)";
        let values = values![number, digest_of(text), Timestamp::now()];
        connection.execute(record, values).await?;
    }
    Ok(())
}

fn digest_of(migration: &str) -> [u8; 32] {
    blake3::hash(migration.as_bytes()).into()
}

fn in_dialect(text: &str, engine: Engine) -> String {
    let [integer, real, bytes, strict] = match engine {
        Engine::Sqlite => ["INTEGER", "REAL", "BLOB", "STRICT"],
        Engine::Postgres => ["BIGINT", "DOUBLE PRECISION", "BYTEA", ""],
    };
    text.replace("{integer}", integer)
        .replace("{real}", real)
        .replace("{bytes}", bytes)
        .replace("{strict}", strict)
}
