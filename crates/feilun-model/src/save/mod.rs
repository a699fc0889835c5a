//! Models written out: adapters in PEFT's layout, whole models as GGUF or as a Hugging Face folder.
//!
//! Weights come row by row from a [`WeightSource`] (a model file, a trained vector, a base with an
//! adapter merged in) and go to the disk a few megabytes at a time, so that no second copy of a
//! model is ever in memory. The same input makes the same bytes. What is written appears under
//! its name whole and synced, or not at all. Start at [`save_gguf`], [`save_folder`] and
//! [`save_adapter`].

mod adapter;
mod atomic;
mod error;
mod folder;
mod gguf;
mod gguf_config;
mod gguf_metadata;
mod hf_config;
mod outgoing;
mod safetensors;
mod same_config;
mod source;
mod storage;

pub use adapter::{AdapterInfo, NamedTensor, save_adapter};
pub use error::SaveError;
pub use folder::{Companions, save_folder};
pub use gguf::save_gguf;
pub use gguf_metadata::GgufMetadata;
pub use hf_config::config_json;
pub use outgoing::Job;
pub use source::{FileWeights, FlatWeights, MergedWeights, WeightSource};
pub use storage::Storage;
