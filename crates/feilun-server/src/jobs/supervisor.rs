//! The task that sees to fine-tuning jobs: one at a time, the oldest first.
//!
//! All that it knows is in the store, so a restarted server goes on where the last one was. A job
//! whose process dies is started again and goes on from its last checkpoint, as long as it gets
//! further; one that does not, fails and says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feilun_store::StoreError;
use feilun_store::id::RunId;
use feilun_store::models::{ModelKind, NewModel};
use feilun_store::runs::{Run, RunChange, RunStatus};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Detail, Progress, tell};
use crate::server::Server;
use crate::training::{Ending, News, Trained, Trainer, Training};

/// Between two looks at a job at work.
const TICK: Duration = Duration::from_millis(300);
/// Between two looks for jobs, where nobody says that there is one.
const IDLE: Duration = Duration::from_secs(5);
/// After a fault, before the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// A job that was started so often and got no further has failed.
const FUTILE_STARTS_MAX: u64 = 4;
/// Steps that become events, about: the events of a job stay a few pages.
const STEPS_TOLD: u64 = 200;

/// Sees to jobs until `stop`.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    let Some(trainer) = server.trainer.clone() else { return };
    while !stop.is_cancelled() {
        let pause = match next_job(&server).await {
            Ok(Some(job)) => {
                let id = job.recorded.id;
                let supervision = Supervision { server: &server, id, stop: &stop };
                match supervision.work(&trainer, &job).await {
                    Ok(()) => Duration::ZERO,
                    Err(error) => {
                        tracing::error!(job = %id, %error, "a fine-tuning job");
                        PAUSE
                    }
                }
            }
            Ok(None) => IDLE,
            Err(error) => {
                tracing::error!(%error, "cannot look for fine-tuning jobs");
                IDLE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = server.jobs.changed.notified(), if pause == IDLE => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn next_job(server: &Server) -> Result<Option<Run>, StoreError> {
    Ok(super::unfinished(server).await?.into_iter().next())
}

/// A job at work, and what is asked of it.
struct Supervision<'a> {
    server: &'a Arc<Server>,
    id: RunId,
    stop: &'a CancellationToken,
}

impl Supervision<'_> {
    /// Works on a job until it ends, or has to be looked at again.
    async fn work(&self, trainer: &Arc<dyn Trainer>, job: &Run) -> Result<(), StoreError> {
        let mut detail = match Detail::of(job) {
            Ok(detail) => detail,
            Err(error) => return self.fail(&error.to_string()).await,
        };
        if detail.progress.futile_starts >= FUTILE_STARTS_MAX {
            let reason = job.error.clone().unwrap_or_default();
            let message =
                format!("it broke off {FUTILE_STARTS_MAX} times without getting further: {reason}");
            return self.fail(&message).await;
        }
        detail.progress.futile_starts += 1;
        let begun = RunChange {
            status: Some(RunStatus::Running),
            detail: Some(detail.json()),
            ..RunChange::default()
        };
        match self.server.store.change_run(self.id, begun).await {
            // Cancelled meanwhile.
            Err(StoreError::RunStatus { .. }) => return Ok(()),
            other => other.map(drop)?,
        }
        if job.status == RunStatus::Queued {
            self.tell("info", "Job started", Value::Null).await?;
        }
        let order = match detail.order(self.server) {
            Ok(order) => order,
            Err(reason) => return self.fail(&reason).await,
        };
        let trainer = Arc::clone(trainer);
        match blocking(move || trainer.start(&order)).await {
            Some(Ok(training)) => self.follow(training, detail).await,
            Some(Err(reason)) => self.fail(&reason).await,
            None => Ok(()),
        }
    }

    async fn follow(
        &self,
        mut training: Box<dyn Training>,
        mut detail: Detail,
    ) -> Result<(), StoreError> {
        let mut asked_to_end: Option<Instant> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.stop.cancelled(), if asked_to_end.is_none() => {}
            }
            let is_unwanted = self.stop.is_cancelled() || self.is_cancelled().await;
            let is_late = asked_to_end
                .is_some_and(|at| at.elapsed() > self.server.config.limits.training_patience);
            let is_new = is_unwanted && asked_to_end.is_none();
            if is_new {
                asked_to_end = Some(Instant::now());
            }
            let looked = blocking(move || {
                if is_new {
                    training.interrupt();
                }
                if is_late {
                    training.kill();
                }
                // In this order: what happens in between belongs to the next look.
                let ending = training.ending();
                (training.news(), ending, training)
            });
            let Some((news, ending, back)) = looked.await else {
                return self.fail("the server could not follow it").await;
            };
            training = back;
            // Events are not worth a job: what the store cannot take now is not told.
            if let Err(error) = self.report(&mut detail, news).await {
                tracing::warn!(job = %self.id, %error, "news of a fine-tuning job are lost");
            }
            if let Some(ending) = ending {
                return self.end(ending, detail).await;
            }
        }
    }

    async fn is_cancelled(&self) -> bool {
        let run = self.server.store.run(self.id).await;
        // A store that does not answer has not cancelled anything.
        run.is_ok_and(|run| run.status.is_final())
    }

    async fn report(&self, detail: &mut Detail, news: Vec<News>) -> Result<(), StoreError> {
        let before = detail.progress;
        for news in news {
            if let Some((message, data)) = told(&mut detail.progress, &news) {
                self.tell("info", message, data).await?;
            }
        }
        if detail.progress == before {
            return Ok(());
        }
        let change = RunChange { detail: Some(detail.json()), ..RunChange::default() };
        match self.server.store.change_run(self.id, change).await {
            // Cancelled: it stays as it was.
            Err(StoreError::RunStatus { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn end(&self, ending: Ending, mut detail: Detail) -> Result<(), StoreError> {
        match ending {
            Ending::Trained(trained) => {
                detail.trained_tokens = Some(trained.num_tokens);
                self.record_model(&detail, trained).await?;
                let change = RunChange {
                    status: Some(RunStatus::Succeeded),
                    result: Some(trained.digest),
                    detail: Some(detail.json()),
                    ..RunChange::default()
                };
                self.finish(change, "info", &format!("New fine-tuned model: {}", detail.name)).await
            }
            Ending::Failed { reason } => self.fail(&reason).await,
            Ending::BrokenOff { .. } if self.stop.is_cancelled() => Ok(()),
            Ending::BrokenOff { reason } => {
                tracing::warn!(job = %self.id, reason, "a fine-tuning job broke off");
                let change = RunChange { error: Some(reason.clone()), ..RunChange::default() };
                match self.server.store.change_run(self.id, change).await {
                    Err(StoreError::RunStatus { .. }) => return Ok(()),
                    other => other.map(drop)?,
                }
                let message = format!("{reason}; it goes on from its last checkpoint");
                self.tell("warn", message, Value::Null).await
            }
        }
    }

    async fn record_model(&self, detail: &Detail, trained: Trained) -> Result<(), StoreError> {
        let Trained { digest, base, size_bytes, .. } = trained;
        let detail = json!({ "training_file": detail.training_file, "name": detail.name });
        let name = detail["name"].as_str().unwrap_or_default().to_owned();
        let model = NewModel {
            digest,
            name,
            kind: ModelKind::Adapter,
            base: Some(base),
            parent: Some(base),
            run: Some(self.id),
            config: Some(self.server.config_hash),
            size_bytes,
            detail,
        };
        self.server.store.record_model(model).await
    }

    async fn fail(&self, reason: &str) -> Result<(), StoreError> {
        let change = RunChange {
            status: Some(RunStatus::Failed),
            error: Some(reason.to_owned()),
            ..RunChange::default()
        };
        self.finish(change, "error", &format!("Job failed: {reason}")).await
    }

    /// The last change of a job and the last event. If it was cancelled meanwhile, so it stays.
    async fn finish(
        &self,
        change: RunChange,
        level: &str,
        message: &str,
    ) -> Result<(), StoreError> {
        match self.server.store.change_run(self.id, change).await {
            Err(StoreError::RunStatus { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => self.tell(level, message, Value::Null).await,
        }
    }

    async fn tell(
        &self,
        level: &str,
        message: impl Into<String>,
        data: Value,
    ) -> Result<(), StoreError> {
        tell(self.server, self.id, level, message, data).await
    }
}

/// On a thread that may wait. None if it panicked, which is told in the log.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work)
        .await
        .inspect_err(|error| tracing::error!(%error, "the trainer failed"))
        .ok()
}

/// What is said of news, if it is new and worth it.
fn told(progress: &mut Progress, news: &News) -> Option<(String, Value)> {
    let num_steps = progress.num_steps;
    match *news {
        News::Started { num_steps, step } => {
            progress.num_steps = num_steps;
            let again = step > 0 && progress.told_step >= step;
            again.then(|| (format!("Goes on after step {step}/{num_steps}"), Value::Null))
        }
        News::Step { step, loss, learning_rate } => {
            let every = (num_steps / STEPS_TOLD).max(1);
            let is_worth_it = step % every == 0 || step == 1 || step == num_steps;
            if step <= progress.told_step || !is_worth_it {
                return None;
            }
            progress.told_step = step;
            let data = json!({
                "step": step, "total_steps": num_steps, "train_loss": loss,
                "learning_rate": learning_rate,
            });
            Some((format!("Step {step}/{num_steps}: training loss={loss:.4}"), data))
        }
        News::Evaluation { step, loss } => {
            if step <= progress.told_evaluation {
                return None;
            }
            progress.told_evaluation = step;
            let data = json!({ "step": step, "total_steps": num_steps, "full_valid_loss": loss });
            Some((format!("Step {step}/{num_steps}: validation loss={loss:.4}"), data))
        }
        News::Saved { step } => {
            if step > progress.saved_step {
                progress.saved_step = step;
                progress.futile_starts = 0;
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_once_and_steps_in_measure() {
        let mut progress = Progress { futile_starts: 2, ..Progress::default() };
        let step = |step| News::Step { step, loss: 1.0, learning_rate: 0.1 };
        assert_eq!(told(&mut progress, &News::Started { step: 0, num_steps: 2000 }), None);
        let count = |progress: &mut Progress| {
            (1..=2000).filter(|&number| told(progress, &step(number)).is_some()).count()
        };
        assert_eq!(count(&mut progress), 201);
        assert_eq!(count(&mut progress), 0);
        let evaluation = News::Evaluation { step: 50, loss: 2.0 };
        assert!(told(&mut progress, &evaluation).is_some());
        assert!(told(&mut progress, &evaluation).is_none());
        assert!(told(&mut progress, &News::Started { step: 50, num_steps: 2000 }).is_some());
        assert_eq!(told(&mut progress, &News::Saved { step: 50 }), None);
        assert_eq!((progress.saved_step, progress.futile_starts), (50, 0));
    }
}
