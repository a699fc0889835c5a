//! A thin layer over the two databases: one connection type, one value type, one row type.
//!
//! Statements are written in what both understand (`$1` for values, `ON CONFLICT`,
//! `RETURNING`). It knows no tables.

mod connection;
mod failure;
mod insert;
mod query;
mod readers;
mod row;
mod value;

pub(crate) use connection::{Connection, Engine, Purpose};
pub(crate) use insert::Insert;
pub(crate) use query::Query;
pub(crate) use readers::Readers;
pub(crate) use row::Row;
pub(crate) use value::{Column, Kind, Value, values};
