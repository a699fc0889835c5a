//! The room of resident models as the server's backend.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use feilun_infer::room::{
    ModelSource, ResidentModel, Room, RoomError, Submission as RoomSubmission, SubmitError, Tenant,
};
use feilun_store::digest::ModelDigest;
use feilun_text::{ChatError, ChatFormat};

use crate::backend::{
    Backend, ModelFacts, ModelStatus, Refusal, ServedModel, Status, Submission, Ticket,
};

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum AddModelError {
    /// It cannot be loaded.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// It has no template of its own, and the plain one does not fit its tokenizer.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Another model has that name.
    #[error("there is a model `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
    },
}

/// A room, and the names of its models.
pub struct RoomBackend {
    room: Room,
    models: RwLock<Vec<Arc<RoomModel>>>,
}

impl std::fmt::Debug for RoomBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomBackend").field("room", &self.room).finish_non_exhaustive()
    }
}

struct RoomModel {
    room: Room,
    resident: Arc<ResidentModel>,
    facts: ModelFacts,
}

impl RoomBackend {
    /// A backend without models.
    pub fn new(room: Room) -> RoomBackend {
        RoomBackend { room, models: RwLock::default() }
    }

    /// Loads a model and serves it under a name. Takes as long as loading takes.
    ///
    /// # Errors
    /// If it cannot be loaded, or the name is taken.
    pub fn add(
        &self,
        name: &str,
        created: SystemTime,
        source: &ModelSource,
    ) -> Result<ModelFacts, AddModelError> {
        if self.lock().iter().any(|model| model.facts.name == name) {
            return Err(AddModelError::NameTaken { name: name.to_owned() });
        }
        let resident = self.room.load(source)?;
        let chat_format = match resident.chat_format() {
            Some(format) => Arc::clone(format),
            None => Arc::new(ChatFormat::plain(Arc::clone(resident.tokenizer()))?),
        };
        let facts = ModelFacts {
            name: name.to_owned(),
            digest: ModelDigest::from_bytes(resident.digest().0),
            created,
            context_length: resident.context_length(),
            tokenizer: Arc::clone(resident.tokenizer()),
            chat_format,
            constraints: Arc::clone(resident.constraints()),
        };
        let model = RoomModel { room: self.room.clone(), resident, facts: facts.clone() };
        self.models.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(model));
        Ok(facts)
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<RoomModel>>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for RoomBackend {
    fn models(&self) -> Vec<Arc<dyn ServedModel>> {
        self.lock().iter().map(|model| Arc::clone(model) as Arc<dyn ServedModel>).collect()
    }

    fn status(&self) -> Status {
        let room = self.room.status();
        let models = self.lock();
        let name = |digest| {
            let model = models.iter().find(|model| model.resident.digest() == digest);
            model.map_or_else(|| "(unloaded)".to_owned(), |model| model.facts.name.clone())
        };
        let shown = room.models.iter().map(|model| ModelStatus {
            name: name(model.digest),
            running: model.running,
            waiting: model.waiting,
            cache_blocks_used: model.blocks.used,
            cache_blocks: model.blocks.all,
            bytes: model.bytes as u64,
        });
        Status { models: shown.collect() }
    }
}

impl ServedModel for RoomModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn submit(&self, submission: Submission) -> Result<Ticket, Refusal> {
        let ticket = self.room.submit(RoomSubmission {
            model: Arc::clone(&self.resident),
            request: submission.request,
            tenant: Tenant::new(submission.tenant.0),
            sink: submission.sink,
        })?;
        Ok(Ticket::new(move || drop(ticket)))
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Refusal {
        match error {
            SubmitError::Request(error) => Refusal::Request(error),
            SubmitError::QueueFull { retry_after, .. }
            | SubmitError::QuotaFull { retry_after, .. } => Refusal::Busy { retry_after },
            gone => Refusal::Gone { reason: gone.to_string() },
        }
    }
}
