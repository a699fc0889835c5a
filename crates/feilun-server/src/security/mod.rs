//! Who may ask for what: names and origins ([`sites`]), keys and roles ([`callers`]), browsers
//! that were logged in with a key ([`sessions`]), and how much of it ([`rates`]).

pub(crate) mod callers;
pub(crate) mod keys;
pub(crate) mod rates;
pub(crate) mod sessions;
pub(crate) mod sites;
