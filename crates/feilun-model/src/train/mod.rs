//! Training: the decoder of [`forward`](crate::forward) over whole packed batches, and its
//! gradient, written by hand layer by layer.
//!
//! Every objective is one thing here: log-probabilities of tokens go out, and a coefficient for
//! each comes back, the derivative of the loss with respect to it. Start at [`Trainee`].

mod attention_block;
mod batch;
mod compute;
mod head;
mod initialize;
mod linear;
mod mlp_block;
mod parameters;
mod pass;
mod read;
mod saved;
mod trainee;
mod workspace;

pub use batch::{Batch, BatchError};
pub use parameters::{ParameterInfo, ParameterKind};
pub use trainee::{
    Coefficients, LoraOptions, Method, PassFlops, StepError, Trainee, TraineeError, TraineeOptions,
};
