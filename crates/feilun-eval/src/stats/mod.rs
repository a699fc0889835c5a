//! Statistics of per-item results: how sure a number is, and how sure a difference.

mod aggregate;

pub use aggregate::{Aggregate, Mean};
