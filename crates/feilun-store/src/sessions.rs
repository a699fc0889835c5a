//! Sessions: browsers that somebody logged in with. The store knows hashes of their tokens.

use crate::db::{Connection, Insert, values};
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::users::{User, user_of};
use crate::write::Write;

/// A session, to be begun.
#[derive(Clone)]
pub struct NewSession {
    /// A hash of the token in the browser's cookie.
    pub token_hash: [u8; 32],
    /// Whose it is.
    pub user: UserId,
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
        let sql = "SELECT 1 FROM users WHERE id = $1";
        let found = connection.row(sql, values![self.user]).await?;
        found.ok_or(StoreError::NoSuchUser(self.user))?;
        let row = Insert::into("sessions")
            .set("token_hash", self.token_hash)
            .set("user_id", self.user)
            .set("created_at", now)
            .set("expires_at", self.expires_at);
        if !row.run(connection).await? {
            // The token is a secret, so its hash is not named.
            return Err(StoreError::Exists { what: "session", name: self.user.to_string() });
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
