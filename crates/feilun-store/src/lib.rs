//! The store: the database schema and every query, blobs, audit, erasure.
//!
//! [`Store::open`] opens a database: SQLite in a file, or PostgreSQL by its address. Both have
//! one schema, one set of statements and the same tests. Every method of [`Store`] stands in the
//! module of its noun:
//!
//! | module | what it knows |
//! |---|---|
//! | [`turns`], [`conversations`] | requests and answers, and what belongs together |
//! | [`feedback`], [`events`] | what people say of an answer, and what they do with it |
//! | [`users`], [`keys`], [`sessions`] | who may ask |
//! | [`models`], [`aliases`], [`runs`] | what answers, under which name, and how it came to be |
//! | [`files`], [`blobs`] | uploaded bytes |
//! | [`configs`], [`audit`] | under which configuration, and who did what |
//! | [`consent`], [`split`] | what may be learnt from, and what is kept to test on |
//! | [`forget`], [`retention`], [`backup`] | what leaves the store, and what must come back |
//!
//! All writes go through one task, which commits them in groups (`write`): nothing is answered
//! before it is committed. The store knows no models and no HTTP; it never prints, exits or reads
//! the environment, but for what PostgreSQL's own clients read (`PGPASSWORD` and the like).

pub mod aliases;
pub mod audit;
pub mod backup;
pub mod blobs;
pub mod configs;
pub mod consent;
pub mod conversations;
mod db;
pub mod digest;
pub mod error;
pub mod events;
pub mod feedback;
pub mod files;
pub mod forget;
pub mod id;
pub mod keys;
pub mod limits;
pub mod models;
pub mod named;
pub mod options;
pub mod page;
pub mod retention;
pub mod runs;
mod schema;
mod search;
pub mod sessions;
pub mod split;
mod store;
pub mod timestamp;
pub mod turns;
pub mod url;
pub mod users;
mod write;

pub use error::StoreError;
pub use options::StoreOptions;
pub use page::{Order, Page};
pub use store::Store;
pub use timestamp::Timestamp;
pub use url::StoreUrl;
