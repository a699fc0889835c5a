//! Sessions: browsers that somebody logged in with. The store knows hashes of their tokens.
//!
//! A session is a user's or a key's, and is worth as much as its owner: one of a key that is
//! taken back, or of a user who may do nothing any more, is none.

use crate::db::{Connection, Insert, values};
use crate::error::StoreError;
use crate::id::{KeyId, UserId};
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::users::{User, user_of};
use crate::write::Write;

/// Sessions of one owner at the same time. The oldest ends when another begins.
const SESSIONS_MAX: i64 = 100;

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOwner {
    /// Somebody with an account.
    User(UserId),
    /// Whoever has this key.
    Key(KeyId),
}

/// A session, to be begun.
#[derive(Clone)]
pub struct NewSession {
    /// A hash of the token in the browser's cookie.
    pub token_hash: [u8; 32],
    /// Whose it is.
    pub owner: SessionOwner,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Store {
    /// Begins a session. Sessions that have ended are removed meanwhile.
    pub async fn create_session(&self, session: NewSession) -> Result<(), StoreError> {
        self.write(session).await
    }

    /// Whose session it is, if it has not ended and the user may do something.
    pub async fn session_user(&self, token_hash: [u8; 32]) -> Result<Option<User>, StoreError> {
        let sql = "SELECT users.id, name, role, password_hash, consent, users.created_at,
            disabled_at FROM users JOIN sessions ON sessions.user_id = users.id
            WHERE token_hash = $1 AND expires_at > $2 AND disabled_at IS NULL";
        let row = self.readers().row(sql, values![token_hash, Timestamp::now()]).await?;
        row.as_ref().map(user_of).transpose()
    }

    /// Ends a session, if it is there.
    pub async fn end_session(&self, token_hash: [u8; 32]) -> Result<(), StoreError> {
        self.write(EndSession { token_hash }).await
    }
}

impl Write for NewSession {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let now = Timestamp::now();
        connection.execute("DELETE FROM sessions WHERE expires_at <= $1", values![now]).await?;
        let (user, key) = match self.owner {
            SessionOwner::User(user) => {
                let sql = "SELECT 1 FROM users WHERE id = $1";
                let found = connection.row(sql, values![user]).await?;
                found.ok_or(StoreError::NoSuchUser(user))?;
                (Some(user), None)
            }
            SessionOwner::Key(key) => {
                let sql = "SELECT 1 FROM keys WHERE id = $1";
                let found = connection.row(sql, values![key]).await?;
                found.ok_or(StoreError::NoSuchKey(key))?;
                (None, Some(key))
            }
        };
        let sql = "DELETE FROM sessions WHERE (user_id = $1 OR key_id = $2)
            AND token_hash NOT IN (SELECT token_hash FROM sessions
                WHERE user_id = $3 OR key_id = $4
                ORDER BY created_at DESC, token_hash LIMIT $5)";
        connection.execute(sql, values![user, key, user, key, SESSIONS_MAX - 1]).await?;
        let row = Insert::into("sessions")
            .set("token_hash", self.token_hash)
            .set("user_id", user)
            .set("key_id", key)
            .set("created_at", now)
            .set("expires_at", self.expires_at);
        if !row.run(connection).await? {
            // The token is a secret, so its hash is not named.
            return Err(StoreError::Exists { what: "session", name: format!("{:?}", self.owner) });
        }
        Ok(())
    }
}

struct EndSession {
    token_hash: [u8; 32],
}

impl Write for EndSession {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sql = "DELETE FROM sessions WHERE token_hash = $1";
        connection.execute(sql, values![self.token_hash]).await.map(drop)
    }
}
