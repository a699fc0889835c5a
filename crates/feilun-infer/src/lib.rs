//! Generation: sampling, constrained decoding, and a scheduler that batches many requests over
//! one model with shared prompt prefixes.
pub mod constraint;
pub mod decoder;
pub mod engine;
pub mod event;
pub mod kv;
pub mod request;
pub mod sampling;
pub mod stop;
pub mod vocabulary;
