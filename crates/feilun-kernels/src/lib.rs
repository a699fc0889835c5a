//! The numerical kernels of Feilun and the thread pool that runs them.
//!
//! This crate knows slices, shapes and instruction sets. It does not know models, files or
//! requests. It is the one home of `unsafe` arithmetic: every kernel has a plain reference
//! beside it and is tested against it on each instruction path of the machine.
//!
//! Start at [`isa`] (which path runs), [`block`] (how weights are stored) and [`pool`].

#![allow(unsafe_code)]

pub mod activation;
pub mod attention;
pub mod background;
pub mod backward;
pub mod bench;
pub mod block;
pub mod convert;
pub mod dequantize;
pub mod gemm;
pub mod isa;
pub mod kernel_table;
pub mod kv;
pub mod machine;
pub mod matmul;
pub mod memory;
pub mod norm;
pub mod optimizer;
pub mod pack;
pub mod pool;
pub mod quantize;
pub mod rope;
pub mod rows;
pub mod self_test;
pub mod softmax;
#[cfg(test)]
mod test_support;
mod vector;

pub use block::BlockType;
pub use isa::Isa;
pub use kernel_table::{KernelTable, RowClass};
pub use memory::AlignedBytes;
pub use pack::PackedMatrix;
pub use pool::Pool;
