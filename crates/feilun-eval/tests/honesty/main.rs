//! Does each number hold what it promises? Found by simulating many evaluations of which the
//! truth is known.
//!
//! Fast ones run with every test; the bands around the expected rates are five standard errors of
//! the simulation wide, and all seeds are fixed. The deep ones print the tables of
//! `docs/lab-book.md`:
//!
//! ```text
//! cargo test --release -p feilun-eval --test honesty -- --ignored --nocapture --test-threads 1
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tables are printed")]

mod coverage;
mod draws;
mod gates;
mod monitors;
mod power;
mod rivals;
mod scenarios;

/// Fails where a share of `num` simulated evaluations is further from what it may be than chance
/// explains.
#[track_caller]
fn check_rate(name: &str, hits: usize, num: usize, low: f64, high: f64) {
    let rate = hits as f64 / num as f64;
    let slack = |expected: f64| 5.0 * (expected * (1.0 - expected) / num as f64).sqrt();
    let is_within = rate >= low - slack(low) && rate <= high + slack(high);
    assert!(is_within, "{name}: {rate:.4} of {num}, expected {low} to {high}");
}
