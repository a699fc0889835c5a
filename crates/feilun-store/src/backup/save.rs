//! Making a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::{
    BLOBS, BackupReport, FORMAT, MANIFEST, Manifest, SavedTable, columns_of, row_text, table_file,
};
use crate::blobs::{Blobs, copy_digested, sync_folder};
use crate::db::{Column as _, Connection, Kind, Purpose, Value, values};
use crate::digest::BlobDigest;
use crate::error::StoreError;
use crate::schema::{self, TABLES};
use crate::store::Store;
use crate::timestamp::Timestamp;

/// Rows that are in memory at the same time. One may be of some 100 MB, most are of some KB.
const ROWS_AT_ONCE: i64 = 32;

impl Store {
    /// Saves everything into a new folder. It is there, whole, when this returns, and not there
    /// before.
    pub async fn backup(&self, folder: &Path) -> Result<BackupReport, StoreError> {
        if folder.exists() {
            return Err(StoreError::Exists { what: "folder", name: folder.display().to_string() });
        }
        let partial = Partial::create(folder)?;
        // No blob comes or goes meanwhile.
        let _guard = self.blob_lock().lock().await;
        let mut connection = Connection::open(self.url(), self.options(), Purpose::Read).await?;
        connection.begin_snapshot().await?;
        let mut report = BackupReport::default();
        let mut tables = BTreeMap::new();
        for (table, key) in TABLES {
            let saved = self.save_table(&mut connection, table, key, &partial.0, &mut report);
            tables.insert((*table).to_owned(), saved.await?);
        }
        let mut blobs = Vec::new();
        let sql = "SELECT DISTINCT digest FROM files ORDER BY digest";
        for row in connection.rows(sql, values![]).await? {
            let digest: BlobDigest = row.columns().next()?;
            let to = partial.0.join(BLOBS).join(digest.to_string());
            report.size_bytes += self.blocking(move |blobs| copy(blobs, digest, &to)).await?;
            report.blobs += 1;
            blobs.push(digest.to_string());
        }
        connection.rollback().await?;
        connection.close().await?;
        let (schema, created_at) = (schema::newest(), Timestamp::now().as_micros());
        let manifest = Manifest { format: FORMAT, schema, created_at, tables, blobs };
        let folder = folder.to_owned();
        self.blocking(move |_| partial.finish(&manifest, &folder)).await?;
        Ok(report)
    }

    async fn save_table(
        &self,
        connection: &mut Connection,
        table: &str,
        key: &str,
        folder: &Path,
        report: &mut BackupReport,
    ) -> Result<SavedTable, StoreError> {
        let columns = columns_of(connection, table).await?;
        let key_index = columns.iter().position(|(name, _)| name == key);
        let key_index =
            key_index.ok_or_else(|| StoreError::damaged(format!("no {table}.{key}")))?;
        let mut file = TableFile::create(folder.join(table_file(table)))?;
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let select = format!("SELECT {} FROM {table}", names.join(", "));
        let mut last: Option<Value> = None;
        let mut num_rows = 0;
        loop {
            let mut values: Vec<Value> = last.iter().cloned().collect();
            values.push(ROWS_AT_ONCE.encode());
            let behind = if last.is_some() { format!(" WHERE {key} > $1") } else { String::new() };
            let limit = values.len();
            let sql = format!("{select}{behind} ORDER BY {key} LIMIT ${limit}");
            let rows = connection.rows(&sql, values).await?;
            let Some(row) = rows.last() else { break };
            last = Some(row.value(key_index, columns[key_index].1)?);
            num_rows += rows.len() as u64;
            let text = lines(&rows, &columns)?;
            report.size_bytes += text.len() as u64;
            file = self.blocking(move |_| file.append(text)).await?;
        }
        report.rows += num_rows;
        let blake3 = self.blocking(move |_| file.finish()).await?;
        Ok(SavedTable { columns: names, rows: num_rows, blake3 })
    }
}

fn lines(rows: &[crate::db::Row], columns: &[(String, Kind)]) -> Result<String, StoreError> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&row_text::write(row, columns)?);
        text.push('\n');
    }
    Ok(text)
}

/// A file of rows.
struct TableFile {
    file: File,
    path: PathBuf,
    hasher: blake3::Hasher,
}

impl TableFile {
    fn create(path: PathBuf) -> Result<Self, StoreError> {
        let file = create_private(&path)?;
        Ok(Self { file, path, hasher: blake3::Hasher::new() })
    }

    fn append(mut self, text: String) -> Result<Self, StoreError> {
        self.file.write_all(text.as_bytes()).map_err(StoreError::io("write", &self.path))?;
        self.hasher.update(text.as_bytes());
        Ok(self)
    }

    /// Waits until it is on the disk, and gives its digest.
    fn finish(self) -> Result<String, StoreError> {
        self.file.sync_all().map_err(StoreError::io("sync", &self.path))?;
        Ok(self.hasher.finalize().to_hex().to_string())
    }
}

/// A folder under another name. Dropped, it leaves nothing.
struct Partial(PathBuf);

impl Partial {
    fn create(folder: &Path) -> Result<Self, StoreError> {
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", uuid::Uuid::now_v7().simple()));
        let partial = Self(folder.with_file_name(name));
        let blobs = partial.0.join(BLOBS);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let create = |path: &PathBuf| builder.create(path).map_err(StoreError::io("create", path));
        create(&partial.0)?;
        create(&blobs)?;
        Ok(partial)
    }

    /// Adds the manifest and gives the folder its name.
    fn finish(self, manifest: &Manifest, folder: &Path) -> Result<(), StoreError> {
        let path = self.0.join(MANIFEST);
        let mut out = BufWriter::new(create_private(&path)?);
        let failed = |error: std::io::Error| StoreError::io("write", &path)(error);
        serde_json::to_writer_pretty(&mut out, manifest).map_err(|error| failed(error.into()))?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        sync_folder(&self.0.join(BLOBS))?;
        sync_folder(&self.0)?;
        fs::rename(&self.0, folder).map_err(StoreError::io("rename", &self.0))?;
        let parent = folder.parent().filter(|parent| *parent != Path::new(""));
        sync_folder(parent.unwrap_or(Path::new(".")))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Usually it was renamed. What cannot be removed says by its name what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(blobs: &Blobs, digest: BlobDigest, to: &Path) -> Result<u64, StoreError> {
    let mut target = create_private(to)?;
    let copied = copy_digested(blobs.read(digest)?, &mut target);
    let (found, size_bytes) = copied.map_err(StoreError::io("copy", to))?;
    if found != digest {
        return Err(StoreError::damaged(format!("blob {digest} has the content of {found}")));
    }
    target.sync_all().map_err(StoreError::io("sync", to))?;
    Ok(size_bytes)
}

fn create_private(path: &Path) -> Result<File, StoreError> {
    let mut open = File::options();
    open.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    open.open(path).map_err(StoreError::io("create", path))
}
