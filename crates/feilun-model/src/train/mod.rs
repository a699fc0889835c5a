//! Training: the decoder of [`forward`](crate::forward) over whole packed batches, and its
//! gradient, written by hand layer by layer.
//!
//! Every objective is one thing here: log-probabilities of tokens go out, and a coefficient for
//! each comes back, the derivative of the loss with respect to it.

mod batch;
#[allow(dead_code, reason = "the backward pass that reads it comes next")]
mod parameters;

pub use batch::{Batch, BatchError};
pub use parameters::{ParameterInfo, ParameterKind};
