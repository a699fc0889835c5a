//! Who may ask for what: names and origins ([`sites`]), keys and roles ([`callers`]), and how much
//! of it ([`rates`]).

pub(crate) mod callers;
pub(crate) mod keys;
pub(crate) mod rates;
pub(crate) mod sites;
