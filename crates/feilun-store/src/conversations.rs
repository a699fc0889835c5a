//! Conversations: lists, search, titles, deletion. They begin with their first turn.

use crate::audit::{self, Actor};
use crate::db::{Connection, Query, Row, values};
use crate::error::StoreError;
use crate::id::{ConversationId, KeyId, UserId};
use crate::limits::check_name;
use crate::page::Page;
use crate::search;
use crate::split::Split;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// A conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Whose it is, if of somebody with an account.
    pub user: Option<UserId>,
    /// Whose it is, in the words of the application.
    pub end_user: Option<String>,
    /// The key that its first turn came with.
    pub key: Option<KeyId>,
    /// Its title; at first the beginning of what was asked.
    pub title: Option<String>,
    /// The part of the data it belongs to.
    pub split: Split,
    /// When its first turn was received.
    pub created_at: Timestamp,
    /// When its last turn was received.
    pub updated_at: Timestamp,
}

/// Where a page of conversations ended: the list is in the order of their last turns.
pub type ConversationCursor = (Timestamp, ConversationId);

impl Conversation {
    /// For the page behind this conversation.
    pub fn cursor(&self) -> ConversationCursor {
        (self.updated_at, self.id)
    }
}

/// Which conversations. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct ConversationFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Of this end user.
    pub end_user: Option<String>,
    /// That began with this key.
    pub key: Option<KeyId>,
    /// In whose title, questions or answers this text is, in upper or lower case.
    pub search: Option<String>,
}

const SELECT: &str = "SELECT id, user_id, end_user, key_id, title, split, created_at, updated_at
    FROM conversations WHERE 1 = 1";

impl Store {
    /// The conversation of this id.
    pub async fn conversation(&self, id: ConversationId) -> Result<Conversation, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchConversation(id)), conversation_of)
    }

    /// Conversations, in the order of their last turns.
    pub async fn conversations(
        &self,
        filter: &ConversationFilter,
        page: Page<ConversationCursor>,
    ) -> Result<Vec<Conversation>, StoreError> {
        let mut query = Query::new(SELECT);
        query
            .condition(" AND user_id = ", filter.user)
            .condition(" AND end_user = ", filter.end_user.as_deref())
            .condition(" AND key_id = ", filter.key);
        if let Some(needle) = &filter.search {
            let pattern = search::pattern(needle)?;
            query.text(" AND (search_title LIKE ").value(pattern.as_str()).text(
                " ESCAPE '!' OR EXISTS (SELECT 1 FROM turns
                  WHERE turns.conversation_id = conversations.id AND search_text LIKE ",
            );
            query.value(pattern.as_str()).text(" ESCAPE '!'))");
        }
        let newest_first = page.order == crate::page::Order::NewestFirst;
        if let Some((time, id)) = page.after {
            let before = if newest_first { " AND (updated_at < " } else { " AND (updated_at > " };
            let same = if newest_first { " AND id < " } else { " AND id > " };
            query.text(before).value(time).text(" OR (updated_at = ").value(time);
            query.text(same).value(id).text("))");
        }
        query.text(if newest_first {
            " ORDER BY updated_at DESC, id DESC LIMIT "
        } else {
            " ORDER BY updated_at, id LIMIT "
        });
        query.value(page.limit());
        self.readers().query(query).await?.iter().map(conversation_of).collect()
    }

    /// Gives a conversation another title.
    pub async fn rename_conversation(
        &self,
        id: ConversationId,
        title: &str,
    ) -> Result<(), StoreError> {
        check_name("title", title)?;
        self.write(Rename { id, title: title.to_owned() }).await
    }

    /// Deletes a conversation with its turns and their feedback.
    pub async fn delete_conversation(
        &self,
        id: ConversationId,
        actor: Actor,
    ) -> Result<(), StoreError> {
        self.write(Delete { id, actor }).await
    }
}

fn conversation_of(row: &Row) -> Result<Conversation, StoreError> {
    let mut columns = row.columns();
    Ok(Conversation {
        id: columns.next()?,
        user: columns.next()?,
        end_user: columns.next()?,
        key: columns.next()?,
        title: columns.next()?,
        split: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
    })
}

struct Rename {
    id: ConversationId,
    title: String,
}

impl Write for Rename {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sql = "UPDATE conversations SET title = $1, search_title = $2 WHERE id = $3";
        let found_by = search::searchable(&[&self.title]);
        match connection.execute(sql, values![self.title.as_str(), found_by, self.id]).await? {
            0 => Err(StoreError::NoSuchConversation(self.id)),
            _ => Ok(()),
        }
    }
}

struct Delete {
    id: ConversationId,
    actor: Actor,
}

impl Write for Delete {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sql = "DELETE FROM conversations WHERE id = $1";
        if connection.execute(sql, values![self.id]).await? == 0 {
            return Err(StoreError::NoSuchConversation(self.id));
        }
        let object = self.id.to_string();
        audit::append(connection, self.actor, "conversation.delete", &object, ().into())
            .await
            .map(drop)
    }
}
