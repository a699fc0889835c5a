//! Model files, one decoder for every supported architecture, and its caches.
//!
//! It does not know HTTP, runs or databases, and prints nothing.

pub mod config;
pub mod tensor;

pub use config::ModelConfig;
pub use tensor::{LayerTensor, RowOrder, TensorRole, TensorView};
