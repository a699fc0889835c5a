//! Group commit: one task writes, and concurrent writes share one transaction.
//!
//! A write is a value with the trait [`Write`]. [`Writer::submit`] puts it into a bounded
//! queue; the task takes what has gathered there while the previous transaction was being
//! committed ([`batch`]), so a lone write waits for nobody and many pay for one commit. An
//! answer is given after the commit, never before. A write that fails is taken back by its
//! savepoint and fails alone.

mod batch;
mod job;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::db::Connection;
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::url::StoreUrl;

pub(crate) use job::Write;
use job::{Job, Pending};

/// The queue's measure of bytes.
const PERMIT_BYTES: usize = 1 << 10;

/// The way to the task that writes.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    bytes: Arc<Semaphore>,
    num_permits: usize,
}

impl Writer {
    /// Starts the task, with a connection that is open already. It ends when all writers are
    /// dropped and the queue is empty.
    pub(crate) fn start(connection: Connection, url: StoreUrl, options: &StoreOptions) -> Self {
        let (queue, waiting) = mpsc::channel(options.queue_writes_max.max(1));
        // A semaphore counts to a bound of its own; an acquisition takes 32 bits.
        let num_permits = (options.queue_bytes_max / PERMIT_BYTES)
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        tokio::spawn(batch::Committer::new(connection, url, options.clone()).run(waiting));
        Self { queue, bytes: Arc::new(Semaphore::new(num_permits)), num_permits }
    }

    /// Waits until `write` is committed. Whoever stops waiting does not take it back.
    pub(crate) async fn submit<W: Write>(&self, write: W) -> Result<W::Output, StoreError> {
        let permit = self.room_for(write.bytes())?;
        let (reply, answer) = oneshot::channel();
        let job = Pending::new(write, reply, permit);
        self.queue.try_send(Box::new(job)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.queue_full(),
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Room in the queue. A write larger than the whole queue gets it when it is empty.
    fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let num_permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.num_permits) as u32;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(num_permits);
        permit.map_err(|_| self.queue_full())
    }

    fn queue_full(&self) -> StoreError {
        let queued = self.queued();
        let num_taken = self.num_permits - self.bytes.available_permits().min(self.num_permits);
        StoreError::QueueFull { queued, queued_bytes: num_taken * PERMIT_BYTES }
    }

    /// Writes that wait for their transaction.
    pub(crate) fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}
