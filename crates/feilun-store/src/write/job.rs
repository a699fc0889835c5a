//! One write in the queue.

use std::pin::Pin;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::db::Connection;
use crate::error::StoreError;

/// Something to be written.
///
/// It runs within a transaction that others share, and more than once where the connection
/// broke or two writers were in each other's way: so it must decide by what it reads in there.
pub(crate) trait Write: Send + Sync + 'static {
    /// What the caller gets.
    type Output: Send + 'static;

    /// Does it.
    fn apply(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;

    /// Its size in the queue, roughly.
    fn bytes(&self) -> usize {
        1 << 10
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A write of any type, with somebody who waits for it.
pub(super) trait Job: Send {
    /// Runs it and keeps what it made.
    fn run<'a>(
        &'a mut self,
        connection: &'a mut Connection,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Tells whoever waits.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A write, and who waits for it.
pub(super) struct Pending<W: Write> {
    write: W,
    output: Option<W::Output>,
    reply: oneshot::Sender<Result<W::Output, StoreError>>,
    /// Its room in the queue, until it is answered.
    room: OwnedSemaphorePermit,
}

impl<W: Write> Pending<W> {
    pub(super) fn new(
        write: W,
        reply: oneshot::Sender<Result<W::Output, StoreError>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { write, output: None, reply, room }
    }
}

impl<W: Write> Job for Pending<W> {
    fn run<'a>(
        &'a mut self,
        connection: &'a mut Connection,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.output = Some(self.write.apply(connection).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { output, reply, room, .. } = *self;
        let outcome = outcome.and_then(|()| output.ok_or(StoreError::Closed));
        // Before the answer: whoever gets it may have the next write at hand.
        drop(room);
        // Whoever asked may have left; the write is done all the same.
        let _ = reply.send(outcome);
    }
}
