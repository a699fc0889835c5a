//! Recording a turn.

use serde_json::Value as Json;

use crate::consent;
use crate::db::{Connection, Insert, values};
use crate::digest::ConfigHash;
use crate::error::StoreError;
use crate::id::{ConversationId, KeyId, TurnId, UserId};
use crate::limits::{
    SEARCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX, TOKENS_MAX, check_count, check_name, check_name_if_any,
    json_text, shortened,
};
use crate::search::{searchable, spoken_text};
use crate::split::Split;
use crate::timestamp::Timestamp;
use crate::turns::NewTurn;
use crate::write::Write;

/// Of a conversation whose title nobody chose.
const TITLE_BYTES_MAX: usize = 120;

/// A turn that was checked.
pub(super) struct RecordTurn {
    id: TurnId,
    conversation: ConversationId,
    parent: Option<TurnId>,
    user: Option<UserId>,
    end_user: Option<String>,
    key: Option<KeyId>,
    config: ConfigHash,
    consent: Option<bool>,
    consent_by_default: bool,
    received_at: Timestamp,
    title: Option<String>,
    /// But for the columns that are decided in the transaction.
    row: Insert,
    bytes: usize,
}

impl RecordTurn {
    pub(super) fn new(turn: NewTurn, consent_by_default: bool) -> Result<Self, StoreError> {
        check(&turn)?;
        let request = json_text("request", &turn.request)?;
        let answer = json_text("answer", &turn.answer)?;
        let sampling = json_text("sampling", &turn.sampling)?;
        let asked = last_spoken(&turn.request);
        let found_by = searchable(&[&asked, &spoken_text(&turn.answer)]);
        let title = first_line(&asked);
        let error = turn.error.as_deref().map(|text| Json::from(shortened(text, TEXT_BYTES_MAX)));
        let num_tokens =
            turn.prompt_tokens.len() + turn.answer_tokens.len() + turn.answer_logprobs.len();
        let bytes = 1024 + request.len() + answer.len() + sampling.len() + 4 * num_tokens;
        let row = Insert::into("turns")
            .set("id", turn.id)
            .set("conversation_id", turn.conversation)
            .set("parent_id", turn.parent)
            .set("user_id", turn.user)
            .set("end_user", turn.end_user.as_deref())
            .set("key_id", turn.key)
            .set("app", turn.app)
            .set("model", turn.model)
            .set("adapter", turn.adapter)
            .set("alias", turn.alias)
            .set("api", turn.api)
            .set("request", request)
            .set("answer", answer)
            .set("num_prompt_tokens", turn.prompt_tokens.len() as u64)
            .set("num_generated_tokens", turn.answer_tokens.len() as u64)
            .set("prompt_tokens", turn.prompt_tokens)
            .set("answer_tokens", turn.answer_tokens)
            .set("answer_logprobs", turn.answer_logprobs)
            .set("seed", turn.seed)
            .set("sampling", sampling)
            .set("template_hash", turn.template)
            .set("config_hash", turn.config)
            .set("consent_of_request", turn.consent)
            .set("finish_reason", turn.finish_reason)
            .set("received_at", turn.received_at)
            .set("first_token_at", turn.first_token_at)
            .set("finished_at", turn.finished_at)
            .set("num_cached_tokens", turn.num_cached_tokens)
            .set("error", error)
            .set("search_text", shortened(&found_by, SEARCH_TEXT_BYTES_MAX));
        Ok(Self {
            id: turn.id,
            conversation: turn.conversation,
            parent: turn.parent,
            user: turn.user,
            end_user: turn.end_user,
            key: turn.key,
            config: turn.config,
            consent: turn.consent,
            consent_by_default,
            received_at: turn.received_at,
            title,
            row,
            bytes,
        })
    }

    /// Begins the conversation, or goes on with it.
    async fn enter_conversation(&self, connection: &mut Connection) -> Result<Split, StoreError> {
        let begin = Insert::into("conversations")
            .set("id", self.conversation)
            .set("user_id", self.user)
            .set("end_user", self.end_user.as_deref())
            .set("key_id", self.key)
            .set("title", self.title.as_deref())
            .set("search_title", searchable(&[self.title.as_deref().unwrap_or_default()]))
            .set("split", Split::of(self.conversation))
            .set("created_at", self.received_at)
            .set("updated_at", self.received_at);
        let go_on = " ON CONFLICT (id) DO UPDATE SET updated_at = CASE
            WHEN excluded.updated_at > conversations.updated_at THEN excluded.updated_at
            ELSE conversations.updated_at END RETURNING split, user_id";
        let row = begin.run_returning(connection, go_on).await?;
        let missing = StoreError::NoSuchConversation(self.conversation);
        let Some(row) = row else { return Err(missing) };
        let mut columns = row.columns();
        let (split, owner): (Split, Option<UserId>) = (columns.next()?, columns.next()?);
        // The last line of defence: the server should have asked before. Whether somebody
        // else's conversation exists is nobody's business.
        if owner != self.user { Err(missing) } else { Ok(split) }
    }

    async fn check_parent(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let Some(parent) = self.parent else { return Ok(()) };
        let sql = "SELECT 1 FROM turns WHERE id = $1 AND conversation_id = $2";
        let found = connection.row(sql, values![parent, self.conversation]).await?;
        found.map(drop).ok_or(StoreError::NoSuchTurn(parent))
    }

    async fn may_learn(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        let sql = "SELECT (SELECT consent FROM keys WHERE id = $1),
            (SELECT consent FROM users WHERE id = $2), (SELECT 1 FROM configs WHERE hash = $3)";
        let row = connection.row(sql, values![self.key, self.user, self.config]).await?;
        let row = row.ok_or_else(|| StoreError::damaged("an answer without a row"))?;
        let mut columns = row.columns();
        let (of_key, of_user) = (columns.next()?, columns.next()?);
        // PostgreSQL's literal is of 32 bits, and only whether it is there counts.
        if !columns.next_is_there()? {
            return Err(StoreError::NoSuchConfig(self.config));
        }
        Ok(consent::combine(&[self.consent, of_key, of_user], self.consent_by_default))
    }
}

impl Write for RecordTurn {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let split = self.enter_conversation(connection).await?;
        self.check_parent(connection).await?;
        let may_learn = self.may_learn(connection).await?;
        let row = self.row.clone().set("may_learn", may_learn).set("split", split);
        if !row.run(connection).await? {
            return Err(StoreError::Exists { what: "turn", name: self.id.to_string() });
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn check(turn: &NewTurn) -> Result<(), StoreError> {
    check_name_if_any("end_user", turn.end_user.as_deref())?;
    check_name_if_any("app", turn.app.as_deref())?;
    check_name_if_any("alias", turn.alias.as_deref())?;
    check_name("finish_reason", &turn.finish_reason)?;
    check_count("prompt_tokens", turn.prompt_tokens.len(), TOKENS_MAX)?;
    check_count("answer_tokens", turn.answer_tokens.len(), TOKENS_MAX)?;
    let (num_logprobs, num_tokens) = (turn.answer_logprobs.len(), turn.answer_tokens.len());
    if num_logprobs != 0 && num_logprobs != num_tokens {
        return Err(StoreError::Invalid {
            field: "answer_logprobs",
            found: num_logprobs.to_string(),
            expected: format!("{num_tokens}, one for each token, or none"),
        });
    }
    Ok(())
}

/// What was said last: the last message, or the prompt.
fn last_spoken(request: &Json) -> String {
    match request {
        Json::Array(messages) => messages.last().map(spoken_text).unwrap_or_default(),
        other => spoken_text(other),
    }
}

/// The beginning of what was asked, in one line.
fn first_line(asked: &str) -> Option<String> {
    let words = shortened(asked, 4 * TITLE_BYTES_MAX)
        .split(|character: char| character.is_whitespace() || character.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let title = shortened(&line, TITLE_BYTES_MAX);
    (!title.is_empty()).then(|| title.to_owned())
}
