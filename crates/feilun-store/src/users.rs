//! Users: people with accounts.

use serde_json::json;

use crate::audit::{self, Actor};
use crate::db::{Connection, Insert, Query, Row, values};
use crate::error::StoreError;
use crate::id::UserId;
use crate::limits::{TEXT_BYTES_MAX, check_name, check_text_length};
use crate::named::named;
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

named! {
    /// What a user or a key may do. What each role means is the server's to know.
    pub enum Role {
        /// Everything.
        Admin = "admin",
        /// Look at what was captured, and train.
        Curator = "curator",
        /// Use models, and see what is one's own.
        Member = "member",
        /// A program that serves others: use models, give feedback.
        App = "app",
    }
}

/// A user, to be added.
#[derive(Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
    /// The name, which nobody else has.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// A hash of the password, by an algorithm that the server knows. Never the password.
    pub password_hash: Option<String>,
    /// Whether what the user says may be learnt from.
    pub consent: Option<bool>,
}

/// A user.
#[derive(Clone, PartialEq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// A hash of the password.
    pub password_hash: Option<String>,
    /// Whether what the user says may be learnt from.
    pub consent: Option<bool>,
    /// When the user was added.
    pub created_at: Timestamp,
    /// Since when the user may do nothing.
    pub disabled_at: Option<Timestamp>,
}

/// A change of a user. What is none stays.
#[derive(Clone, Default)]
pub struct UserChange {
    /// Another role.
    pub role: Option<Role>,
    /// Another password; all sessions end.
    pub password_hash: Option<String>,
    /// Whether what the user says may be learnt from. A no takes back what was stored before.
    pub consent: Option<Option<bool>>,
    /// Whether the user may do nothing; all sessions end.
    pub disabled: Option<bool>,
}

/// Hashes of passwords belong in no log.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("consent", &self.consent)
            .field("disabled_at", &self.disabled_at)
            .finish_non_exhaustive()
    }
}

const SELECT: &str = "SELECT id, name, role, password_hash, consent, created_at, disabled_at
    FROM users WHERE 1 = 1";

impl Store {
    /// Adds a user.
    pub async fn create_user(&self, user: NewUser, actor: Actor) -> Result<(), StoreError> {
        check_name("name", &user.name)?;
        check_hash(user.password_hash.as_deref())?;
        self.write(CreateUser { user, actor }).await
    }

    /// The user of this id.
    pub async fn user(&self, id: UserId) -> Result<User, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchUser(id)), user_of)
    }

    /// The user of this name, if there is one.
    pub async fn user_by_name(&self, name: &str) -> Result<Option<User>, StoreError> {
        // A name that PostgreSQL has no text for is nobody's.
        if check_name("name", name).is_err() {
            return Ok(None);
        }
        let mut query = Query::new(SELECT);
        query.text(" AND name = ").value(name);
        self.readers().query(query).await?.first().map(user_of).transpose()
    }

    /// All users.
    pub async fn users(&self, page: Page<UserId>) -> Result<Vec<User>, StoreError> {
        let mut query = Query::new(SELECT);
        query.page(page);
        self.readers().query(query).await?.iter().map(user_of).collect()
    }

    /// Changes a user.
    pub async fn change_user(
        &self,
        id: UserId,
        change: UserChange,
        actor: Actor,
    ) -> Result<(), StoreError> {
        check_hash(change.password_hash.as_deref())?;
        self.write(ChangeUser { id, change, actor }).await
    }
}

fn check_hash(hash: Option<&str>) -> Result<(), StoreError> {
    let Some(hash) = hash else { return Ok(()) };
    check_text_length("password_hash", hash, TEXT_BYTES_MAX)?;
    check_name("password_hash", crate::limits::shortened(hash, 200))
}

/// A user from the columns that [`SELECT`] names.
pub(crate) fn user_of(row: &Row) -> Result<User, StoreError> {
    let mut columns = row.columns();
    Ok(User {
        id: columns.next()?,
        name: columns.next()?,
        role: columns.next()?,
        password_hash: columns.next()?,
        consent: columns.next()?,
        created_at: columns.next()?,
        disabled_at: columns.next()?,
    })
}

struct CreateUser {
    user: NewUser,
    actor: Actor,
}

impl Write for CreateUser {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let NewUser { id, name, role, password_hash, consent } = &self.user;
        let row = Insert::into("users")
            .set("id", *id)
            .set("name", name.as_str())
            .set("role", *role)
            .set("password_hash", password_hash.as_deref())
            .set("consent", *consent)
            .set("created_at", Timestamp::now());
        if !row.run(connection).await? {
            return Err(StoreError::Exists { what: "user", name: name.clone() });
        }
        // The log outlives the user, so it knows the id and not the name.
        let detail = json!({ "role": role.as_str() });
        audit::append(connection, self.actor, "user.create", &id.to_string(), detail)
            .await
            .map(drop)
    }
}

struct ChangeUser {
    id: UserId,
    change: UserChange,
    actor: Actor,
}

impl Write for ChangeUser {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let UserChange { role, password_hash, consent, disabled } = &self.change;
        let sql = "SELECT 1 FROM users WHERE id = $1";
        if connection.row(sql, values![self.id]).await?.is_none() {
            return Err(StoreError::NoSuchUser(self.id));
        }
        if let Some(role) = role {
            let sql = "UPDATE users SET role = $1 WHERE id = $2";
            connection.execute(sql, values![*role, self.id]).await?;
        }
        if let Some(hash) = password_hash {
            let sql = "UPDATE users SET password_hash = $1 WHERE id = $2";
            connection.execute(sql, values![hash.as_str(), self.id]).await?;
        }
        if let Some(consent) = consent {
            let sql = "UPDATE users SET consent = $1 WHERE id = $2";
            connection.execute(sql, values![*consent, self.id]).await?;
            if *consent == Some(false) {
                let sql = "UPDATE turns SET may_learn = 0 WHERE user_id = $1 AND may_learn = 1";
                connection.execute(sql, values![self.id]).await?;
            }
        }
        if let Some(disabled) = disabled {
            let sql = "UPDATE users SET disabled_at = $1 WHERE id = $2";
            let since = disabled.then(Timestamp::now);
            connection.execute(sql, values![since, self.id]).await?;
        }
        if password_hash.is_some() || *disabled == Some(true) {
            let sql = "DELETE FROM sessions WHERE user_id = $1";
            connection.execute(sql, values![self.id]).await?;
        }
        let detail = json!({
            "role": role.map(Role::as_str),
            "password": password_hash.is_some(),
            "consent": consent,
            "disabled": disabled,
        });
        audit::append(connection, self.actor, "user.change", &self.id.to_string(), detail)
            .await
            .map(drop)
    }
}
