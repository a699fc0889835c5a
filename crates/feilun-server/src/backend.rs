//! The engines as the server sees them: models by name, and requests whose events come back.
//!
//! `feilun up` puts the room of resident models behind it ([`crate::room`]); tests and
//! the measurement of the server's own cost put a stub there ([`crate::stub`]).

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use feilun_infer::{ConstraintCompiler, EventKind, Request, SubmitError};
use feilun_store::aliases::AliasTarget;
use feilun_store::digest::ModelDigest;
use feilun_text::{ChatFormat, Tokenizer};

/// The engines.
pub trait Backend: Send + Sync {
    /// The models that are in memory.
    fn models(&self) -> Vec<Arc<dyn ServedModel>>;

    /// The model of a name, a digest, or the beginning of a digest that no other has.
    fn find(&self, name: &str) -> Option<Arc<dyn ServedModel>> {
        let models = self.models();
        if let Some(model) = models.iter().find(|model| model.facts().name == name) {
            return Some(Arc::clone(model));
        }
        let wanted = name.rsplit(':').next().unwrap_or(name);
        let is_digest =
            wanted.len() >= DIGEST_CHARS_MIN && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found = models
            .iter()
            .filter(|model| is_digest && model.facts().digest.to_string().starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(model), None) => Some(Arc::clone(model)),
            _ => None,
        }
    }

    /// Everything that can be asked, in memory or not. It may read folders, so it is not for
    /// threads that serve connections.
    fn known(&self) -> Vec<KnownModel>;

    /// Brings a model into memory, or finds it there. It takes as long as that takes; with
    /// `evict_idle` what nobody uses makes room for it.
    ///
    /// # Errors
    /// If nobody knows the name, memory is short, or its files cannot be used.
    fn load(&self, name: &str, evict_idle: bool) -> Result<Arc<dyn ServedModel>, LoadRefusal>;

    /// Takes a model out of memory, and what stands on it. Requests that it has taken end on it.
    ///
    /// # Errors
    /// If it is not in memory.
    fn unload(&self, name: &str) -> Result<(), LoadRefusal>;

    /// What the engines are doing. Never waits for a step.
    fn status(&self) -> Status;
}

/// A model that can be asked: if it is not in memory, it is loaded when somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// What callers name.
    pub name: String,
    /// Digest of its content, where it is known without reading all of it.
    pub digest: Option<ModelDigest>,
    /// The model that an adapter is an adapter of.
    pub base: Option<ModelDigest>,
    /// When it was installed, or made.
    pub created: SystemTime,
}

/// Why a model was not loaded, or not unloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadRefusal {
    /// Nobody knows it.
    #[error("there is no model `{name}`")]
    NoSuchModel {
        /// What was asked for.
        name: String,
    },
    /// It is not in memory.
    #[error("the model `{name}` is not loaded")]
    NotLoaded {
        /// What was asked for.
        name: String,
    },
    /// The budget does not allow it.
    #[error("memory is short: {needed} bytes are needed, {used} of {max} are in use")]
    Memory {
        /// Bytes that it would take.
        needed: usize,
        /// Bytes in use.
        used: usize,
        /// The budget.
        max: usize,
    },
    /// Its files, or whatever else stands in the way. It may name paths: not for callers.
    #[error("{reason}")]
    Failed {
        /// What is known of it.
        reason: String,
    },
}

/// Shorter beginnings of a digest are more likely a slip than a name.
const DIGEST_CHARS_MIN: usize = 8;

/// A model at work. Whoever holds it can go on using it when an alias has moved on.
pub trait ServedModel: Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &ModelFacts;

    /// Queues a request.
    ///
    /// # Errors
    /// If it is malformed, does not fit, or too many are waiting.
    fn submit(&self, submission: Submission) -> Result<Ticket, Refusal>;
}

/// What is known of a model.
#[derive(Clone)]
pub struct ModelFacts {
    /// What callers name.
    pub name: String,
    /// Digest of its content.
    pub digest: ModelDigest,
    /// The model that an adapter is an adapter of; none for a model that stands for itself.
    pub base: Option<ModelDigest>,
    /// When it was installed, or made.
    pub created: SystemTime,
    /// What it takes on the disk.
    pub size_bytes: u64,
    /// Most tokens of a prompt and its answer.
    pub context_length: usize,
    /// Between text and tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// From messages to tokens.
    pub chat_format: Arc<ChatFormat>,
    /// From schemas to masks.
    pub constraints: Arc<ConstraintCompiler>,
}

impl ModelFacts {
    /// What computes, and the adapter over it, if there is one.
    pub fn target(&self) -> AliasTarget {
        match self.base {
            Some(base) => AliasTarget { model: base, adapter: Some(self.digest) },
            None => AliasTarget { model: self.digest, adapter: None },
        }
    }
}

impl fmt::Debug for ModelFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFacts")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Gets a request's events, on the engine's thread: it must not wait. Break ends the request.
pub type EventSink = Box<dyn FnMut(EventKind) -> ControlFlow<()> + Send>;

/// A request on its way to an engine.
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Who asks: queues are fair between tenants.
    pub tenant: TenantId,
    /// Where its events go.
    pub sink: EventSink,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Who asks. Made by the server from the caller's key, never by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantId(pub [u8; 16]);

/// Holds a request in the engine; dropping it takes the request back.
pub struct Ticket(Option<Box<dyn FnOnce() + Send>>);

impl Ticket {
    /// `cancel` is called once, when the ticket is dropped.
    pub fn new(cancel: impl FnOnce() + Send + 'static) -> Ticket {
        Ticket(Some(Box::new(cancel)))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request itself.
    #[error(transparent)]
    Request(#[from] SubmitError),
    /// Too many are waiting, of this tenant or in all.
    #[error("too many requests are waiting")]
    Busy {
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// The engine is gone, or the model is.
    #[error("the engine takes no requests: {reason}")]
    Gone {
        /// Why.
        reason: String,
    },
}

/// What the engines are doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Each model.
    pub models: Vec<ModelStatus>,
}

/// What one engine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatus {
    /// The model's name.
    pub name: String,
    /// Requests being computed.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Blocks of the KV cache in use, or kept for later.
    pub cache_blocks_used: usize,
    /// All blocks of the KV cache.
    pub cache_blocks: usize,
    /// Bytes that the model takes.
    pub bytes: u64,
}
