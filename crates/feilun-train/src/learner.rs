//! What the run loop trains, and on what: two traits, so that the loop knows neither models nor
//! files of examples, and can be tested with a model of a few hundred parameters.

use feilun_kernels::{Isa, Pool};
use feilun_model::train::ParameterInfo;

use crate::data::PackedRow;
use crate::objective::Sums;

/// Any error of a learner or of its data.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an optimizer works on, and with what: the learner's threads have nothing to do meanwhile.
#[derive(Debug)]
pub struct Flat<'a> {
    /// Threads.
    pub pool: &'a mut Pool,
    /// Instruction path.
    pub isa: Isa,
    /// The values.
    pub values: &'a mut [f32],
    /// The gradients, as many.
    pub gradients: &'a mut [f32],
}

/// A model with its objective.
pub trait Learner {
    /// The table of contents of the flat vectors.
    fn parameters(&self) -> &[ParameterInfo];

    /// The flat vector of values.
    fn values(&self) -> &[f32];

    /// The flat vectors, for an optimizer.
    fn flat_mut(&mut self) -> Flat<'_>;

    /// Is told all rows of a step before they come one by one: the divisors of the objective
    /// ([`StepTotals`](crate::objective::StepTotals)) are counted over all of them.
    ///
    /// # Errors
    /// When the objective cannot take the rows.
    fn begin(&mut self, rows: &[PackedRow]) -> Result<(), BoxError>;

    /// Forward and backward of one row. Returns its part in the loss of the step, so that the
    /// sum over the rows is the step's loss, and adds the gradient of that part to the flat
    /// vector of gradients.
    ///
    /// # Errors
    /// When the row cannot be computed; a loss that is not finite is no error here.
    fn accumulate(&mut self, row: &PackedRow) -> Result<Sums, BoxError>;

    /// The forward pass alone, for held-out rows.
    ///
    /// # Errors
    /// As [`Learner::accumulate`].
    fn loss(&mut self, row: &PackedRow) -> Result<Sums, BoxError>;

    /// Called after the values have changed, to refresh what is derived from them.
    ///
    /// # Errors
    /// When that fails.
    fn values_changed(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Memory that it holds beside the flat vectors, planned or allocated: frozen weights,
    /// copies, activations.
    fn other_bytes(&self) -> u64;
}

/// The rows of each step: a pure function of the step, so that a resumed run sees what an
/// undisturbed one would.
pub trait Batches {
    /// The rows of a step, counted from 0.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&self, step: u64) -> Result<Vec<PackedRow>, BoxError>;

    /// Rows that are never trained on.
    fn held_out(&self) -> &[PackedRow];

    /// Bytes of text that the learned tokens of [`Batches::held_out`] stand for, where they are
    /// known: the divisor of bits per byte.
    fn held_out_bytes(&self) -> Option<u64> {
        None
    }

    /// Names the data and its order: a checkpoint of other data is not resumed.
    fn digest(&self) -> String;

    /// The names of a row's examples, for messages: `train.jsonl:12, train.jsonl:88`.
    fn describe(&self, row: &PackedRow) -> String;
}
