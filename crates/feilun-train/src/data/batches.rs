//! A plan as the run loop sees it.

use super::plan::Plan;
use super::row::PackedRow;
use crate::learner::{Batches, BoxError};

impl Batches for Plan {
    fn rows(&self, step: u64) -> Result<Vec<PackedRow>, BoxError> {
        Ok(Plan::rows(self, step)?)
    }

    fn held_out(&self) -> &[PackedRow] {
        Plan::held_out(self)
    }

    fn held_out_bytes(&self) -> Option<u64> {
        Plan::held_out_bytes(self)
    }

    fn digest(&self) -> String {
        Plan::digest(self).to_hex().to_string()
    }

    fn describe(&self, row: &PackedRow) -> String {
        Plan::describe(self, row)
    }
}
