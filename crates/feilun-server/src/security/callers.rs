//! Who asks: a key and its role, sent with the request or once at the login of a browser; or,
//! where no key was ever made and the server listens on loopback alone, whoever is on this
//! machine.
//!
//! The rule is one line: as soon as there is a key that works, every request needs one.

use std::time::Instant;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use feilun_store::audit::Actor;
use feilun_store::id::{KeyId, UserId};
use feilun_store::keys::Key;
use feilun_store::users::Role;

use super::keys;
use super::rates::Rates;
use super::sessions::SessionToken;
use crate::backend::TenantId;
use crate::error::{ApiError, ErrorKind};
use crate::server::Server;

/// How far a route reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody: it tells nothing.
    Open,
    /// Any key. Costs a request of the key's rate.
    Infer,
    /// Any key. Costs nothing.
    Read,
    /// Keys of administrators and curators. Costs a request of the key's rate.
    Train,
    /// Keys of administrators.
    Administer,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Caller {
    pub(crate) key: Option<KeyId>,
    pub(crate) user: Option<UserId>,
    pub(crate) role: Role,
    pub(crate) rates: Rates,
    pub(crate) tenant: TenantId,
}

impl Caller {
    /// Refuses who may not go this far.
    pub(crate) fn require(&self, access: Access) -> Result<(), ApiError> {
        let reaches = match access {
            Access::Open | Access::Infer | Access::Read => true,
            Access::Train => matches!(self.role, Role::Admin | Role::Curator),
            Access::Administer => self.role == Role::Admin,
        };
        if reaches {
            return Ok(());
        }
        let message = format!("a key with the role `{}` may not do this", self.role);
        Err(ApiError::new(ErrorKind::Forbidden, message))
    }

    /// Whether it may see what others did.
    pub(crate) fn sees_all(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Curator)
    }

    /// Whether something that a user or a key brought is its own.
    pub(crate) fn owns(&self, user: Option<UserId>, key: Option<KeyId>) -> bool {
        match self.user {
            Some(own) => user == Some(own),
            None => user.is_none() && key == self.key,
        }
    }

    /// As the audit log names it.
    pub(crate) fn actor(&self) -> Actor {
        match (self.key, self.user) {
            (Some(key), _) => Actor::Key(key),
            (None, Some(user)) => Actor::User(user),
            (None, None) => Actor::Operator,
        }
    }
}

/// Finds out who asks. What a key in the request says counts before what a cookie says.
pub(crate) async fn identify(
    server: &Server,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    let bearer = bearer(headers)?;
    // What is no key of ours, such as the text that clients insist on being given, counts as none.
    if let Some(hash) = bearer.and_then(keys::hash_of) {
        return with_key(server, hash).await;
    }
    if bearer.is_none()
        && let Some(token) = SessionToken::in_headers(headers, server.config.tls.is_some())
        && let Some(key) = server.store.session_key(token.hash()).await?
    {
        if !method.is_safe() {
            token.check_page(&server.sites, headers)?;
        }
        return Ok(caller_of(server, &key));
    }
    if server.needs_keys().await? {
        let message = "this server needs a key: send `Authorization: Bearer fl-...`";
        return Err(ApiError::new(ErrorKind::Unauthenticated, message));
    }
    Ok(Caller {
        key: None,
        user: None,
        role: Role::Admin,
        rates: Rates::default(),
        tenant: server.tenant(b"nobody"),
    })
}

/// Who has the key of this hash. Wrong, expired and revoked keys are told the same.
pub(crate) async fn with_key(server: &Server, hash: [u8; 32]) -> Result<Caller, ApiError> {
    let key = server.store.key_by_hash(hash).await?.ok_or_else(|| {
        ApiError::new(ErrorKind::Unauthenticated, "the key is wrong, expired or revoked")
    })?;
    Ok(caller_of(server, &key))
}

fn caller_of(server: &Server, key: &Key) -> Caller {
    Caller {
        tenant: server.tenant(key.id.as_bytes()),
        rates: Rates {
            requests_per_minute: key.requests_per_minute,
            tokens_per_minute: key.tokens_per_minute,
        },
        key: Some(key.id),
        user: key.user,
        role: key.role,
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let refused = |message: &'static str| ApiError::new(ErrorKind::Unauthenticated, message);
    if second.is_some() {
        return Err(refused("more than one Authorization header"));
    }
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().map_err(|_| refused("the Authorization header is no text"))?;
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(key.trim())),
        _ => Err(refused("expected `Authorization: Bearer fl-...`")),
    }
}

impl Server {
    /// Takes one request out of the caller's rate.
    pub(crate) fn take_request(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(key) = caller.key else { return Ok(()) };
        self.rates.take_request(key, caller.rates, Instant::now()).map_err(|after| {
            let message = "the key's requests or tokens per minute are used up";
            ApiError::new(ErrorKind::RateLimited, message).retry_after(after)
        })
    }

    /// Takes tokens out of it.
    pub(crate) fn charge_tokens(&self, caller: &Caller, num_tokens: usize) {
        if let Some(key) = caller.key {
            self.rates.charge_tokens(key, caller.rates, num_tokens, Instant::now());
        }
    }
}
