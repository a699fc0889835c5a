//! Model files, one decoder for every supported architecture, and its caches.
//!
//! It does not know HTTP, runs or databases, and prints nothing.

pub mod config;
pub mod lora;
pub mod segment;
pub mod tensor;

pub use config::ModelConfig;
pub use lora::Adapter;
pub use segment::{BatchMode, BlockId, ForwardError, KV_BLOCK_TOKENS, LogitRows, Segment};
pub use tensor::{LayerTensor, RowOrder, TensorRole, TensorView};
