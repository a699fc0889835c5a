//! The store itself: opening, closing, and what every query goes through.

use std::sync::Arc;

use crate::blobs::Blobs;
use crate::db::{Connection, Purpose, Readers};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::schema;
use crate::url::StoreUrl;
use crate::write::{Write, Writer};

/// A database, open. Clones are handles on the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    url: StoreUrl,
    options: StoreOptions,
    writer: Writer,
    readers: Readers,
    blobs: Blobs,
    /// Whoever adds or removes blobs together with rows holds it.
    blob_lock: tokio::sync::Mutex<()>,
}

impl Store {
    /// Opens the database, makes it where it is missing, and brings its schema up to date.
    ///
    /// Several processes may open one at the same time. Within the tokio runtime that it was
    /// opened in, it works until the last handle is dropped.
    pub async fn open(url: &StoreUrl, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_at_schema(url, options, schema::newest()).await
    }

    pub(crate) async fn open_at_schema(
        url: &StoreUrl,
        options: StoreOptions,
        schema: i64,
    ) -> Result<Self, StoreError> {
        let blobs = Blobs::open(options.blobs.clone())?;
        if let Some(path) = url.sqlite_path() {
            create_private(path)?;
        }
        let mut connection = Connection::open(url, &options, Purpose::Write).await?;
        schema::migrate(&mut connection, schema).await?;
        let readers = Readers::new(url, &options);
        let writer = Writer::start(connection, url.clone(), &options);
        let (url, blob_lock) = (url.clone(), tokio::sync::Mutex::default());
        Ok(Self(Arc::new(Inner { url, options, writer, readers, blobs, blob_lock })))
    }

    /// Waits until every write that was asked for before is committed or refused, and closes
    /// the connections for reading.
    pub async fn close(&self) -> Result<(), StoreError> {
        let outcome = self.write(Barrier).await;
        self.0.readers.close().await;
        outcome
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.0.readers.ping().await
    }

    /// Writes that wait for their transaction: how far capture is behind.
    pub fn queued_writes(&self) -> usize {
        self.0.writer.queued()
    }

    /// Where it is.
    pub fn url(&self) -> &StoreUrl {
        &self.0.url
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.0.options
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.0.readers
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    pub(crate) fn blob_lock(&self) -> &tokio::sync::Mutex<()> {
        &self.0.blob_lock
    }

    /// Works on files, in a thread that may wait for them.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blobs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let blobs = self.blobs().clone();
        let outcome = tokio::task::spawn_blocking(move || work(&blobs)).await;
        // A task that was thrown away belongs to a runtime that is going.
        outcome.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Output, StoreError> {
        self.0.writer.submit(write).await
    }
}

/// A write of nothing: it is answered after all that were there before it.
struct Barrier;

impl Write for Barrier {
    type Output = ();

    async fn apply(&self, _: &mut Connection) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The file, for nobody but its owner: it holds what people say. SQLite gives the files beside
/// it the same rights.
fn create_private(path: &std::path::Path) -> Result<(), StoreError> {
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    open.open(path).map(drop).map_err(StoreError::io("open", path))
}
