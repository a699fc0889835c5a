//! What stands between a connection and an endpoint: connections themselves ([`listen`]), the
//! guard in front of every route ([`guard`]), bodies ([`body`], [`upload`]), the part of a URL
//! behind the question mark ([`query`]), and streams ([`stream`]).

pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod listen;
pub(crate) mod patient;
pub(crate) mod query;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod upload;
