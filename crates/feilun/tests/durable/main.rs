//! What a real `feilun up` acknowledged is in its store, whatever happens to the process, the
//! disk and the database.
//!
//! The two hundred kills take minutes, and are worth more the more is answered between two:
//! `cargo xtask test --release -p feilun --test durable -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "deep tests and measurements say what they found")]

mod check;
mod failures;
mod kills;
mod load;
mod site;

#[path = "../support/served.rs"]
mod up;

// A cluster that a test may stop and start: the same code as `cargo xtask test` runs.
#[path = "../../../../xtask/src/postgres/cluster.rs"]
mod cluster;
