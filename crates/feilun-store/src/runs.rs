//! Runs: training jobs, and what they say of themselves.

use serde_json::Value as Json;

use crate::db::{Connection, Insert, Query, Row, values};
use crate::digest::{ConfigHash, ModelDigest};
use crate::error::StoreError;
use crate::id::{KeyId, RunEventId, RunId, UserId};
use crate::limits::{TEXT_BYTES_MAX, check_name, check_text_length, json_text, shortened};
use crate::named::named;
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

named! {
    /// How far a run is.
    pub enum RunStatus {
        /// It waits for its turn.
        Queued = "queued",
        /// It works.
        Running = "running",
        /// It made what it should.
        Succeeded = "succeeded",
        /// It did not.
        Failed = "failed",
        /// Somebody ended it.
        Cancelled = "cancelled",
    }
}

impl RunStatus {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A run, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// What kind of job.
    pub kind: String,
    /// Who asked for it.
    pub user: Option<UserId>,
    /// The key that asked for it.
    pub key: Option<KeyId>,
    /// The model that it begins with.
    pub base: Option<ModelDigest>,
    /// The configuration of the server.
    pub config: Option<ConfigHash>,
    /// The job, as its owner describes it.
    pub detail: Json,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was given to the store, with `detail` as it is now.
    pub recorded: NewRun,
    /// How far it is.
    pub status: RunStatus,
    /// The model that it made.
    pub result: Option<ModelDigest>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began to work.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A change of a run. What is none stays. Of a run that has ended, nothing changes.
#[derive(Clone, Debug, Default)]
pub struct RunChange {
    /// How far it is. Times are kept by the store.
    pub status: Option<RunStatus>,
    /// The model that it made.
    pub result: Option<ModelDigest>,
    /// What went wrong.
    pub error: Option<String>,
    /// The job, as its owner describes it.
    pub detail: Option<Json>,
}

/// Which runs. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Of this kind.
    pub kind: Option<String>,
    /// So far.
    pub status: Option<RunStatus>,
    /// Asked for by this user.
    pub user: Option<UserId>,
    /// Asked for with this key.
    pub key: Option<KeyId>,
}

/// Something that happened in a run, to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRunEvent {
    /// In which run.
    pub run: RunId,
    /// How much it matters, in a word.
    pub level: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub data: Json,
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// Its id.
    pub id: RunEventId,
    /// What was given to the store.
    pub recorded: NewRunEvent,
    /// When.
    pub created_at: Timestamp,
}

const SELECT: &str = "SELECT id, kind, user_id, key_id, base, config_hash, detail, status, result,
    error, created_at, started_at, finished_at FROM runs WHERE 1 = 1";

impl Store {
    /// Records a run, which is queued.
    pub async fn record_run(&self, run: NewRun) -> Result<(), StoreError> {
        check_name("kind", &run.kind)?;
        json_text("detail", &run.detail)?;
        self.write(run).await
    }

    /// The run of this id.
    pub async fn run(&self, id: RunId) -> Result<Run, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchRun(id)), run_of)
    }

    /// Runs.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        page: Page<RunId>,
    ) -> Result<Vec<Run>, StoreError> {
        let mut query = Query::new(SELECT);
        query
            .condition(" AND kind = ", filter.kind.as_deref())
            .condition(" AND status = ", filter.status)
            .condition(" AND user_id = ", filter.user)
            .condition(" AND key_id = ", filter.key);
        query.page(page);
        self.readers().query(query).await?.iter().map(run_of).collect()
    }

    /// Changes a run, and gives it as it is then.
    pub async fn change_run(&self, id: RunId, change: RunChange) -> Result<Run, StoreError> {
        if let Some(detail) = &change.detail {
            json_text("detail", detail)?;
        }
        self.write(ChangeRun { id, change }).await
    }

    /// Adds something that happened in a run.
    pub async fn add_run_event(&self, event: NewRunEvent) -> Result<RunEventId, StoreError> {
        check_name("level", &event.level)?;
        check_text_length("message", &event.message, TEXT_BYTES_MAX)?;
        json_text("data", &event.data)?;
        self.write(event).await
    }

    /// What happened in a run.
    pub async fn run_events(
        &self,
        run: RunId,
        page: Page<RunEventId>,
    ) -> Result<Vec<RunEvent>, StoreError> {
        let mut query =
            Query::new("SELECT id, run_id, level, message, data, created_at FROM run_events");
        query.text(" WHERE run_id = ").value(run);
        query.page(page);
        self.readers().query(query).await?.iter().map(event_of).collect()
    }
}

fn run_of(row: &Row) -> Result<Run, StoreError> {
    let mut columns = row.columns();
    let recorded = NewRun {
        id: columns.next()?,
        kind: columns.next()?,
        user: columns.next()?,
        key: columns.next()?,
        base: columns.next()?,
        config: columns.next()?,
        detail: columns.next()?,
    };
    Ok(Run {
        recorded,
        status: columns.next()?,
        result: columns.next()?,
        error: columns.next::<Option<Json>>()?.map(text_of),
        created_at: columns.next()?,
        started_at: columns.next()?,
        finished_at: columns.next()?,
    })
}

fn event_of(row: &Row) -> Result<RunEvent, StoreError> {
    let mut columns = row.columns();
    let id = columns.next()?;
    let recorded = NewRunEvent {
        run: columns.next()?,
        level: columns.next()?,
        message: text_of(columns.next()?),
        data: columns.next()?,
    };
    Ok(RunEvent { id, recorded, created_at: columns.next()? })
}

/// Kept as JSON, which takes every character.
fn text_of(json: Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

impl Write for NewRun {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let row = Insert::into("runs")
            .set("id", self.id)
            .set("kind", self.kind.as_str())
            .set("status", RunStatus::Queued)
            .set("user_id", self.user)
            .set("key_id", self.key)
            .set("base", self.base)
            .set("config_hash", self.config)
            .set("detail", self.detail.clone())
            .set("created_at", Timestamp::now());
        if !row.run(connection).await? {
            return Err(StoreError::Exists { what: "run", name: self.id.to_string() });
        }
        Ok(())
    }
}

impl Write for NewRunEvent {
    type Output = RunEventId;

    async fn apply(&self, connection: &mut Connection) -> Result<RunEventId, StoreError> {
        let sql = "SELECT 1 FROM runs WHERE id = $1";
        let found = connection.row(sql, values![self.run]).await?;
        found.ok_or(StoreError::NoSuchRun(self.run))?;
        let id = RunEventId::new();
        Insert::into("run_events")
            .set("id", id)
            .set("run_id", self.run)
            .set("level", self.level.as_str())
            .set("message", Json::from(self.message.as_str()))
            .set("data", self.data.clone())
            .set("created_at", Timestamp::now())
            .run(connection)
            .await?;
        Ok(id)
    }
}

struct ChangeRun {
    id: RunId,
    change: RunChange,
}

impl ChangeRun {
    async fn current(&self, connection: &mut Connection) -> Result<Run, StoreError> {
        let sql = format!("{SELECT} AND id = $1");
        let row = connection.row(&sql, values![self.id]).await?;
        row.as_ref().map_or(Err(StoreError::NoSuchRun(self.id)), run_of)
    }

    fn refused(&self, run: &Run) -> StoreError {
        let wanted = self.change.status.unwrap_or(run.status);
        StoreError::RunStatus { run: self.id, found: run.status.as_str(), wanted: wanted.as_str() }
    }
}

impl Write for ChangeRun {
    type Output = Run;

    async fn apply(&self, connection: &mut Connection) -> Result<Run, StoreError> {
        let run = self.current(connection).await?;
        let status = self.change.status.unwrap_or(run.status);
        let goes_back = status == RunStatus::Queued && run.status != RunStatus::Queued;
        if run.status.is_final() || goes_back {
            return Err(self.refused(&run));
        }
        let now = Timestamp::now();
        let started_at = run.started_at.or((status == RunStatus::Running).then_some(now));
        let error = self.change.error.as_deref().map(|text| shortened(text, TEXT_BYTES_MAX));
        let error = error.or(run.error.as_deref()).map(Json::from);
        let detail = self.change.detail.clone().unwrap_or_else(|| run.recorded.detail.clone());
        // Somebody else may have ended it meanwhile, through another connection.
        let sql = "UPDATE runs SET status = $1, result = $2, error = $3, detail = $4,
            started_at = $5, finished_at = $6 WHERE id = $7 AND status = $8";
        let values = values![
            status,
            self.change.result.or(run.result),
            error,
            detail,
            started_at,
            status.is_final().then_some(now),
            self.id,
            run.status,
        ];
        let num_changed = connection.execute(sql, values).await?;
        let run = self.current(connection).await?;
        if num_changed == 0 { Err(self.refused(&run)) } else { Ok(run) }
    }
}
