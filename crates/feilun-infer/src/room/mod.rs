//! Several models at work in one process: a room with one engine thread.
//!
//! [`Room::load`] brings a model into memory, beside those that serve, within a budget;
//! [`Room::submit`] queues a request for one of them and returns at once; events come to the
//! request's sink. All models compute with the same threads, in turn.
//!
//! - `config` and `error` are what goes in and what is refused; `status` what can be seen;
//! - `resident` is a model as callers see it, with its adapters;
//! - `desk` is where callers and the engine thread meet, `worker` that thread;
//! - `budget` counts the memory.
//!
//! Every caller is a [`Tenant`]: requests of different tenants take turns by what was computed for
//! each, and never share a prefix.

mod budget;
mod config;
mod desk;
mod error;
mod resident;
mod status;
mod worker;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use budget::{Budget, Reservation};
pub use config::{DigestParseError, ModelDigest, ModelSource, RoomConfig, Tenant};
use desk::Desk;
pub use desk::Ticket;
pub use error::{RoomError, SubmitError};
use feilun_kernels::Pool;
use feilun_kernels::kv::KvLayout;
use feilun_model::{
    KV_BLOCK_TOKENS, Model, ModelConfig, ModelFiles, Session, SessionOptions, SharedPool,
};
pub use resident::{AdapterStatus, ModelParts, ResidentModel};
pub use status::{KvBlocks, ModelState, ModelStatus, RequestTotals, RoomStatus};
use worker::{Host, Worker};

use crate::decoder::Decoder;
use crate::engine::{Engine, EngineConfig, StepLimit};
use crate::event::EventKind;
use crate::model_text::ModelText;
use crate::request::Request;

/// How long a load waits for the memory of idle models that it has unloaded: the engine thread
/// lets go of them after its present step.
const EVICTION_PATIENCE: Duration = Duration::from_secs(10);

/// Gets a request's events, on the engine thread, which waits meanwhile: it must not block.
/// `Break` takes the request back, and nothing comes after it; else the last event is
/// [`EventKind::Finished`], whatever happens.
pub type Sink = Box<dyn FnMut(EventKind) -> ControlFlow<()> + Send>;

/// A request, and where it goes.
pub struct Submission {
    /// The model to ask.
    pub model: Arc<ResidentModel>,
    /// What is asked; its namespace and weight come from the tenant.
    pub request: Request,
    /// Who asks.
    pub tenant: Tenant,
    /// Who is told.
    pub sink: Sink,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission")
            .field("model", &self.model.digest())
            .field("request", &self.request)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// A handle on the engine thread and the models in memory. When the last handle goes, the thread
/// ends, and what it was computing fails.
#[derive(Clone)]
pub struct Room {
    inner: Arc<Inner>,
}

struct Inner {
    config: RoomConfig,
    pool: SharedPool,
    budget: Arc<Budget>,
    desk: Arc<Desk>,
    models: Mutex<Vec<Arc<ResidentModel>>>,
    /// One load at a time.
    loading: Mutex<()>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Room {
    /// Starts the engine thread, without models.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: RoomConfig) -> Result<Room, RoomError> {
        let pool = Arc::new(Mutex::new(Pool::new(config.threads)?));
        let desk = Arc::new(Desk::new(config.waiting_max));
        let limit = StepLimit {
            target: config.inter_token_target,
            slowdown_max: config.slowdown_max.max(1.1),
        };
        let worker = Worker::new(Arc::clone(&desk), limit);
        let thread = std::thread::Builder::new()
            .name("feilun-engine".to_owned())
            .spawn(move || worker.run())?;
        let inner = Inner {
            pool,
            budget: Budget::new(config.memory_bytes_max),
            desk,
            models: Mutex::default(),
            loading: Mutex::default(),
            thread: Some(thread),
            config,
        };
        Ok(Room { inner: Arc::new(inner) })
    }

    /// Loads a model, or finds it. It blocks for as long as that takes, while others are served;
    /// of several loads one is done after the other.
    ///
    /// # Errors
    /// When its files cannot be used, or memory is short.
    pub fn load(&self, source: &ModelSource) -> Result<Arc<ResidentModel>, RoomError> {
        let inner = &*self.inner;
        let _one = inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let files = ModelFiles::open(&source.path)?;
        let digest = match source.digest {
            Some(digest) => digest,
            None => ModelDigest(*files.digest()?.as_bytes()),
        };
        if let Some(model) = inner.serving(&digest) {
            return Ok(model);
        }
        let options = inner.session_options(files.config(), source.kv_bytes_max)?;
        let session_bytes = options.memory_bytes(files.config()).unwrap_or(usize::MAX);
        let file_bytes = usize::try_from(files.file_bytes()).unwrap_or(usize::MAX);
        let decoder_bytes = session_bytes.saturating_add(file_bytes);
        let memory = inner.reserve(decoder_bytes, source.evict_idle)?;
        let text = ModelText::open(&files)?;
        let chat_format = text.chat_format(&files)?;
        // One thread of its own: those of the pool are for serving.
        let weights = Arc::new(Model::load(&files, &mut Pool::new(1)?)?);
        let session = Session::sharing(weights, Arc::clone(&inner.pool), options)?;
        let parts = ModelParts { digest, text, chat_format, decoder_bytes };
        inner.install(parts, session, memory)
    }

    /// Brings in a model whose decoder is in memory already, or finds it.
    ///
    /// # Errors
    /// When memory is short by the budget's count.
    pub fn install<D: Decoder + Send + 'static>(
        &self,
        parts: ModelParts,
        decoder: D,
    ) -> Result<Arc<ResidentModel>, RoomError> {
        let _one = self.inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = self.inner.serving(&parts.digest) {
            return Ok(model);
        }
        let memory = self.inner.reserve(parts.decoder_bytes, false)?;
        self.inner.install(parts, decoder, memory)
    }

    /// Takes a model out of memory as soon as the requests that it has taken have ended. It takes
    /// no more of them.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unload(&self, digest: &ModelDigest) -> Result<(), RoomError> {
        let model = self.model(digest).ok_or(RoomError::NoSuchModel(*digest))?;
        self.inner.retire(&model, false);
        Ok(())
    }

    /// A model that takes requests, or has failed.
    pub fn model(&self, digest: &ModelDigest) -> Option<Arc<ResidentModel>> {
        self.inner.lock_models().iter().find(|model| model.digest() == *digest).cloned()
    }

    /// The models that take requests, or have failed.
    pub fn models(&self) -> Vec<Arc<ResidentModel>> {
        self.inner.lock_models().clone()
    }

    /// Queues a request. Events come to the sink from now on, perhaps before this returns.
    ///
    /// # Errors
    /// When it does not fit the model, when too many wait, or when the model does not serve.
    pub fn submit(&self, submission: Submission) -> Result<Ticket, SubmitError> {
        let Submission { model, request, tenant, sink } = submission;
        Ok(Ticket::new(self.inner.desk.submit(model, tenant, request, sink)?))
    }

    /// How things are. It never waits for a step.
    pub fn status(&self) -> RoomStatus {
        let budget = &self.inner.budget;
        let (memory_bytes, memory_bytes_max) = (budget.used(), budget.max());
        let mut status = RoomStatus { memory_bytes, memory_bytes_max, ..self.inner.desk.status() };
        // They have no engine any more that could report.
        for model in self.models() {
            if matches!(model.state(), ModelState::Failed { .. }) {
                status.models.push(ModelStatus::without_engine(&model));
            }
        }
        status
    }
}

impl Inner {
    /// Sizes for a model that may take so many bytes of KV cache.
    fn session_options(
        &self,
        config: &ModelConfig,
        kv_bytes_max: usize,
    ) -> Result<SessionOptions, RoomError> {
        let rows = self.config.step_rows_max.max(1);
        let running = self.config.running_max.clamp(1, rows);
        let options = SessionOptions {
            kernels: self.config.kernels,
            max_rows: rows,
            max_logit_rows: running + 1,
            ..SessionOptions::new(config)
        };
        let layout = KvLayout::new(options.kv_kind, config.num_kv_heads, config.head_dim)
            .map_err(feilun_model::SessionError::from)?;
        let block_bytes = layout.block_bytes().saturating_mul(config.layers.len());
        let blocks_wanted = config.context_length.div_ceil(KV_BLOCK_TOKENS).saturating_mul(running);
        let num_blocks = (kv_bytes_max / block_bytes.max(1)).min(blocks_wanted);
        if num_blocks == 0 {
            return Err(RoomError::KvCacheTooSmall { found: kv_bytes_max, block_bytes });
        }
        Ok(SessionOptions { num_blocks, ..options })
    }

    /// Memory for a decoder and its model's cache of constraints.
    fn reserve(&self, decoder_bytes: usize, evict_idle: bool) -> Result<Reservation, RoomError> {
        let needed = decoder_bytes.saturating_add(self.config.constraints.cache_bytes);
        let granted = self.budget.reserve(needed, Duration::ZERO);
        if granted.is_ok() || !evict_idle || needed > self.budget.max() {
            return granted;
        }
        let deadline = Instant::now() + EVICTION_PATIENCE;
        let mut models = self.lock_models().clone();
        models.sort_by_key(|model| model.last_used());
        let mut freed = 0;
        for model in models {
            if self.budget.used().saturating_sub(freed).saturating_add(needed) <= self.budget.max()
            {
                break;
            }
            if self.retire(&model, true) {
                freed += model.bytes();
            }
        }
        self.budget.reserve(needed, deadline.saturating_duration_since(Instant::now()))
    }

    /// A model that takes requests. One that has failed makes room for another try.
    fn serving(&self, digest: &ModelDigest) -> Option<Arc<ResidentModel>> {
        let mut models = self.lock_models();
        let index = models.iter().position(|model| model.digest() == *digest)?;
        match models[index].state() {
            ModelState::Serving => Some(Arc::clone(&models[index])),
            _ => {
                models.remove(index);
                None
            }
        }
    }

    /// False if it is not idle and should have been.
    fn retire(&self, model: &Arc<ResidentModel>, only_idle: bool) -> bool {
        let retired = self.desk.retire(model, only_idle);
        if retired {
            self.lock_models().retain(|other| !Arc::ptr_eq(other, model));
        }
        retired
    }

    fn install<D: Decoder + Send + 'static>(
        &self,
        parts: ModelParts,
        decoder: D,
        memory: Reservation,
    ) -> Result<Arc<ResidentModel>, RoomError> {
        let engine_config = EngineConfig {
            running_max: self.config.running_max,
            // The desk has the bound.
            waiting_max: usize::MAX,
            ..EngineConfig::default()
        };
        let start = Instant::now();
        let clock = Box::new(move || start.elapsed());
        let config = decoder.config().clone();
        let engine = Engine::new(decoder, parts.text.vocabulary(), engine_config, clock);
        let limits = self.config.constraints.clone();
        let (bounds, budget) = (engine.bounds(), Arc::clone(&self.budget));
        let model = Arc::new(ResidentModel::new(parts, config, limits, bounds, budget)?);
        let host = Host::new(Arc::clone(&model), Box::new(engine), memory);
        self.desk.install(Box::new(host))?;
        self.lock_models().push(Arc::clone(&model));
        Ok(model)
    }

    fn lock_models(&self) -> MutexGuard<'_, Vec<Arc<ResidentModel>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.desk.close();
        let Some(thread) = self.thread.take() else { return };
        // A sink may hold the last handle: the thread cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            // Its panic has been told to every request.
            let _ = thread.join();
        }
    }
}
