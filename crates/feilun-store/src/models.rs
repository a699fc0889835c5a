//! Models that this installation knows, with where they come from. The store knows their
//! digests, never their bytes.

use serde_json::{Value as Json, json};

use crate::audit::{self, Actor};
use crate::db::{Connection, Insert, Row, values};
use crate::digest::{ConfigHash, ModelDigest};
use crate::error::StoreError;
use crate::id::RunId;
use crate::limits::{PAGE_ROWS_MAX, TEXT_BYTES_MAX, check_name, check_text_length, json_text};
use crate::named::named;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

named! {
    /// What kind of model.
    pub enum ModelKind {
        /// Whole weights.
        Base = "base",
        /// An adapter over a base.
        Adapter = "adapter",
    }
}

/// A model, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewModel {
    /// Names it by its content.
    pub digest: ModelDigest,
    /// What people call it.
    pub name: String,
    /// What kind of model.
    pub kind: ModelKind,
    /// What an adapter is an adapter of.
    pub base: Option<ModelDigest>,
    /// What it was trained from.
    pub parent: Option<ModelDigest>,
    /// The run that made it.
    pub run: Option<RunId>,
    /// The configuration of that run.
    pub config: Option<ConfigHash>,
    /// Its size.
    pub size_bytes: u64,
    /// More of it: source, licence, dataset version.
    pub detail: Json,
}

/// A model, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What was given to the store.
    pub recorded: NewModel,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Since when it may not be served, and why.
    pub blocked: Option<(Timestamp, String)>,
}

const SELECT: &str = "SELECT digest, name, kind, base, parent, run_id, config_hash, size_bytes,
    detail, created_at, blocked_at, blocked_reason FROM models";

impl Store {
    /// Records a model. What was recorded first stays: a model never changes.
    pub async fn record_model(&self, model: NewModel) -> Result<(), StoreError> {
        check_name("name", &model.name)?;
        json_text("detail", &model.detail)?;
        let is_adapter = model.kind == ModelKind::Adapter;
        if is_adapter != model.base.is_some() {
            return Err(StoreError::Invalid {
                field: "base",
                found: format!("{:?}", model.base),
                expected: "a base for an adapter, and none for a base".to_owned(),
            });
        }
        self.write(model).await
    }

    /// The model of this digest.
    pub async fn model(&self, digest: ModelDigest) -> Result<Model, StoreError> {
        let sql = format!("{SELECT} WHERE digest = $1");
        let row = self.readers().row(&sql, values![digest]).await?;
        row.as_ref().map_or(Err(StoreError::NoSuchModel(digest)), model_of)
    }

    /// The models, the newest first; of more than a thousand, the newest thousand.
    pub async fn models(&self) -> Result<Vec<Model>, StoreError> {
        let sql = format!("{SELECT} ORDER BY created_at DESC, digest LIMIT $1");
        let rows = self.readers().rows(&sql, values![PAGE_ROWS_MAX]).await?;
        rows.iter().map(model_of).collect()
    }

    /// Forbids to serve a model: no alias can be moved to it any more.
    pub async fn block_model(
        &self,
        digest: ModelDigest,
        reason: &str,
        actor: Actor,
    ) -> Result<(), StoreError> {
        check_text_length("reason", reason, TEXT_BYTES_MAX)?;
        check_name("reason", crate::limits::shortened(reason, 200))?;
        self.write(Block { digest, reason: reason.to_owned(), actor }).await
    }
}

fn model_of(row: &Row) -> Result<Model, StoreError> {
    let mut columns = row.columns();
    let recorded = NewModel {
        digest: columns.next()?,
        name: columns.next()?,
        kind: columns.next()?,
        base: columns.next()?,
        parent: columns.next()?,
        run: columns.next()?,
        config: columns.next()?,
        size_bytes: columns.next()?,
        detail: columns.next()?,
    };
    let created_at = columns.next()?;
    let (at, reason): (Option<Timestamp>, Option<String>) = (columns.next()?, columns.next()?);
    Ok(Model { recorded, created_at, blocked: at.zip(reason) })
}

impl Write for NewModel {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        Insert::into("models")
            .set("digest", self.digest)
            .set("name", self.name.as_str())
            .set("kind", self.kind)
            .set("base", self.base)
            .set("parent", self.parent)
            .set("run_id", self.run)
            .set("config_hash", self.config)
            .set("size_bytes", self.size_bytes)
            .set("detail", self.detail.clone())
            .set("created_at", Timestamp::now())
            .run(connection)
            .await
            .map(drop)
    }
}

struct Block {
    digest: ModelDigest,
    reason: String,
    actor: Actor,
}

impl Write for Block {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sql = "UPDATE models SET blocked_at = COALESCE(blocked_at, $1),
            blocked_reason = COALESCE(blocked_reason, $2) WHERE digest = $3";
        let values = values![Timestamp::now(), self.reason.as_str(), self.digest];
        if connection.execute(sql, values).await? == 0 {
            return Err(StoreError::NoSuchModel(self.digest));
        }
        let (object, detail) = (self.digest.to_string(), json!({ "reason": self.reason }));
        audit::append(connection, self.actor, "model.block", &object, detail).await.map(drop)
    }
}

/// That a model is there and may be served.
pub(crate) async fn check_servable(
    connection: &mut Connection,
    model: ModelDigest,
) -> Result<(), StoreError> {
    let sql = "SELECT blocked_reason FROM models WHERE digest = $1";
    let row = connection.row(sql, values![model]).await?;
    match row.ok_or(StoreError::NoSuchModel(model))?.columns().next()? {
        None => Ok(()),
        Some(reason) => Err(StoreError::ModelBlocked { model, reason }),
    }
}
