//! Retention: what is older than a team wants to keep leaves the store.

use serde_json::json;

use crate::audit::{self, Actor};
use crate::db::{Connection, values};
use crate::error::StoreError;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// Turns that one transaction deletes: others write between two of them.
const TURNS_AT_ONCE: i64 = 500;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Turns, with their feedback and events.
    pub turns: u64,
    /// Conversations of which no turn was left.
    pub conversations: u64,
}

impl Store {
    /// Deletes turns received before `cutoff`, and conversations that are empty then.
    ///
    /// It works in many transactions, the oldest turns first. If it is interrupted, the rest is
    /// deleted the next time. The audit log stays.
    pub async fn delete_older_than(
        &self,
        cutoff: Timestamp,
        actor: Actor,
    ) -> Result<RetentionReport, StoreError> {
        let mut report = RetentionReport::default();
        loop {
            let step = self.write(DeleteOld { cutoff }).await?;
            report.turns += step.turns;
            report.conversations += step.conversations;
            if step == RetentionReport::default() {
                break;
            }
        }
        self.write(Log { cutoff, report, actor }).await?;
        self.scrub().await?;
        Ok(report)
    }
}

struct DeleteOld {
    cutoff: Timestamp,
}

impl Write for DeleteOld {
    type Output = RetentionReport;

    async fn apply(&self, connection: &mut Connection) -> Result<RetentionReport, StoreError> {
        let values = || values![self.cutoff, TURNS_AT_ONCE];
        let sql = "DELETE FROM turns WHERE id IN (
            SELECT id FROM turns WHERE received_at < $1 ORDER BY received_at LIMIT $2)";
        let turns = connection.execute(sql, values()).await?;
        let sql = "DELETE FROM conversations WHERE id IN (
            SELECT id FROM conversations WHERE updated_at < $1 AND NOT EXISTS (
                SELECT 1 FROM turns WHERE turns.conversation_id = conversations.id) LIMIT $2)";
        let conversations = connection.execute(sql, values()).await?;
        Ok(RetentionReport { turns, conversations })
    }
}

struct Log {
    cutoff: Timestamp,
    report: RetentionReport,
    actor: Actor,
}

impl Write for Log {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let RetentionReport { turns, conversations } = self.report;
        let detail = json!({
            "before": self.cutoff.as_micros(), "turns": turns, "conversations": conversations,
        });
        audit::append(connection, self.actor, "retention.delete", "turns", detail).await.map(drop)
    }
}
