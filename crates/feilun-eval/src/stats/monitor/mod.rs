//! Monitors that may be looked at after every answer.
//!
//! An ordinary test may be read once. Whoever looks daily and stops at the first alarm has an
//! alarm sooner or later, whatever the truth. What is here keeps its promise however often it is
//! read and whenever one stops: the probability that it is *ever* wrong is at most α (Ville's
//! inequality for nonnegative supermartingales; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic
//! statistics and safe anytime-valid inference", Statistical Science 38, 2023). The price is a
//! somewhat wider interval than that of a single look.
//!
//! - [`MeanMonitor`]: where the mean of a bounded signal lies.
//! - [`ShareMonitor`]: whether one model's share of good answers is below another's.

mod mean;
mod share;

pub use mean::MeanMonitor;
pub use share::ShareMonitor;
