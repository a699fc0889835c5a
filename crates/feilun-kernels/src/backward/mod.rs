//! Gradients of the kernels that are not matrix products, written by hand.
//!
//! A gradient of x is called `d_x`: the derivative of the loss with respect to x. Each function
//! says whether it stores its results or adds to what is there. Attention has its gradient beside
//! it, and so has rotary embedding
//! ([`RopeTable::apply_inverse`](crate::rope::RopeTable::apply_inverse)).

mod activation;
mod cross_entropy;
#[cfg(test)]
mod finite_differences;
mod norm;

pub use activation::{gelu_tanh_mul, silu_mul};
pub use cross_entropy::{Head, cross_entropy, token_logprob};
pub use norm::{rms_norm, rms_norm_rows};
