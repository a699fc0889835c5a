//! Erasure: what was said by somebody, and what was said of it, leaves the store.
//!
//! In SQLite the bytes are gone from the file when [`Store::forget`] returns: deleted content is
//! overwritten (`secure_delete`), and the log is emptied. PostgreSQL keeps deleted rows until
//! its vacuum and in its own log; `forget` runs the vacuum, its log is its administrator's.
//! Backups made before still hold everything.

use std::collections::BTreeSet;

use serde_json::json;

use crate::audit::{self, Actor};
use crate::db::{Connection, Engine, Purpose, Value, values};
use crate::digest::{BlobDigest, ModelDigest};
use crate::error::StoreError;
use crate::id::UserId;
use crate::limits::check_name;
use crate::store::Store;
use crate::write::Write;

/// Who is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Somebody with an account; the account goes too, with its keys, sessions and files.
    User(UserId),
    /// Somebody whom applications call by this name.
    EndUser(String),
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetReport {
    /// Conversations, with all their turns.
    pub conversations: u64,
    /// Turns, in those conversations and in others.
    pub turns: u64,
    /// Feedback, by the subject and on the subject's turns.
    pub feedback: u64,
    /// Events, by the subject and on the subject's turns.
    pub events: u64,
    /// Keys of the account.
    pub keys: u64,
    /// Sessions of the account.
    pub sessions: u64,
    /// Files of the account.
    pub files: u64,
    /// Models that answered the subject; not those that learnt from the subject, of which the
    /// store knows nothing yet.
    pub models: Vec<ModelDigest>,
}

impl Store {
    /// Removes everything of somebody, in one transaction. A subject of whom nothing is there
    /// leaves a report of zeros.
    pub async fn forget(&self, subject: Subject, actor: Actor) -> Result<ForgetReport, StoreError> {
        if let Subject::EndUser(name) = &subject {
            check_name("end_user", name)?;
        }
        let _guard = self.blob_lock().lock().await;
        let (report, blobs) = self.write(Forget { subject, actor }).await?;
        for digest in blobs {
            self.remove_unneeded(digest).await?;
        }
        self.scrub().await?;
        Ok(report)
    }

    /// Makes what was deleted unreadable in the database's files.
    pub(crate) async fn scrub(&self) -> Result<(), StoreError> {
        let mut connection = Connection::open(self.url(), self.options(), Purpose::Write).await?;
        let outcome = match connection.engine() {
            Engine::Sqlite => truncate_log(&mut connection).await,
            Engine::Postgres => {
                connection
                    .script("VACUUM conversations, turns, feedback, events, users, files")
                    .await
            }
        };
        let closed = connection.close().await;
        outcome.and(closed)
    }
}

/// Waits for readers, for as long as the store is patient.
async fn truncate_log(connection: &mut Connection) -> Result<(), StoreError> {
    let row = connection.row("PRAGMA wal_checkpoint(TRUNCATE)", values![]).await?;
    let busy = row.map(|row| row.columns().next::<i64>()).transpose()?;
    if busy == Some(0) {
        return Ok(());
    }
    let reason = "readers kept SQLite's log from being emptied; forget again".to_owned();
    Err(StoreError::Busy { reason })
}

struct Forget {
    subject: Subject,
    actor: Actor,
}

impl Forget {
    fn subject_value(&self) -> Value {
        let value = match &self.subject {
            Subject::User(user) => values![*user],
            Subject::EndUser(name) => values![name.as_str()],
        };
        value.into_iter().next().unwrap_or(Value::Text(None))
    }

    async fn count(&self, connection: &mut Connection, sql: &str) -> Result<u64, StoreError> {
        let row = connection.row(&self.of_subject(sql), vec![self.subject_value()]).await?;
        row.ok_or_else(|| StoreError::damaged("a count without a row"))?.columns().next()
    }

    async fn delete(&self, connection: &mut Connection, sql: &str) -> Result<u64, StoreError> {
        connection.execute(&self.of_subject(sql), vec![self.subject_value()]).await
    }

    /// `{who}` is the condition on the subject.
    fn of_subject(&self, sql: &str) -> String {
        let condition = match &self.subject {
            Subject::User(_) => "user_id = $1",
            Subject::EndUser(_) => "end_user = $1",
        };
        sql.replace("{who}", condition)
    }
}

/// The subject's turns: in the subject's conversations, and in others.
const TURNS: &str = "SELECT id FROM turns WHERE {who}
    OR conversation_id IN (SELECT id FROM conversations WHERE {who})";

impl Write for Forget {
    type Output = (ForgetReport, BTreeSet<BlobDigest>);

    async fn apply(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let mut report = ForgetReport::default();
        let mut blobs = BTreeSet::new();
        let models = format!("SELECT DISTINCT model FROM turns WHERE id IN ({TURNS})");
        for row in connection.rows(&self.of_subject(&models), vec![self.subject_value()]).await? {
            report.models.push(row.columns().next()?);
        }
        report.turns = self
            .count(connection, &format!("SELECT COUNT(*) FROM ({TURNS}) AS of_subject"))
            .await?;
        for (table, count) in [("feedback", &mut report.feedback), ("events", &mut report.events)] {
            let condition = format!("{{who}} OR turn_id IN ({TURNS})");
            *count =
                self.delete(connection, &format!("DELETE FROM {table} WHERE {condition}")).await?;
        }
        // Comparisons of others with the subject's turns go with those turns.
        self.delete(connection, &format!("DELETE FROM turns WHERE id IN ({TURNS})")).await?;
        report.conversations =
            self.delete(connection, "DELETE FROM conversations WHERE {who}").await?;
        if let Subject::User(user) = self.subject {
            self.forget_account(connection, user, &mut report, &mut blobs).await?;
        }
        let (object, kind) = match &self.subject {
            Subject::User(user) => (user.to_string(), "user"),
            // The log must not remember the name.
            Subject::EndUser(_) => (String::new(), "end user"),
        };
        let detail = json!({
            "kind": kind,
            "conversations": report.conversations,
            "turns": report.turns,
            "feedback": report.feedback,
            "events": report.events,
            "keys": report.keys,
            "files": report.files,
        });
        audit::append(connection, self.actor, "subject.forget", &object, detail).await?;
        Ok((report, blobs))
    }
}

impl Forget {
    async fn forget_account(
        &self,
        connection: &mut Connection,
        user: UserId,
        report: &mut ForgetReport,
        blobs: &mut BTreeSet<BlobDigest>,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM files WHERE user_id = $1 RETURNING digest";
        for row in connection.rows(sql, values![user]).await? {
            blobs.insert(row.columns().next()?);
            report.files += 1;
        }
        let mut remove = async |sql: &str| connection.execute(sql, values![user]).await;
        report.keys = remove("DELETE FROM keys WHERE user_id = $1").await?;
        report.sessions = remove("DELETE FROM sessions WHERE user_id = $1").await?;
        // What others must still find of a job has nothing of who asked for it.
        remove("UPDATE runs SET user_id = NULL WHERE user_id = $1").await?;
        remove("DELETE FROM users WHERE id = $1").await?;
        Ok(())
    }
}
