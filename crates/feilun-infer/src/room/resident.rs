//! A model that is in memory, as those see it who ask something of it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use feilun_model::{Adapter, ModelConfig};
use feilun_text::{ChatFormat, Tokenizer};

use super::budget::{Budget, Reservation};
use super::config::ModelDigest;
use super::error::RoomError;
use super::status::ModelState;
use crate::constraint::{ConstraintCompiler, ConstraintLimits};
use crate::kv::prefix::AdapterDigest;
use crate::model_text::ModelText;
use crate::request::{LoadedAdapter, RequestBounds};

/// What a model consists of, besides the decoder.
#[derive(Debug)]
pub struct ModelParts {
    /// The content's name.
    pub digest: ModelDigest,
    /// Tokenizer and end tokens.
    pub text: ModelText,
    /// The chat format, where the model has one.
    pub chat_format: Option<ChatFormat>,
    /// Memory that the decoder takes, for the budget.
    pub decoder_bytes: usize,
}

/// A model at work. Requests hold it, so that an alias that moves, or an unload, lets them end on
/// the model they began with.
#[derive(Debug)]
pub struct ResidentModel {
    digest: ModelDigest,
    config: ModelConfig,
    text: ModelText,
    chat_format: Option<Arc<ChatFormat>>,
    constraints: Arc<ConstraintCompiler>,
    bounds: RequestBounds,
    bytes: usize,
    budget: Arc<Budget>,
    adapters: Mutex<Vec<AdapterEntry>>,
    state: Mutex<ModelState>,
    in_flight: AtomicUsize,
    /// By the room's count of submissions.
    last_used: AtomicU64,
}

#[derive(Debug)]
struct AdapterEntry {
    adapter: LoadedAdapter,
    memory: Reservation,
    /// Unloaded, but requests still compute with it.
    is_retired: bool,
}

/// An adapter that is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterStatus {
    /// Which.
    pub digest: AdapterDigest,
    /// Memory that it takes.
    pub bytes: usize,
}

impl ResidentModel {
    pub(super) fn new(
        parts: ModelParts,
        config: ModelConfig,
        limits: ConstraintLimits,
        bounds: RequestBounds,
        budget: Arc<Budget>,
    ) -> Result<ResidentModel, RoomError> {
        let bytes = parts.decoder_bytes.saturating_add(limits.cache_bytes);
        let constraints = Arc::new(ConstraintCompiler::new(parts.text.vocabulary(), limits)?);
        Ok(ResidentModel {
            digest: parts.digest,
            config,
            text: parts.text,
            chat_format: parts.chat_format.map(Arc::new),
            constraints,
            bounds,
            bytes,
            budget,
            adapters: Mutex::new(Vec::new()),
            state: Mutex::new(ModelState::Serving),
            in_flight: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
        })
    }

    /// The content's name.
    pub fn digest(&self) -> ModelDigest {
        self.digest
    }

    /// Shape and switches.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Tokenizer and end tokens.
    pub fn text(&self) -> &ModelText {
        &self.text
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.text.tokenizer
    }

    /// The chat format, where the model has one.
    pub fn chat_format(&self) -> Option<&Arc<ChatFormat>> {
        self.chat_format.as_ref()
    }

    /// Compiles constraints for this model's vocabulary, from any thread.
    pub fn constraints(&self) -> &Arc<ConstraintCompiler> {
        &self.constraints
    }

    /// Most tokens of prompt and answer together: the model's context, or the KV cache.
    pub fn context_length(&self) -> usize {
        self.bounds.context_length.min(self.bounds.cache_positions)
    }

    /// Memory that it takes, without adapters.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it takes requests.
    pub fn state(&self) -> ModelState {
        self.lock_state().clone()
    }

    /// Loads an adapter made for this model, or finds it.
    ///
    /// # Errors
    /// When its files cannot be used, or memory is short.
    pub fn load_adapter(&self, folder: &Path) -> Result<LoadedAdapter, RoomError> {
        // It is kept as f32; files may have half of that.
        let stored = usize::try_from(Adapter::file_bytes(folder)?).unwrap_or(usize::MAX);
        let estimate = stored.saturating_mul(2);
        let mut memory = self.budget.reserve(estimate, Duration::ZERO)?;
        let weights = Arc::new(Adapter::open(folder, &self.config)?);
        let digest = AdapterDigest(*weights.digest.as_bytes());
        memory.shrink_to(weights.bytes());
        let mut adapters = self.lock_adapters();
        if let Some(entry) = adapters.iter_mut().find(|entry| entry.adapter.digest == digest) {
            entry.is_retired = false;
            return Ok(entry.adapter.clone());
        }
        let adapter = LoadedAdapter { digest, weights };
        adapters.push(AdapterEntry { adapter: adapter.clone(), memory, is_retired: false });
        Ok(adapter)
    }

    /// Takes an adapter out of memory, as soon as the last request that computes with it ends.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unload_adapter(&self, digest: &AdapterDigest) -> Result<(), RoomError> {
        let mut adapters = self.lock_adapters();
        let entry = adapters
            .iter_mut()
            .find(|entry| entry.adapter.digest == *digest && !entry.is_retired)
            .ok_or(RoomError::NoSuchAdapter(*digest))?;
        entry.is_retired = true;
        drop(adapters);
        drop(self.lock_adapters());
        Ok(())
    }

    /// An adapter that is in memory.
    pub fn adapter(&self, digest: &AdapterDigest) -> Option<LoadedAdapter> {
        let adapters = self.lock_adapters();
        let mut current = adapters.iter().filter(|entry| !entry.is_retired);
        current.find(|entry| entry.adapter.digest == *digest).map(|entry| entry.adapter.clone())
    }

    /// The adapters that are in memory.
    pub fn adapters(&self) -> Vec<AdapterStatus> {
        let adapters = self.lock_adapters();
        let current = adapters.iter().filter(|entry| !entry.is_retired);
        current
            .map(|entry| AdapterStatus {
                digest: entry.adapter.digest,
                bytes: entry.memory.bytes(),
            })
            .collect()
    }

    pub(super) fn bounds(&self) -> RequestBounds {
        self.bounds
    }

    pub(super) fn set_state(&self, state: ModelState) {
        *self.lock_state() = state;
    }

    /// Requests that have been accepted and have not ended.
    pub(super) fn num_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn enter(self: Arc<Self>, submission: u64) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.last_used.store(submission, Ordering::Relaxed);
        InFlight(self)
    }

    fn lock_state(&self) -> MutexGuard<'_, ModelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapters, after those that nobody uses any longer have gone.
    fn lock_adapters(&self) -> MutexGuard<'_, Vec<AdapterEntry>> {
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = |entry: &AdapterEntry| Arc::strong_count(&entry.adapter.weights) > 1;
        adapters.retain(|entry| !entry.is_retired || in_use(entry));
        adapters
    }
}

/// A request that has been accepted and has not ended.
#[derive(Debug)]
pub(super) struct InFlight(Arc<ResidentModel>);

impl InFlight {
    pub(super) fn model(&self) -> &Arc<ResidentModel> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
