//! Model files, one decoder for every supported architecture, and its caches.
//!
//! It does not know HTTP, runs or databases, and prints nothing.

mod adapt;
pub mod bench;
pub mod config;
pub mod config_check;
mod digest;
pub mod forward;
pub mod gguf;
pub mod gguf_config;
mod gguf_error;
pub mod gguf_value;
pub mod gguf_vocabulary;
pub mod hf_config;
mod hf_rope;
mod hf_template;
mod kv_cache;
pub mod lora;
mod lora_config;
pub mod mapped_file;
pub mod model_files;
mod model_folder;
pub mod rope_frequencies;
mod rope_tables;
pub mod safetensors_header;
pub mod save;
pub mod segment;
mod step_rows;
pub mod tensor;
mod tensor_names;
pub mod train;
pub mod weights;

pub use config::ModelConfig;
pub use feilun_kernels::kv::KvKind;
pub use forward::{Logits, Session, SessionOptions, SharedPool};
pub use kv_cache::SessionError;
pub use lora::{Adapter, AdapterError, LoraMatrix};
pub use model_files::{ModelFileError, ModelFiles, ModelFormat, SpecialTokens, TokenizerSource};
pub use segment::{BatchMode, BlockId, ForwardError, KV_BLOCK_TOKENS, LogitRows, Segment};
pub use tensor::{LayerTensor, RowOrder, TensorRole, TensorView};
pub use weights::{LoadError, Model};
