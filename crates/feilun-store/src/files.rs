//! Files that somebody uploaded: rows here, bytes in the folder of blobs.

use serde_json::json;

use crate::audit::{self, Actor};
use crate::blobs::{BlobWriter, StagedBlob};
use crate::db::{Connection, Insert, Query, Row, values};
use crate::digest::BlobDigest;
use crate::error::StoreError;
use crate::id::{FileId, KeyId, UserId};
use crate::limits::check_name;
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// A file, to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFile {
    /// Its id.
    pub id: FileId,
    /// What it is for.
    pub purpose: String,
    /// What its owner calls it. It is shown, and builds no path.
    pub name: String,
    /// Whose it is.
    pub user: Option<UserId>,
    /// The key that it came with.
    pub key: Option<KeyId>,
}

/// A file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFile {
    /// What was given to the store.
    pub recorded: NewFile,
    /// Its size.
    pub size_bytes: u64,
    /// Names its bytes.
    pub digest: BlobDigest,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Which files. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    /// For this purpose.
    pub purpose: Option<String>,
    /// Of this user.
    pub user: Option<UserId>,
    /// That came with this key.
    pub key: Option<KeyId>,
}

const SELECT: &str = "SELECT id, purpose, name, user_id, key_id, size_bytes, digest, created_at
    FROM files WHERE 1 = 1";

impl Store {
    /// Begins to take a file's bytes, at most `bytes_max`. Writing to it blocks.
    pub fn blob_writer(&self, bytes_max: u64) -> Result<BlobWriter, StoreError> {
        self.blobs().writer(bytes_max)
    }

    /// Adds a file whose bytes are there. It returns once both are on the disk.
    pub async fn add_file(&self, file: NewFile, blob: StagedBlob) -> Result<(), StoreError> {
        check_name("purpose", &file.purpose)?;
        check_name("name", &file.name)?;
        // Nobody removes these bytes for another file's sake meanwhile.
        let _guard = self.blob_lock().lock().await;
        let (digest, size_bytes) = (blob.digest(), blob.size_bytes());
        self.blocking(move |blobs| blobs.keep(&blob)).await?;
        let outcome = self.write(AddFile { file, digest, size_bytes }).await;
        if outcome.is_err() {
            self.remove_unneeded(digest).await?;
        }
        outcome
    }

    /// The file of this id.
    pub async fn file(&self, id: FileId) -> Result<StoredFile, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchFile(id)), file_of)
    }

    /// Files.
    pub async fn files(
        &self,
        filter: &FileFilter,
        page: Page<FileId>,
    ) -> Result<Vec<StoredFile>, StoreError> {
        let mut query = Query::new(SELECT);
        query
            .condition(" AND purpose = ", filter.purpose.as_deref())
            .condition(" AND user_id = ", filter.user)
            .condition(" AND key_id = ", filter.key);
        query.page(page);
        self.readers().query(query).await?.iter().map(file_of).collect()
    }

    /// A file's bytes, to be read. Reading from it blocks.
    pub fn open_blob(&self, digest: BlobDigest) -> Result<std::fs::File, StoreError> {
        self.blobs().read(digest)
    }

    /// Where a file's bytes lie, for another process of this machine to read. They are there for
    /// as long as a file has them.
    pub fn blob_path(&self, digest: BlobDigest) -> std::path::PathBuf {
        self.blobs().path(digest)
    }

    /// Deletes a file; its bytes go with the last file that has them.
    pub async fn delete_file(&self, id: FileId, actor: Actor) -> Result<(), StoreError> {
        let _guard = self.blob_lock().lock().await;
        let digest = self.write(DeleteFile { id, actor }).await?;
        self.remove_unneeded(digest).await
    }

    /// Removes bytes that no file has. Only with the lock on blobs.
    pub(crate) async fn remove_unneeded(&self, digest: BlobDigest) -> Result<(), StoreError> {
        let sql = "SELECT id FROM files WHERE digest = $1 LIMIT 1";
        if self.readers().row(sql, values![digest]).await?.is_some() {
            return Ok(());
        }
        self.blocking(move |blobs| blobs.remove(digest)).await
    }
}

fn file_of(row: &Row) -> Result<StoredFile, StoreError> {
    let mut columns = row.columns();
    let recorded = NewFile {
        id: columns.next()?,
        purpose: columns.next()?,
        name: columns.next()?,
        user: columns.next()?,
        key: columns.next()?,
    };
    Ok(StoredFile {
        recorded,
        size_bytes: columns.next()?,
        digest: columns.next()?,
        created_at: columns.next()?,
    })
}

struct AddFile {
    file: NewFile,
    digest: BlobDigest,
    size_bytes: u64,
}

impl Write for AddFile {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let NewFile { id, purpose, name, user, key } = &self.file;
        let row = Insert::into("files")
            .set("id", *id)
            .set("purpose", purpose.as_str())
            .set("name", name.as_str())
            .set("size_bytes", self.size_bytes)
            .set("digest", self.digest)
            .set("user_id", *user)
            .set("key_id", *key)
            .set("created_at", Timestamp::now());
        if !row.run(connection).await? {
            return Err(StoreError::Exists { what: "file", name: id.to_string() });
        }
        Ok(())
    }
}

struct DeleteFile {
    id: FileId,
    actor: Actor,
}

impl Write for DeleteFile {
    type Output = BlobDigest;

    async fn apply(&self, connection: &mut Connection) -> Result<BlobDigest, StoreError> {
        let sql = "DELETE FROM files WHERE id = $1 RETURNING digest";
        let row = connection.row(sql, values![self.id]).await?;
        let digest: BlobDigest = row.ok_or(StoreError::NoSuchFile(self.id))?.columns().next()?;
        let detail = json!({ "digest": digest.to_string() });
        audit::append(connection, self.actor, "file.delete", &self.id.to_string(), detail).await?;
        Ok(digest)
    }
}
