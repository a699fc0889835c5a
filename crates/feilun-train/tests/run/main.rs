//! The run loop, tried with a small model that really learns: killed, interrupted, cut short,
//! fed with NaN, on a full disk.
//!
//! Tests that need a process of their own start this program again, see `child`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bigram;
mod chain;
mod child;
mod damage;
mod full_disk;
mod guards;
mod kills;
mod learning;
mod trial;
