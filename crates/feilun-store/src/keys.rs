//! API keys. The store knows their hashes alone.

use serde_json::json;

use crate::audit::{self, Actor};
use crate::db::{Connection, Insert, Query, Row, values};
use crate::error::StoreError;
use crate::id::{KeyId, UserId};
use crate::limits::check_name;
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::users::Role;
use crate::write::Write;

/// A key, to be added.
#[derive(Clone)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// A hash of the secret, which has enough randomness that a plain hash does.
    pub hash: [u8; 32],
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is; it goes when the user goes, and does nothing while the user may do nothing.
    pub user: Option<UserId>,
    /// Whether what comes with it may be learnt from.
    pub consent: Option<bool>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute.
    pub tokens_per_minute: Option<u32>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is.
    pub user: Option<UserId>,
    /// Whether what comes with it may be learnt from.
    pub consent: Option<bool>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute.
    pub tokens_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

const SELECT: &str = "SELECT id, name, role, user_id, consent, requests_per_minute,
    tokens_per_minute, created_at, expires_at, revoked_at FROM keys WHERE 1 = 1";

impl Store {
    /// Adds a key.
    pub async fn create_key(&self, key: NewKey, actor: Actor) -> Result<(), StoreError> {
        check_name("name", &key.name)?;
        self.write(CreateKey { key, actor }).await
    }

    /// The key of this hash, if it may be used now: it is there, was not taken back, has not
    /// ended, and its user may do something.
    pub async fn key_by_hash(&self, hash: [u8; 32]) -> Result<Option<Key>, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND hash = ").value(hash);
        only_usable(&mut query);
        self.readers().query(query).await?.first().map(key_of).transpose()
    }

    /// The key that a browser was logged in with, if the session has not ended and the key may
    /// be used now.
    pub async fn session_key(&self, token_hash: [u8; 32]) -> Result<Option<Key>, StoreError> {
        let mut query = Query::new(SELECT);
        query
            .text(" AND id = (SELECT key_id FROM sessions WHERE token_hash = ")
            .value(token_hash)
            .text(" AND sessions.expires_at > ")
            .value(Timestamp::now())
            .text(")");
        only_usable(&mut query);
        self.readers().query(query).await?.first().map(key_of).transpose()
    }

    /// The key of this id, whether it may be used or not.
    pub async fn key(&self, id: KeyId) -> Result<Key, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchKey(id)), key_of)
    }

    /// All keys, those too that may not be used any more.
    pub async fn list_keys(&self, page: Page<KeyId>) -> Result<Vec<Key>, StoreError> {
        let mut query = Query::new(SELECT);
        query.page(page);
        self.readers().query(query).await?.iter().map(key_of).collect()
    }

    /// Takes a key back. A key that was taken back already stays so.
    pub async fn revoke_key(&self, id: KeyId, actor: Actor) -> Result<(), StoreError> {
        self.write(ChangeKey { id, change: KeyChange::Revoke, actor }).await
    }

    /// Says whether what comes with a key may be learnt from. A no takes back what was stored
    /// before.
    pub async fn set_key_consent(
        &self,
        id: KeyId,
        consent: Option<bool>,
        actor: Actor,
    ) -> Result<(), StoreError> {
        self.write(ChangeKey { id, change: KeyChange::Consent(consent), actor }).await
    }
}

/// Leaves out keys that were taken back, have ended, or whose user may do nothing.
fn only_usable(query: &mut Query) {
    query
        .text(" AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ")
        .value(Timestamp::now())
        .text(
            ") AND NOT EXISTS (SELECT 1 FROM users
               WHERE users.id = keys.user_id AND users.disabled_at IS NOT NULL)",
        );
}

fn key_of(row: &Row) -> Result<Key, StoreError> {
    let mut columns = row.columns();
    Ok(Key {
        id: columns.next()?,
        name: columns.next()?,
        role: columns.next()?,
        user: columns.next()?,
        consent: columns.next()?,
        requests_per_minute: columns.next()?,
        tokens_per_minute: columns.next()?,
        created_at: columns.next()?,
        expires_at: columns.next()?,
        revoked_at: columns.next()?,
    })
}

struct CreateKey {
    key: NewKey,
    actor: Actor,
}

impl Write for CreateKey {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let key = &self.key;
        if let Some(user) = key.user {
            let sql = "SELECT 1 FROM users WHERE id = $1";
            let found = connection.row(sql, values![user]).await?;
            found.ok_or(StoreError::NoSuchUser(user))?;
        }
        let row = Insert::into("keys")
            .set("id", key.id)
            .set("hash", key.hash)
            .set("name", key.name.as_str())
            .set("role", key.role)
            .set("user_id", key.user)
            .set("consent", key.consent)
            .set("requests_per_minute", key.requests_per_minute)
            .set("tokens_per_minute", key.tokens_per_minute)
            .set("created_at", Timestamp::now())
            .set("expires_at", key.expires_at);
        if !row.run(connection).await? {
            return Err(StoreError::Exists { what: "key", name: key.id.to_string() });
        }
        let detail = json!({
            "role": key.role.as_str(),
            "user": key.user.map(|user| user.to_string()),
            "expires_at": key.expires_at.map(Timestamp::as_micros),
        });
        audit::append(connection, self.actor, "key.create", &key.id.to_string(), detail)
            .await
            .map(drop)
    }
}

enum KeyChange {
    Revoke,
    Consent(Option<bool>),
}

struct ChangeKey {
    id: KeyId,
    change: KeyChange,
    actor: Actor,
}

impl Write for ChangeKey {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let (num_changed, action, detail) = match self.change {
            KeyChange::Revoke => {
                let sql = "UPDATE keys SET revoked_at = COALESCE(revoked_at, $1) WHERE id = $2";
                let values = values![Timestamp::now(), self.id];
                (connection.execute(sql, values).await?, "key.revoke", json!(null))
            }
            KeyChange::Consent(consent) => {
                if consent == Some(false) {
                    let sql = "UPDATE turns SET may_learn = 0 WHERE key_id = $1 AND may_learn = 1";
                    connection.execute(sql, values![self.id]).await?;
                }
                let sql = "UPDATE keys SET consent = $1 WHERE id = $2";
                let num_changed = connection.execute(sql, values![consent, self.id]).await?;
                (num_changed, "key.consent", json!(consent))
            }
        };
        if num_changed == 0 {
            return Err(StoreError::NoSuchKey(self.id));
        }
        audit::append(connection, self.actor, action, &self.id.to_string(), detail).await.map(drop)
    }
}
