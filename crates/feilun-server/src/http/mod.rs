//! What stands between a connection and an endpoint: connections themselves ([`listen`]), the
//! guard in front of every route ([`guard`]), bodies ([`body`]) and streams ([`stream`]).

pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod listen;
pub(crate) mod patient;
pub(crate) mod stream;
pub(crate) mod tls;
