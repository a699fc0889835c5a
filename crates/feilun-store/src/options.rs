//! How a store behaves.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a store. Start from [`StoreOptions::new`] and change what should differ.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of uploaded bytes. It is made where it is missing.
    pub blobs: PathBuf,
    /// Writes that may wait; one more is refused with
    /// [`StoreError::QueueFull`](crate::StoreError::QueueFull).
    pub queue_writes_max: usize,
    /// Bytes of writes that may wait, measured roughly.
    pub queue_bytes_max: usize,
    /// Writes that share one transaction.
    pub batch_writes_max: usize,
    /// How long a write is tried again while the database is locked or cannot be reached, and
    /// how long opening waits.
    pub patience: Duration,
    /// How long one transaction or one query may take.
    pub statement_time_max: Duration,
    /// Connections for reading.
    pub readers_max: u32,
    /// The size beyond which a SQLite database does not grow.
    pub database_bytes_max: Option<u64>,
    /// Whether a turn may be learnt from where neither the request nor its key nor its user
    /// says yes or no.
    pub consent_by_default: bool,
}

impl StoreOptions {
    /// The defaults, with uploaded bytes in this folder.
    pub fn new(blobs: impl Into<PathBuf>) -> Self {
        Self {
            blobs: blobs.into(),
            queue_writes_max: 4096,
            queue_bytes_max: 256 << 20,
            batch_writes_max: 256,
            patience: Duration::from_secs(5),
            statement_time_max: Duration::from_secs(30),
            readers_max: 4,
            database_bytes_max: None,
            consent_by_default: false,
        }
    }
}
