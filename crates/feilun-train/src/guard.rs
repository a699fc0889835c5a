//! Guards: what must stop a run, before it starts or in the middle.
//!
//! [`check`] looks at a run before its first step; [`OutlierGuard`] looks at each step.

mod outlier;
mod preflight;

pub use outlier::{Outlier, OutlierGuard, OutlierSettings};
pub use preflight::{ADAMW_LEARNING_RATES, Facts, PreflightError, check};
