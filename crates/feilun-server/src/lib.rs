//! The server: OpenAI's API over HTTP, and Feilun's own, for people and programs that are not
//! trusted.
//!
//! It knows HTTP, JSON, keys and roles. It knows engines as a [`backend`], what trains as a
//! [`training::Trainer`], and the database as `feilun_store`; files, the environment and the terminal are `feilun`'s. Start at `routes`, the
//! list of everything that can be asked, then follow one request: `http::guard` lets it in,
//! `http::body` and `wire` check it, `endpoints` makes work of it, `generation` queues, follows
//! and records it.
//!
//! What holds throughout:
//!
//! - nothing of an answer is whole before its turn is committed;
//! - what is not understood is refused by name, never passed over;
//! - a request that fails, or panics, takes no other with it;
//! - what a caller can make long, large or many has a bound ([`Limits`]).

pub mod backend;
mod config;
mod endpoints;
mod error;
mod generation;
mod http;
mod jobs;
mod library;
mod metrics;
mod plan;
mod reply;
pub mod room;
mod routes;
mod security;
mod server;
pub mod stub;
mod tools;
pub mod training;
mod wire;

pub use config::{Limits, ServerConfig, TlsFiles};
pub use error::{ApiError, ErrorKind};
pub use http::tls::TlsError;
pub use library::record_model;
pub use security::keys::NewKey;
pub use server::{BoundServer, Parts, ServeError, bind};
