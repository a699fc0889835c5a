//! The task that writes: batches, retries, and what becomes of a connection that failed.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::db::{Connection, Purpose};
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::url::StoreUrl;
use crate::write::job::Job;

/// Between two attempts at the same batch; it doubles up to the second.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The task's state.
pub(super) struct Committer {
    /// None after it failed, until the next batch connects again.
    connection: Option<Connection>,
    url: StoreUrl,
    options: StoreOptions,
}

/// A batch that was not committed.
struct Failure {
    error: StoreError,
    /// Whether it is certain that nothing of it was committed.
    certain: bool,
}

/// What became of each write of a committed batch.
type Outcomes = Vec<Result<(), StoreError>>;

impl Committer {
    pub(super) fn new(connection: Connection, url: StoreUrl, options: StoreOptions) -> Self {
        Self { connection: Some(connection), url, options }
    }

    /// Writes until the queue is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let num_max = self.options.batch_writes_max.max(1);
        let mut batch = Vec::with_capacity(num_max);
        while queue.recv_many(&mut batch, num_max).await > 0 {
            self.write(std::mem::take(&mut batch)).await;
        }
        if let Some(connection) = self.connection.take() {
            // Everything is committed; closing only tidies up.
            let _ = connection.close().await;
        }
    }

    async fn write(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.commit_patiently(&mut batch).await {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.answer(outcome);
                }
            }
            // One of them may be too large for what is left; the others need not suffer.
            Err(StoreError::Full { .. }) if batch.len() > 1 => {
                for job in batch {
                    let mut alone = vec![job];
                    let outcome = self.commit_patiently(&mut alone).await;
                    answer_all(alone, outcome.and_then(only));
                }
            }
            Err(error) => answer_all(batch, Err(error)),
        }
    }

    /// Tries until the batch is committed, its failure is final, or patience is at its end.
    async fn commit_patiently(
        &mut self,
        batch: &mut [Box<dyn Job>],
    ) -> Result<Outcomes, StoreError> {
        let deadline = Instant::now() + self.options.patience;
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let failure = match self.commit(batch).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failure) => failure,
            };
            let may_pass =
                matches!(failure.error, StoreError::Busy { .. } | StoreError::Unreachable { .. });
            // Not again after a commit without an answer: it may have happened.
            if !may_pass || !failure.certain || Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// One transaction. A connection that did not get through it in order is dropped.
    async fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Outcomes, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::connect(&self.url, &self.options, Purpose::Write)
                .await
                .map_err(|error| Failure { error, certain: true })?,
        };
        let mut committing = false;
        let transaction = transaction(&mut connection, batch, &mut committing);
        let outcome = tokio::time::timeout(self.options.statement_time_max, transaction).await;
        let error = match outcome {
            Ok(Ok(outcomes)) => {
                self.connection = Some(connection);
                return Ok(outcomes);
            }
            Ok(Err(error)) => error,
            Err(_) => StoreError::Unreachable {
                reason: format!("no commit within {:?}", self.options.statement_time_max),
            },
        };
        // With these, a database is in order and says so: a commit that it refused was none.
        let in_order = matches!(error, StoreError::Busy { .. } | StoreError::Full { .. });
        if in_order {
            // SQLite has rolled back by itself in some of these cases, and then says that there
            // is no transaction.
            if !matches!(connection.rollback().await, Err(StoreError::Unreachable { .. })) {
                self.connection = Some(connection);
            }
        }
        Err(Failure { error, certain: in_order || !committing })
    }
}

async fn transaction(
    connection: &mut Connection,
    batch: &mut [Box<dyn Job>],
    committing: &mut bool,
) -> Result<Outcomes, StoreError> {
    connection.begin().await?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for job in batch.iter_mut() {
        connection.script("SAVEPOINT one").await?;
        let outcome = job.run(connection).await;
        match &outcome {
            Ok(()) => connection.script("RELEASE SAVEPOINT one").await?,
            Err(error) if concerns_all(error) => return outcome.map(|()| Vec::new()),
            Err(_) => {
                connection.script("ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
            }
        }
        outcomes.push(outcome);
    }
    *committing = true;
    connection.commit().await?;
    Ok(outcomes)
}

/// Whether the transaction cannot go on after this error of one write.
fn concerns_all(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Busy { .. }
            | StoreError::Full { .. }
            | StoreError::Unreachable { .. }
            | StoreError::Closed
    )
}

fn only(mut outcomes: Outcomes) -> Result<(), StoreError> {
    outcomes.pop().unwrap_or(Err(StoreError::Closed))
}

fn answer_all(batch: Vec<Box<dyn Job>>, outcome: Result<(), StoreError>) {
    for job in batch {
        job.answer(outcome.clone());
    }
}
