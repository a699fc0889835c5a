//! Fine-tuning jobs: what is kept of them in the store, how they are asked for and cancelled. One
//! is at work at a time ([`supervisor`]); the others wait in the store, so a restart loses none.

pub(crate) mod supervisor;

use std::collections::BTreeMap;

use feilun_store::digest::{BlobDigest, ModelDigest};
use feilun_store::id::RunId;
use feilun_store::runs::{NewRunEvent, Run, RunFilter, RunStatus};
use feilun_store::{Page, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify};

use crate::error::ApiError;
use crate::server::Server;
use crate::training::{Objective, TrainingOrder};

/// What the runs of these jobs are called in the store.
pub(crate) const KIND: &str = "fine_tuning";

/// What handlers and the supervisor share.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// There is something to do.
    pub(crate) changed: Notify,
    /// Held while a job is asked for or a file is deleted, so that no job gets a file that goes.
    pub(crate) desk: Mutex<()>,
}

/// A job as the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// Of the run, and of the model that comes of it.
    pub(crate) name: String,
    pub(crate) base: String,
    pub(crate) base_digest: Option<String>,
    /// The id of the file.
    pub(crate) training_file: String,
    /// Its bytes.
    pub(crate) blob: String,
    pub(crate) is_preference: bool,
    pub(crate) num_epochs: u64,
    pub(crate) batch_size: Option<u64>,
    pub(crate) rate_multiplier: f64,
    pub(crate) beta: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) trained_tokens: Option<u64>,
    pub(crate) progress: Progress,
}

/// How far a job is, for a supervisor that goes on with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) num_steps: u64,
    /// The last step and the last evaluation that were told as events.
    pub(crate) told_step: u64,
    pub(crate) told_evaluation: u64,
    /// The last checkpoint.
    pub(crate) saved_step: u64,
    /// Starts since the last one that came further than those before.
    pub(crate) futile_starts: u64,
}

impl Detail {
    pub(crate) fn of(run: &Run) -> Result<Detail, StoreError> {
        let detail = Detail::deserialize(&run.recorded.detail);
        detail.map_err(|error| StoreError::Damaged { reason: format!("a job: {error}") })
    }

    pub(crate) fn json(&self) -> Value {
        json!(self)
    }

    fn order(&self, server: &Server) -> Result<TrainingOrder, String> {
        let blob: BlobDigest = self.blob.parse().map_err(|_| "the job names no file")?;
        let digest = |text: &String| text.parse::<ModelDigest>().ok();
        Ok(TrainingOrder {
            name: self.name.clone(),
            base: self.base.clone(),
            base_digest: self.base_digest.as_ref().and_then(digest),
            examples: server.store.blob_path(blob),
            objective: self.objective(),
            num_epochs: self.num_epochs,
            batch_size: self.batch_size,
            rate_multiplier: self.rate_multiplier,
            beta: self.beta,
            seed: self.seed,
        })
    }

    pub(crate) fn objective(&self) -> Objective {
        if self.is_preference { Objective::Preference } else { Objective::Supervised }
    }
}

/// `ft-BASE-SUFFIX-ID`: a name of a model and of a folder, whatever the parts say.
pub(crate) fn model_name(base: &str, suffix: Option<&str>, run: RunId) -> String {
    let plain = |text: &str, chars_max: usize| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        text.to_lowercase().chars().map(plain).take(chars_max).collect()
    };
    let id = run.to_string();
    // The last part of an id is random; the first is a time.
    let tail = id.rsplit('-').next().unwrap_or_default();
    match suffix {
        Some(suffix) => format!("ft-{}-{}-{tail}", plain(base, 24), plain(suffix, 20)),
        None => format!("ft-{}-{tail}", plain(base, 24)),
    }
}

/// Jobs that have not ended, the oldest first: those at work, then those that wait.
pub(crate) async fn unfinished(server: &Server) -> Result<Vec<Run>, StoreError> {
    let mut found = Vec::new();
    for status in [RunStatus::Running, RunStatus::Queued] {
        let filter =
            RunFilter { kind: Some(KIND.to_owned()), status: Some(status), ..RunFilter::default() };
        found.extend(server.store.runs(&filter, Page::oldest(1000)).await?);
    }
    Ok(found)
}

/// Whether a job that has not ended needs a file.
pub(crate) async fn needs_file(server: &Server, file: &str) -> Result<bool, ApiError> {
    let needs = |run: &Run| run.recorded.detail["training_file"] == file;
    Ok(unfinished(server).await?.iter().any(needs))
}

/// Records that something happened in a job.
pub(crate) async fn tell(
    server: &Server,
    run: RunId,
    level: &str,
    message: impl Into<String>,
    data: Value,
) -> Result<(), StoreError> {
    let event = NewRunEvent { run, level: level.to_owned(), message: message.into(), data };
    server.store.add_run_event(event).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_folders() {
        let run: RunId = "0192f0c4-0000-7000-8000-0123456789ab".parse().unwrap();
        assert_eq!(model_name("SmolLM2", None, run), "ft-smollm2-0123456789ab");
        let name = model_name("../../x/y@z", Some("My bot\0 飞"), run);
        assert_eq!(name, "ft-..-..-x-y-z-my-bot----0123456789ab");
        let long = model_name(&"a".repeat(500), Some(&"b".repeat(64)), run);
        assert_eq!(long.len(), 61);
    }
}
