//! The audit log: who did what. Entries are added and never changed.
//!
//! Acts of the store itself (a key made, an alias moved, a user forgotten) are logged in the
//! transaction that does them, so that neither is there without the other.

use serde_json::Value as Json;

use crate::db::{Connection, Insert, Query, Row};
use crate::error::StoreError;
use crate::id::{AuditId, KeyId, UserId};
use crate::limits::{TEXT_BYTES_MAX, check_name, check_text_length, json_text};
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Somebody with an account.
    User(UserId),
    /// A program with a key.
    Key(KeyId),
    /// Whoever works at the command line of the server, or the server itself.
    Operator,
}

impl Actor {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Key(_) => "key",
            Self::Operator => "operator",
        }
    }

    pub(crate) fn id(self) -> Option<Vec<u8>> {
        match self {
            Self::User(id) => Some(id.as_bytes().to_vec()),
            Self::Key(id) => Some(id.as_bytes().to_vec()),
            Self::Operator => None,
        }
    }

    pub(crate) fn from_columns(kind: &str, id: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let id = id.map(<[u8; 16]>::try_from);
        match (kind, id) {
            ("user", Some(Ok(id))) => Ok(Self::User(UserId::from_bytes(id))),
            ("key", Some(Ok(id))) => Ok(Self::Key(KeyId::from_bytes(id))),
            ("operator", None) => Ok(Self::Operator),
            _ => Err(StoreError::damaged(format!("an actor is a `{kind}`"))),
        }
    }
}

/// Something that was done, to be logged.
#[derive(Clone, Debug)]
pub struct NewAuditEntry {
    /// By whom.
    pub actor: Actor,
    /// What, as `noun.verb`.
    pub action: String,
    /// To what: an id or a name.
    pub object: String,
    /// More of it. No secrets, no content of conversations.
    pub detail: Json,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// By whom.
    pub actor: Actor,
    /// What, as `noun.verb`.
    pub action: String,
    /// To what.
    pub object: String,
    /// More of it.
    pub detail: Json,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Logs an act that is not the store's own.
    pub async fn audit(&self, entry: NewAuditEntry) -> Result<AuditId, StoreError> {
        check_name("action", &entry.action)?;
        check_text_length("object", &entry.object, TEXT_BYTES_MAX)?;
        json_text("detail", &entry.detail)?;
        self.write(entry).await
    }

    /// The audit log.
    pub async fn audit_log(&self, page: Page<AuditId>) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = Query::new(
            "SELECT id, actor_kind, actor_id, action, object, detail, created_at FROM audit
             WHERE 1 = 1",
        );
        query.page(page);
        self.readers().query(query).await?.iter().map(entry).collect()
    }
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let mut columns = row.columns();
    Ok(AuditEntry {
        id: columns.next()?,
        actor: Actor::from_columns(&columns.next::<String>()?, columns.next()?)?,
        action: columns.next()?,
        // As JSON, for it may have come from anywhere, NUL bytes included.
        object: text_of(columns.next()?),
        detail: columns.next()?,
        at: columns.next()?,
    })
}

fn text_of(json: Json) -> String {
    match json {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

impl Write for NewAuditEntry {
    type Output = AuditId;

    async fn apply(&self, connection: &mut Connection) -> Result<AuditId, StoreError> {
        append(connection, self.actor, &self.action, &self.object, self.detail.clone()).await
    }
}

/// Adds an entry, within a transaction.
pub(crate) async fn append(
    connection: &mut Connection,
    actor: Actor,
    action: &str,
    object: &str,
    detail: Json,
) -> Result<AuditId, StoreError> {
    let id = AuditId::new();
    Insert::into("audit")
        .set("id", id)
        .set("actor_kind", actor.kind())
        .set("actor_id", actor.id())
        .set("action", action)
        .set("object", Json::from(object))
        .set("detail", detail)
        .set("created_at", Timestamp::now())
        .run(connection)
        .await?;
    Ok(id)
}
