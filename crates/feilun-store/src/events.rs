//! Events: what people do with an answer without saying anything of it. They are never added up
//! with feedback.

use serde_json::Value as Json;

use crate::db::{Connection, Insert, Row, values};
use crate::digest::ConfigHash;
use crate::error::StoreError;
use crate::feedback::check_references;
use crate::id::{EventId, KeyId, TurnId, UserId};
use crate::limits::{check_name_if_any, check_text_length, json_text};
use crate::named::named;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// Of one turn, how many events are read.
const EVENTS_MAX: i64 = 1000;
/// Of the detail of one event.
const DETAIL_BYTES_MAX: usize = 64 << 10;

named! {
    /// What was done with an answer.
    pub enum EventKind {
        /// Another answer was asked for.
        Regenerate = "regenerate",
        /// It was changed before it was used.
        Edit = "edit",
        /// It was copied.
        Copy = "copy",
        /// It was stopped before its end.
        Stop = "stop",
        /// The conversation went on.
        Continue = "continue",
        /// The conversation did not go on.
        Abandon = "abandon",
    }
}

/// An event, to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Of which turn.
    pub turn: TurnId,
    /// What was done.
    pub kind: EventKind,
    /// More of it: a position, the text as it was changed.
    pub detail: Json,
    /// Who did it, if it is somebody with an account.
    pub user: Option<UserId>,
    /// Who did it, in the words of the application.
    pub end_user: Option<String>,
    /// The key that it came with.
    pub key: Option<KeyId>,
    /// The configuration of the server, recorded before.
    pub config: ConfigHash,
}

/// An event, as it was added.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// What was given to the store.
    pub recorded: NewEvent,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Store {
    /// Adds an event to a turn. It returns once it is committed.
    pub async fn add_event(&self, event: NewEvent) -> Result<EventId, StoreError> {
        check_name_if_any("end_user", event.end_user.as_deref())?;
        let detail = json_text("detail", &event.detail)?;
        check_text_length("detail", &detail, DETAIL_BYTES_MAX)?;
        self.write(event).await
    }

    /// All events of a turn, the oldest first; of more than a thousand, the newest thousand.
    pub async fn events_of(&self, turn: TurnId) -> Result<Vec<Event>, StoreError> {
        let sql = "SELECT id, turn_id, kind, detail, user_id, end_user, key_id, config_hash,
            created_at FROM events WHERE turn_id = $1 ORDER BY id DESC LIMIT $2";
        let rows = self.readers().rows(sql, values![turn, EVENTS_MAX]).await?;
        rows.iter().rev().map(event_of).collect()
    }
}

impl Write for NewEvent {
    type Output = EventId;

    async fn apply(&self, connection: &mut Connection) -> Result<EventId, StoreError> {
        check_references(connection, self.turn, self.config).await?;
        let id = EventId::new();
        Insert::into("events")
            .set("id", id)
            .set("turn_id", self.turn)
            .set("kind", self.kind)
            .set("detail", self.detail.clone())
            .set("user_id", self.user)
            .set("end_user", self.end_user.as_deref())
            .set("key_id", self.key)
            .set("config_hash", self.config)
            .set("created_at", Timestamp::now())
            .run(connection)
            .await?;
        Ok(id)
    }
}

fn event_of(row: &Row) -> Result<Event, StoreError> {
    let mut columns = row.columns();
    let id = columns.next()?;
    let recorded = NewEvent {
        turn: columns.next()?,
        kind: columns.next()?,
        detail: columns.next()?,
        user: columns.next()?,
        end_user: columns.next()?,
        key: columns.next()?,
        config: columns.next()?,
    };
    Ok(Event { id, recorded, created_at: columns.next()? })
}
