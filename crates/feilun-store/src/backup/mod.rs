//! Backups: everything that is in a store, as files that say what they are.
//!
//! A backup is a folder: `manifest.json`, a file of JSON lines for each table, and the blobs. It
//! is the same for both databases, so a team can move from one to the other with it. It is of
//! one moment: others write meanwhile, and what they write is not in it. The manifest has the
//! digest of every file; nothing is restored before all of them are right.
//!
//! What it holds is as secret as the database: conversations, and hashes of passwords and keys.

mod restore;
mod row_text;
mod save;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::db::{Connection, Engine, Kind, values};
use crate::error::StoreError;

/// Of the manifest and the files. Other formats are refused.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const BLOBS: &str = "blobs";

/// What was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Rows of all tables.
    pub rows: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all files but the manifest.
    pub size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    schema: i64,
    created_at: i64,
    tables: BTreeMap<String, SavedTable>,
    /// Digests; each is a file's name too.
    blobs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTable {
    columns: Vec<String>,
    rows: u64,
    blake3: String,
}

impl Manifest {
    fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(MANIFEST);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let mut text = String::new();
        let mut limited = file.take(MANIFEST_BYTES_MAX);
        limited.read_to_string(&mut text).map_err(StoreError::io("read", &path))?;
        let manifest: Self = serde_json::from_str(&text)
            .map_err(|error| StoreError::damaged(format!("{}: {error}", path.display())))?;
        if manifest.format != FORMAT {
            return Err(StoreError::Invalid {
                field: "format of the backup",
                found: manifest.format.to_string(),
                expected: FORMAT.to_string(),
            });
        }
        Ok(manifest)
    }
}

/// The file of a table.
fn table_file(table: &str) -> String {
    format!("{table}.jsonl")
}

/// The columns of a table, by name: the same order in both databases.
async fn columns_of(
    connection: &mut Connection,
    table: &str,
) -> Result<Vec<(String, Kind)>, StoreError> {
    let sql = match connection.engine() {
        Engine::Sqlite => "SELECT name, type FROM pragma_table_info($1)",
        Engine::Postgres => {
            "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT)
             FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1"
        }
    };
    let mut columns = Vec::new();
    for row in connection.rows(sql, values![table]).await? {
        let mut fields = row.columns();
        let (name, type_name): (String, String) = (fields.next()?, fields.next()?);
        let kind = match type_name.as_str() {
            "INTEGER" | "bigint" => Kind::Integer,
            "REAL" | "double precision" => Kind::Real,
            "TEXT" | "text" => Kind::Text,
            "BLOB" | "bytea" => Kind::Bytes,
            other => return Err(StoreError::damaged(format!("a column is of type {other}"))),
        };
        columns.push((name, kind));
    }
    columns.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(columns)
}
