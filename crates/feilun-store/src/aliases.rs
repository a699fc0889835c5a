//! Aliases: names that point to models. Promotion and rollback move one of them, and nothing
//! else.
//!
//! A move says where the alias is thought to point, and is refused if it points elsewhere. The
//! move, its history and the entry of the audit log are one transaction.

use serde_json::{Value as Json, json};

use crate::audit::{self, Actor};
use crate::db::{Connection, Insert, Query, Row, values};
use crate::digest::ModelDigest;
use crate::error::StoreError;
use crate::id::AliasMoveId;
use crate::limits::{PAGE_ROWS_MAX, TEXT_BYTES_MAX, check_name, check_text_length, shortened};
use crate::models::check_servable;
use crate::page::Page;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// Where an alias points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasTarget {
    /// The model.
    pub model: ModelDigest,
    /// The adapter over it.
    pub adapter: Option<ModelDigest>,
}

/// An alias.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// Its name.
    pub name: String,
    /// Where it points.
    pub target: AliasTarget,
    /// Since when.
    pub moved_at: Timestamp,
}

/// A move of an alias, to be made.
#[derive(Clone, Debug)]
pub struct NewAliasMove {
    /// Which alias.
    pub alias: String,
    /// Where it is thought to point; none, if it is thought not to be there.
    pub expected: Option<AliasTarget>,
    /// Where it is to point; none removes it.
    pub to: Option<AliasTarget>,
    /// Who moves it.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

/// A move of an alias, as it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct AliasMove {
    /// Its id.
    pub id: AliasMoveId,
    /// Which alias.
    pub alias: String,
    /// Where it pointed.
    pub from: Option<AliasTarget>,
    /// Where it points since.
    pub to: Option<AliasTarget>,
    /// Who moved it.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// When.
    pub moved_at: Timestamp,
}

impl Store {
    /// All aliases by name, up to a thousand.
    pub async fn aliases(&self) -> Result<Vec<Alias>, StoreError> {
        let sql = "SELECT name, model, adapter, moved_at FROM aliases ORDER BY name LIMIT $1";
        let rows = self.readers().rows(sql, values![PAGE_ROWS_MAX]).await?;
        rows.iter().map(alias_of).collect()
    }

    /// The alias of this name, if there is one.
    pub async fn alias(&self, name: &str) -> Result<Option<Alias>, StoreError> {
        if check_name("alias", name).is_err() {
            return Ok(None);
        }
        let sql = "SELECT name, model, adapter, moved_at FROM aliases WHERE name = $1";
        let row = self.readers().row(sql, values![name]).await?;
        row.as_ref().map(alias_of).transpose()
    }

    /// Moves an alias, makes it or removes it.
    pub async fn move_alias(&self, new: NewAliasMove) -> Result<AliasMove, StoreError> {
        check_name("alias", &new.alias)?;
        check_text_length("reason", &new.reason, TEXT_BYTES_MAX)?;
        self.write(new).await
    }

    /// The moves of an alias.
    pub async fn alias_history(
        &self,
        alias: &str,
        page: Page<AliasMoveId>,
    ) -> Result<Vec<AliasMove>, StoreError> {
        check_name("alias", alias)?;
        let mut query = Query::new(
            "SELECT id, alias, from_model, from_adapter, to_model, to_adapter, actor_kind,
             actor_id, reason, moved_at FROM alias_moves",
        );
        query.text(" WHERE alias = ").value(alias);
        query.page(page);
        self.readers().query(query).await?.iter().map(move_of).collect()
    }
}

fn alias_of(row: &Row) -> Result<Alias, StoreError> {
    let mut columns = row.columns();
    let name = columns.next()?;
    let target = AliasTarget { model: columns.next()?, adapter: columns.next()? };
    Ok(Alias { name, target, moved_at: columns.next()? })
}

fn move_of(row: &Row) -> Result<AliasMove, StoreError> {
    let mut columns = row.columns();
    let (id, alias) = (columns.next()?, columns.next()?);
    let mut target = || -> Result<Option<AliasTarget>, StoreError> {
        let (model, adapter): (Option<ModelDigest>, _) = (columns.next()?, columns.next()?);
        Ok(model.map(|model| AliasTarget { model, adapter }))
    };
    let (from, to) = (target()?, target()?);
    Ok(AliasMove {
        id,
        alias,
        from,
        to,
        actor: Actor::from_columns(&columns.next::<String>()?, columns.next()?)?,
        reason: reason_of(columns.next()?),
        moved_at: columns.next()?,
    })
}

/// Kept as JSON, which takes every character.
fn reason_of(json: Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

impl NewAliasMove {
    async fn current(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<AliasTarget>, StoreError> {
        let sql = "SELECT name, model, adapter, moved_at FROM aliases WHERE name = $1";
        let row = connection.row(sql, values![self.alias.as_str()]).await?;
        Ok(row.as_ref().map(alias_of).transpose()?.map(|alias| alias.target))
    }

    fn moved_elsewhere(&self, found: Option<AliasTarget>) -> StoreError {
        StoreError::AliasMoved {
            alias: self.alias.clone(),
            found: shown(found),
            expected: shown(self.expected),
        }
    }

    /// Changes the row if it is as expected, and says whether it was. Others may write at the
    /// same time, so the comparison is part of the statement.
    async fn change(
        &self,
        connection: &mut Connection,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let name = self.alias.as_str();
        // A comparison that holds for two NULLs has a different name in each database.
        let same = "name = $1 AND model = $2 AND COALESCE(adapter, $3) = $3
            AND (adapter IS NULL) = ($4 = 1)";
        let matched = |expected: AliasTarget| {
            let none = ModelDigest::from_bytes([0; 32]);
            let adapter = expected.adapter;
            values![name, expected.model, adapter.unwrap_or(none), adapter.is_none()]
        };
        match (self.expected, self.to) {
            (None, None) => Ok(self.current(connection).await?.is_none()),
            (None, Some(to)) => {
                let row = Insert::into("aliases").set("name", name).set("model", to.model);
                row.set("adapter", to.adapter).set("moved_at", now).run(connection).await
            }
            (Some(expected), None) => {
                let sql = format!("DELETE FROM aliases WHERE {same}");
                Ok(connection.execute(&sql, matched(expected)).await? == 1)
            }
            (Some(expected), Some(to)) => {
                let sql = format!(
                    "UPDATE aliases SET model = $5, adapter = $6, moved_at = $7 WHERE {same}"
                );
                let mut all = matched(expected);
                all.extend(values![to.model, to.adapter, now]);
                Ok(connection.execute(&sql, all).await? == 1)
            }
        }
    }
}

impl Write for NewAliasMove {
    type Output = AliasMove;

    async fn apply(&self, connection: &mut Connection) -> Result<AliasMove, StoreError> {
        if let Some(to) = self.to {
            check_servable(connection, to.model).await?;
            if let Some(adapter) = to.adapter {
                check_servable(connection, adapter).await?;
            }
        }
        let now = Timestamp::now();
        if !self.change(connection, now).await? {
            let found = self.current(connection).await?;
            return Err(self.moved_elsewhere(found));
        }
        let id = AliasMoveId::new();
        let (from, to) = (self.expected, self.to);
        Insert::into("alias_moves")
            .set("id", id)
            .set("alias", self.alias.as_str())
            .set("from_model", from.map(|target| target.model))
            .set("from_adapter", from.and_then(|target| target.adapter))
            .set("to_model", to.map(|target| target.model))
            .set("to_adapter", to.and_then(|target| target.adapter))
            .set("actor_kind", self.actor.kind())
            .set("actor_id", self.actor.id())
            .set("reason", Json::from(self.reason.as_str()))
            .set("moved_at", now)
            .run(connection)
            .await?;
        let detail =
            json!({ "from": shown(from), "to": shown(to), "reason": shortened(&self.reason, 500) });
        audit::append(connection, self.actor, "alias.move", &self.alias, detail).await?;
        let (alias, actor, reason) = (self.alias.clone(), self.actor, self.reason.clone());
        Ok(AliasMove { id, alias, from, to, actor, reason, moved_at: now })
    }
}

fn shown(target: Option<AliasTarget>) -> String {
    match target {
        None => "nothing".to_owned(),
        Some(AliasTarget { model, adapter: None }) => model.to_string(),
        Some(AliasTarget { model, adapter: Some(adapter) }) => format!("{model} with {adapter}"),
    }
}
