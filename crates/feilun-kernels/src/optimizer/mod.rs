//! What is done with gradients: their length, and the steps of AdamW and Muon.
//!
//! Every value is updated by itself, and sums are taken over parts that depend on the length
//! alone, so results are bit for bit the same on any number of threads and any path.

mod adamw;
mod muon;
mod sum_of_squares;

pub use adamw::{AdamW, adamw, adamw_and_zero};
pub use muon::{Muon, MuonScratch, muon};
pub use sum_of_squares::sum_of_squares;
