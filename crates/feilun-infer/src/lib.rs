//! Generation: sampling, constrained decoding, and a scheduler that batches many requests over
//! one model with shared prompt prefixes.
//!
//! It knows no HTTP and no database, and prints nothing. Start at [`room`], several models at
//! work in one process, or at [`engine`], the scheduler of one: a [`request`] goes in, [`event`]s
//! come out of each step. On the way
//!
//! - [`kv`] says which sequence holds which blocks of the KV cache, and who may share them;
//! - the model ([`decoder`]) computes logits;
//! - [`sampling`] chooses a token, within what a [`constraint`] allows;
//! - the [`vocabulary`] turns it into text, of which [`stop`] holds back what may begin a stop
//!   string.
//!
//! The model and the vocabulary are traits, so that all this is tested without a model: against
//! a decoder that is a hash of the tokens it finds in the blocks it is given (see `tests/`).

pub mod constraint;
pub mod decoder;
pub mod engine;
pub mod event;
mod isolate;
pub mod kv;
pub mod model_text;
mod pooling;
pub mod request;
pub mod room;
pub mod sampling;
pub mod stop;
pub mod vocabulary;

pub use constraint::{Constraint, ConstraintCompiler, ConstraintLimits, ConstraintSource};
pub use decoder::{Decoder, LogitsView};
pub use engine::{Clock, Engine, EngineConfig, StepLimit};
pub use event::{Event, EventKind, Finish, FinishReason};
pub use kv::prefix::AdapterDigest;
pub use model_text::{ModelText, ModelTextError};
pub use request::{LoadedAdapter, Request, RequestId, SubmitError};
pub use sampling::SamplingParams;
pub use vocabulary::{TextStream, Vocabulary};
