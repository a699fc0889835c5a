//! Restoring a backup into a store in which nothing is.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::{BLOBS, BackupReport, Manifest, columns_of, row_text, table_file};
use crate::blobs::{Blobs, copy_digested};
use crate::db::{Connection, Purpose, values};
use crate::digest::BlobDigest;
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::schema::{self, TABLES};
use crate::store::Store;
use crate::url::StoreUrl;

/// A line holds one row: some JSON documents of 16 MiB, and tokens in hexadecimal digits.
const LINE_BYTES_MAX: u64 = 256 << 20;

impl Store {
    /// Restores a backup, of the same schema or an older one, and opens the store.
    ///
    /// Every file is verified before anything is written, and all rows are one transaction.
    /// [`StoreError::Exists`] says that something is in the store already.
    pub async fn restore(
        backup: &Path,
        url: &StoreUrl,
        options: StoreOptions,
    ) -> Result<(Self, BackupReport), StoreError> {
        let folder = backup.to_owned();
        let verified = tokio::task::spawn_blocking(move || verify(&folder)).await;
        let (manifest, mut report) = verified.unwrap_or(Err(StoreError::Closed))?;
        let store = Self::open_at_schema(url, options.clone(), manifest.schema).await?;
        let mut connection = Connection::open(url, &options, Purpose::Write).await?;
        check_empty(&mut connection).await?;
        for name in &manifest.blobs {
            let from = backup.join(BLOBS).join(name);
            store.blocking(move |blobs| keep(blobs, &from)).await?;
            report.blobs += 1;
        }
        connection.begin().await?;
        // An error drops the connection, and the transaction with it.
        for (table, _) in TABLES {
            let columns = manifest.tables.get(*table).map_or(&[][..], |saved| &saved.columns);
            report.rows += restore_table(&mut connection, backup, table, columns).await?;
        }
        connection.commit().await?;
        schema::migrate(&mut connection, schema::newest()).await?;
        connection.close().await?;
        Ok((store, report))
    }
}

/// Reads every file once and compares digests.
fn verify(folder: &Path) -> Result<(Manifest, BackupReport), StoreError> {
    let manifest = Manifest::read(folder)?;
    if manifest.schema > schema::newest() {
        return Err(StoreError::SchemaTooNew { found: manifest.schema, known: schema::newest() });
    }
    let mut report = BackupReport::default();
    let mut check = |path: PathBuf, expected: &str| {
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let (found, size_bytes) =
            copy_digested(file, io::sink()).map_err(StoreError::io("read", &path))?;
        if found.to_string() != expected {
            let path = path.display();
            return Err(StoreError::damaged(format!("{path}: digest {found}, not {expected}")));
        }
        report.size_bytes += size_bytes;
        Ok(())
    };
    for (table, _) in TABLES {
        let saved = manifest.tables.get(*table);
        let saved = saved.ok_or_else(|| StoreError::damaged(format!("no table {table}")))?;
        check(folder.join(table_file(table)), &saved.blake3)?;
    }
    for name in &manifest.blobs {
        // It builds a path, so it must be what it says.
        let digest: BlobDigest =
            name.parse().map_err(|_| StoreError::damaged("a blob has no digest for a name"))?;
        check(folder.join(BLOBS).join(digest.to_string()), name)?;
    }
    Ok((manifest, report))
}

async fn check_empty(connection: &mut Connection) -> Result<(), StoreError> {
    for (table, key) in TABLES {
        let sql = format!("SELECT {key} FROM {table} LIMIT 1");
        if connection.row(&sql, values![]).await?.is_some() {
            return Err(StoreError::Exists { what: "row in table", name: (*table).to_owned() });
        }
    }
    Ok(())
}

async fn restore_table(
    connection: &mut Connection,
    backup: &Path,
    table: &str,
    expected: &[String],
) -> Result<u64, StoreError> {
    let columns = columns_of(connection, table).await?;
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    if names != expected {
        return Err(StoreError::damaged(format!("table {table} has other columns in the backup")));
    }
    let places: Vec<String> = (1..=names.len()).map(|index| format!("${index}")).collect();
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
    let path = backup.join(table_file(table));
    let mut file = BufReader::new(File::open(&path).map_err(StoreError::io("open", &path))?);
    let mut num_rows = 0;
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = file.by_ref().take(LINE_BYTES_MAX);
        if limited.read_line(&mut line).map_err(StoreError::io("read", &path))? == 0 {
            return Ok(num_rows);
        }
        connection.execute(&sql, row_text::read(&line, &columns)?).await?;
        num_rows += 1;
    }
}

fn keep(blobs: &Blobs, from: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(StoreError::io("open", from))?;
    let mut writer = blobs.writer(u64::MAX)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut buffer).map_err(StoreError::io("read", from))?;
        if length == 0 {
            return blobs.keep(&writer.finish()?);
        }
        writer.write(&buffer[..length])?;
    }
}
