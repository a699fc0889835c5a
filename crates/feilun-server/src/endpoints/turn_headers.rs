//! What a request says in headers of ours, because OpenAI's bodies have no place for it: the
//! conversation that a turn belongs to, the turn before it, and whether it may be learnt from.
//! And what an answer says there.

use axum::http::{HeaderMap, HeaderName};
use feilun_store::id::{ConversationId, TurnId};

use crate::error::{ApiError, ErrorKind};
use crate::generation::capture::TurnContext;
use crate::reply;
use crate::security::callers::Caller;
use crate::server::Server;

/// The conversation: an answer tells it, and a request may name it to go on.
const CONVERSATION: HeaderName = HeaderName::from_static("x-feilun-conversation");
/// The turn before, in the same conversation.
const PARENT: HeaderName = HeaderName::from_static("x-feilun-parent-turn");
/// `true` or `false`: whether this turn may be learnt from.
const CONSENT: HeaderName = HeaderName::from_static("x-feilun-consent");

/// What the headers said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TurnHeaders {
    pub(crate) conversation: ConversationId,
    pub(crate) parent: Option<TurnId>,
    pub(crate) consent: Option<bool>,
}

/// Reads the headers. A conversation is named only to go on with it, by whom it belongs to: a
/// caller that could choose ids could choose what a conversation is used for.
pub(crate) async fn read(
    server: &Server,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<TurnHeaders, ApiError> {
    let consent = match text(headers, &CONSENT)? {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(invalid(&CONSENT, "expected true or false")),
    };
    let parent = match text(headers, &PARENT)? {
        None => None,
        Some(id) => Some(id.parse().map_err(|_| invalid(&PARENT, "expected the id of a turn"))?),
    };
    let Some(id) = text(headers, &CONVERSATION)? else {
        if parent.is_some() {
            return Err(invalid(&PARENT, "needs x-feilun-conversation"));
        }
        return Ok(TurnHeaders { conversation: ConversationId::new(), parent, consent });
    };
    let id = id.parse().map_err(|_| invalid(&CONVERSATION, "expected the id of a conversation"))?;
    let found = server.store.conversation(id).await?;
    if found.key != caller.key || found.user != caller.user {
        // Whether somebody else has one of that id is nobody's business.
        return Err(feilun_store::StoreError::NoSuchConversation(id).into());
    }
    if let Some(parent) = parent
        && server.store.turn(parent).await?.recorded.conversation != id
    {
        return Err(feilun_store::StoreError::NoSuchTurn(parent).into());
    }
    Ok(TurnHeaders { conversation: id, parent, consent })
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| invalid(name, "expected a text")),
    }
}

fn invalid(name: &HeaderName, reason: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidValue, format!("header {name}: {reason}")).param(name.as_str())
}

/// Tells the caller what its turns are called.
pub(crate) fn write(headers: &mut HeaderMap, context: &TurnContext) {
    let ids: Vec<String> = context.turns.iter().map(ToString::to_string).collect();
    if let Some(first) = ids.first() {
        reply::set(headers, reply::TURN_ID, first);
    }
    if ids.len() > 1 {
        reply::set(headers, reply::TURN_IDS, &ids.join(","));
    }
    reply::set(headers, CONVERSATION, &context.conversation.to_string());
    let digest = context.model.adapter.unwrap_or(context.model.model);
    reply::set(headers, reply::MODEL_DIGEST, &digest.to_string());
}
