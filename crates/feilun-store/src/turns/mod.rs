//! Turns: one request and its answer, as exactly as the engine knows them.

mod record;

use serde_json::Value as Json;

use crate::db::{Query, Row};
use crate::digest::{ConfigHash, ModelDigest, TemplateHash};
use crate::error::StoreError;
use crate::id::{ConversationId, KeyId, TurnId, UserId};
use crate::named::named;
use crate::page::Page;
use crate::split::Split;
use crate::store::Store;
use crate::timestamp::Timestamp;

named! {
    /// How the request came.
    pub enum Api {
        /// Messages in, a message out.
        Chat = "chat",
        /// Text in, text out.
        Completion = "completion",
    }
}

/// A turn, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTurn {
    /// Its id, which the caller of the API knows too.
    pub id: TurnId,
    /// Turns that belong together. It begins with the first turn of it.
    pub conversation: ConversationId,
    /// The turn before it, in the same conversation.
    pub parent: Option<TurnId>,
    /// Who asked, if it was somebody with an account.
    pub user: Option<UserId>,
    /// Who asked, in the words of the application that asked for them (OpenAI's `user`).
    pub end_user: Option<String>,
    /// The key that the request came with.
    pub key: Option<KeyId>,
    /// The application.
    pub app: Option<String>,
    /// The model that answered.
    pub model: ModelDigest,
    /// The adapter over it.
    pub adapter: Option<ModelDigest>,
    /// The alias through which the model was chosen.
    pub alias: Option<String>,
    /// How the request came.
    pub api: Api,
    /// The messages of the request, or its prompt.
    pub request: Json,
    /// The message of the answer, or its text; null where there is none.
    pub answer: Json,
    /// What the model read.
    pub prompt_tokens: Vec<u32>,
    /// What the model wrote.
    pub answer_tokens: Vec<u32>,
    /// The natural logarithm of the probability of each of [`Self::answer_tokens`], or nothing.
    pub answer_logprobs: Vec<f32>,
    /// The seed of the sampling.
    pub seed: Option<u64>,
    /// How tokens were chosen.
    pub sampling: Json,
    /// The chat template that made the prompt.
    pub template: Option<TemplateHash>,
    /// The configuration of the server, recorded before.
    pub config: ConfigHash,
    /// Whether the request says that it may be learnt from.
    pub consent: Option<bool>,
    /// Why the answer ended.
    pub finish_reason: String,
    /// When the request was there.
    pub received_at: Timestamp,
    /// When the first token was.
    pub first_token_at: Option<Timestamp>,
    /// When the answer was whole.
    pub finished_at: Timestamp,
    /// Tokens of the prompt that were in the cache.
    pub num_cached_tokens: u32,
    /// What went wrong.
    pub error: Option<String>,
}

/// A turn, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What was given to the store.
    pub recorded: NewTurn,
    /// Whether it may be learnt from: what request, key and user say together.
    pub may_learn: bool,
    /// The part of the data it belongs to.
    pub split: Split,
}

/// Which turns. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct TurnFilter {
    /// Of this conversation.
    pub conversation: Option<ConversationId>,
    /// Of this user.
    pub user: Option<UserId>,
    /// Of this end user.
    pub end_user: Option<String>,
    /// That came with this key.
    pub key: Option<KeyId>,
    /// Of this application.
    pub app: Option<String>,
    /// Answered by this model.
    pub model: Option<ModelDigest>,
    /// Of this part of the data.
    pub split: Option<Split>,
    /// That may be learnt from, or that may not.
    pub may_learn: Option<bool>,
    /// Received at this moment or later.
    pub since: Option<Timestamp>,
    /// Received before this moment.
    pub until: Option<Timestamp>,
}

/// In the order in which [`turn_of`] reads them.
const SELECT: &str = "SELECT id, conversation_id, parent_id, user_id, end_user, key_id, app, model,
    adapter, alias, api, request, answer, prompt_tokens, answer_tokens, answer_logprobs, seed,
    sampling, template_hash, config_hash, consent_of_request, finish_reason, received_at,
    first_token_at, finished_at, num_cached_tokens, error, may_learn, split
    FROM turns WHERE 1 = 1";

impl Store {
    /// Records a turn. It returns once the turn is committed; turns that are recorded at the
    /// same time share a commit.
    ///
    /// The conversation begins with its first turn. [`StoreError::NoSuchConversation`] says that
    /// it is somebody else's, [`StoreError::NoSuchTurn`] that the parent is not in it.
    pub async fn record_turn(&self, turn: NewTurn) -> Result<(), StoreError> {
        let write = record::RecordTurn::new(turn, self.options().consent_by_default)?;
        self.write(write).await
    }

    /// The turn of this id.
    pub async fn turn(&self, id: TurnId) -> Result<Turn, StoreError> {
        let mut query = Query::new(SELECT);
        query.text(" AND id = ").value(id);
        let rows = self.readers().query(query).await?;
        rows.first().map_or(Err(StoreError::NoSuchTurn(id)), turn_of)
    }

    /// Turns, in the order of their ids.
    pub async fn turns(
        &self,
        filter: &TurnFilter,
        page: Page<TurnId>,
    ) -> Result<Vec<Turn>, StoreError> {
        let mut query = Query::new(SELECT);
        query
            .condition(" AND conversation_id = ", filter.conversation)
            .condition(" AND user_id = ", filter.user)
            .condition(" AND end_user = ", filter.end_user.as_deref())
            .condition(" AND key_id = ", filter.key)
            .condition(" AND app = ", filter.app.as_deref())
            .condition(" AND model = ", filter.model)
            .condition(" AND split = ", filter.split)
            .condition(" AND may_learn = ", filter.may_learn)
            .condition(" AND received_at >= ", filter.since)
            .condition(" AND received_at < ", filter.until);
        query.page(page);
        self.readers().query(query).await?.iter().map(turn_of).collect()
    }
}

fn turn_of(row: &Row) -> Result<Turn, StoreError> {
    let mut columns = row.columns();
    let recorded = NewTurn {
        id: columns.next()?,
        conversation: columns.next()?,
        parent: columns.next()?,
        user: columns.next()?,
        end_user: columns.next()?,
        key: columns.next()?,
        app: columns.next()?,
        model: columns.next()?,
        adapter: columns.next()?,
        alias: columns.next()?,
        api: columns.next()?,
        request: columns.next()?,
        answer: columns.next()?,
        prompt_tokens: columns.next()?,
        answer_tokens: columns.next()?,
        answer_logprobs: columns.next()?,
        seed: columns.next()?,
        sampling: columns.next()?,
        template: columns.next()?,
        config: columns.next()?,
        consent: columns.next()?,
        finish_reason: columns.next()?,
        received_at: columns.next()?,
        first_token_at: columns.next()?,
        finished_at: columns.next()?,
        num_cached_tokens: columns.next()?,
        // Kept as JSON, which takes every character.
        error: columns.next::<Option<Json>>()?.and_then(|json| json.as_str().map(str::to_owned)),
    };
    Ok(Turn { recorded, may_learn: columns.next()?, split: columns.next()? })
}
