//! The room of resident models as the server's backend, and the shelf from which they come.
//!
//! A name is a model, or an adapter on one: adapters are loaded into the model that they were
//! trained on, which computes requests of all its adapters together.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use feilun_infer::LoadedAdapter;
use feilun_infer::room::{
    ModelSource, ModelState, ResidentModel, Room, RoomError, Submission as RoomSubmission,
    SubmitError, Tenant,
};
use feilun_store::digest::ModelDigest;
use feilun_text::ChatFormat;

use crate::backend::{
    Backend, KnownModel, LoadRefusal, ModelFacts, ModelStatus, Refusal, ServedModel, Status,
    Submission, Ticket,
};
use crate::error::Chain;

/// What lies ready to be loaded.
pub trait Shelf: Send + Sync {
    /// Everything, the first of a name counts. Called without anything kept from the last call,
    /// so that what comes onto the disk is found.
    fn items(&self) -> Vec<ShelfItem>;
}

/// A model or an adapter on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShelfItem {
    /// What callers name.
    pub name: String,
    /// Its digest, where it is known without reading all of it.
    pub digest: Option<ModelDigest>,
    /// When it was installed, or made.
    pub created: SystemTime,
    /// What it takes on the disk.
    pub size_bytes: u64,
    /// What it is.
    pub what: Stored,
}

/// What lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A GGUF file, or the folder of a safetensors model.
    Model {
        /// Where.
        path: PathBuf,
    },
    /// An adapter.
    Adapter {
        /// Its folder.
        folder: PathBuf,
        /// The model that it was trained on.
        base: ModelDigest,
        /// Where that model was then, for when the shelf has it under no name.
        base_path: PathBuf,
    },
}

/// A room, the names of its models, and the shelf.
pub struct RoomBackend {
    room: Room,
    shelf: Box<dyn Shelf>,
    models: RwLock<Vec<Arc<RoomModel>>>,
    /// One load at a time: two requests for the same model must not load it twice.
    loading: Mutex<()>,
}

impl std::fmt::Debug for RoomBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomBackend").field("room", &self.room).finish_non_exhaustive()
    }
}

struct RoomModel {
    room: Room,
    resident: Arc<ResidentModel>,
    adapter: Option<LoadedAdapter>,
    facts: ModelFacts,
}

impl RoomModel {
    /// What is idle may have been unloaded for something else, and an engine may have failed:
    /// then it has to be loaded again.
    fn is_serving(&self) -> bool {
        self.resident.state() == ModelState::Serving
    }
}

impl RoomBackend {
    /// A backend without models in memory.
    pub fn new(room: Room, shelf: Box<dyn Shelf>) -> RoomBackend {
        RoomBackend { room, shelf, models: RwLock::default(), loading: Mutex::default() }
    }

    /// The first of a name that serves.
    fn loaded(&self, is_it: impl Fn(&RoomModel) -> bool) -> Option<Arc<RoomModel>> {
        self.lock().iter().find(|model| model.is_serving() && is_it(model)).cloned()
    }

    fn load_item(
        &self,
        items: &[ShelfItem],
        item: &ShelfItem,
        evict_idle: bool,
    ) -> Result<Arc<RoomModel>, LoadRefusal> {
        let model = match &item.what {
            Stored::Model { path } => {
                let source = ModelSource {
                    digest: item.digest.map(to_room),
                    evict_idle,
                    ..ModelSource::new(path)
                };
                let resident = self.room.load(&source).map_err(refused)?;
                self.model(item, resident, None)?
            }
            Stored::Adapter { folder, base, base_path } => {
                let base = match self.loaded(|m| m.adapter.is_none() && m.facts.digest == *base) {
                    Some(base) => base,
                    None => self.load_base(items, *base, base_path, evict_idle)?,
                };
                let resident = Arc::clone(&base.resident);
                let adapter = resident.load_adapter(folder).map_err(refused)?;
                self.model(item, resident, Some(adapter))?
            }
        };
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.retain(|other| other.is_serving() && other.facts.name != model.facts.name);
        models.push(Arc::clone(&model));
        Ok(model)
    }

    /// The model under an adapter.
    fn load_base(
        &self,
        items: &[ShelfItem],
        digest: ModelDigest,
        path: &std::path::Path,
        evict_idle: bool,
    ) -> Result<Arc<RoomModel>, LoadRefusal> {
        let is_it = |item: &&ShelfItem| {
            item.digest == Some(digest)
                || matches!(&item.what, Stored::Model { path: found } if found == path)
        };
        let on_shelf = items.iter().find(is_it);
        let found = match on_shelf {
            Some(item) => self.load_item(items, item, evict_idle)?,
            None => {
                let nameless = ShelfItem {
                    name: format!("base-{:.12}", digest.to_string()),
                    digest: None,
                    created: SystemTime::UNIX_EPOCH,
                    size_bytes: 0,
                    what: Stored::Model { path: path.to_owned() },
                };
                self.load_item(items, &nameless, evict_idle)?
            }
        };
        if found.facts.digest != digest {
            let (name, found) = (&found.facts.name, found.facts.digest);
            let reason = format!("the base `{name}` is {found} now, the adapter is for {digest}");
            return Err(LoadRefusal::Failed { reason });
        }
        Ok(found)
    }

    fn model(
        &self,
        item: &ShelfItem,
        resident: Arc<ResidentModel>,
        adapter: Option<LoadedAdapter>,
    ) -> Result<Arc<RoomModel>, LoadRefusal> {
        let chat_format = match resident.chat_format() {
            Some(format) => Arc::clone(format),
            // It has no template of its own.
            None => Arc::new(
                ChatFormat::plain(Arc::clone(resident.tokenizer()))
                    .map_err(|error| LoadRefusal::Failed { reason: Chain(&error).to_string() })?,
            ),
        };
        let of_resident = ModelDigest::from_bytes(resident.digest().0);
        let of_adapter = adapter.as_ref().map(|a| ModelDigest::from_bytes(a.digest.0));
        let facts = ModelFacts {
            name: item.name.clone(),
            digest: of_adapter.unwrap_or(of_resident),
            base: of_adapter.map(|_| of_resident),
            created: item.created,
            size_bytes: item.size_bytes,
            context_length: resident.context_length(),
            tokenizer: Arc::clone(resident.tokenizer()),
            chat_format,
            constraints: Arc::clone(resident.constraints()),
        };
        Ok(Arc::new(RoomModel { room: self.room.clone(), resident, adapter, facts }))
    }

    fn lock(&self) -> RwLockReadGuard<'_, Vec<Arc<RoomModel>>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for RoomBackend {
    fn models(&self) -> Vec<Arc<dyn ServedModel>> {
        let models = self.lock();
        let serving = models.iter().filter(|model| model.is_serving());
        serving.map(|model| Arc::clone(model) as Arc<dyn ServedModel>).collect()
    }

    fn known(&self) -> Vec<KnownModel> {
        let known = |item: ShelfItem| KnownModel {
            name: item.name,
            digest: item.digest,
            base: match item.what {
                Stored::Model { .. } => None,
                Stored::Adapter { base, .. } => Some(base),
            },
            created: item.created,
        };
        self.shelf.items().into_iter().map(known).collect()
    }

    fn load(&self, name: &str, evict_idle: bool) -> Result<Arc<dyn ServedModel>, LoadRefusal> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = self.loaded(|model| model.facts.name == name) {
            return Ok(model);
        }
        let items = self.shelf.items();
        let item = items.iter().find(|item| item.name == name);
        let item = item.ok_or_else(|| LoadRefusal::NoSuchModel { name: name.to_owned() })?;
        Ok(self.load_item(&items, item, evict_idle)?)
    }

    fn unload(&self, name: &str) -> Result<(), LoadRefusal> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let not_loaded = || LoadRefusal::NotLoaded { name: name.to_owned() };
        let model = self.loaded(|model| model.facts.name == name).ok_or_else(not_loaded)?;
        let (resident, adapter) = (&model.resident, model.adapter.as_ref().map(|a| a.digest));
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        match adapter {
            None => models.retain(|other| !Arc::ptr_eq(&other.resident, resident)),
            Some(_) => models.retain(|other| other.facts.name != name),
        }
        // The same adapter may be there under another name.
        let is_needed = |digest| {
            let is_it = |other: &Arc<RoomModel>| {
                Arc::ptr_eq(&other.resident, resident)
                    && other.adapter.as_ref().is_some_and(|a| a.digest == digest)
            };
            models.iter().any(is_it)
        };
        match adapter {
            None => self.room.unload(&resident.digest()).map_err(refused),
            Some(digest) if is_needed(digest) => Ok(()),
            Some(digest) => {
                let resident = Arc::clone(resident);
                drop(model);
                resident.unload_adapter(&digest).map_err(refused)
            }
        }
    }

    fn status(&self) -> Status {
        let room = self.room.status();
        let models = self.lock();
        let name = |digest| {
            let is_it = |m: &&Arc<RoomModel>| m.adapter.is_none() && m.resident.digest() == digest;
            let model = models.iter().find(is_it);
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
        let mut request = submission.request;
        request.adapter.clone_from(&self.adapter);
        let ticket = self.room.submit(RoomSubmission {
            model: Arc::clone(&self.resident),
            request,
            tenant: Tenant::new(submission.tenant.0),
            sink: submission.sink,
        })?;
        Ok(Ticket::new(move || drop(ticket)))
    }
}

fn to_room(digest: ModelDigest) -> feilun_infer::room::ModelDigest {
    feilun_infer::room::ModelDigest(*digest.as_bytes())
}

fn refused(error: RoomError) -> LoadRefusal {
    match error {
        RoomError::Memory { needed, used, max, .. } => LoadRefusal::Memory { needed, used, max },
        error => LoadRefusal::Failed { reason: Chain(&error).to_string() },
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
