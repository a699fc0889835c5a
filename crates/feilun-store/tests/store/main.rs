//! The store on a real SQLite file and on a real PostgreSQL: every test body runs on both.
//!
//! `cargo xtask test` starts the PostgreSQL. Each test has a file, or a schema, of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "deep tests and measurements say what they found")]

mod administration;
mod backups;
mod captured;
mod child;
mod erasure;
mod failures;
mod group_commit;
mod hostile;
mod kills;
mod migrations;
mod site;
mod speed;
mod uploads;

// A cluster that a test may stop and start: the same code as `cargo xtask test` runs.
#[path = "../../../../xtask/src/postgres/cluster.rs"]
mod cluster;
