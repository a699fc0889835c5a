//! Generation: sampling, constrained decoding, and a scheduler that batches many requests over
//! one model with shared prompt prefixes.
pub mod kv;
pub mod sampling;
pub mod stop;
