//! What all requests share, and how a server starts and stops.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use feilun_store::aliases::AliasTarget;
use feilun_store::digest::{ConfigHash, ModelDigest};
use feilun_store::id::KeyId;
use feilun_store::keys::Key;
use feilun_store::{Page, Store, StoreError, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, TenantId};
use crate::config::{Limits, ServerConfig};
use crate::error::{ApiError, ErrorKind};
use crate::http::body::LARGE_UNITS;
use crate::http::listen;
use crate::http::tls::{self, TlsError};
use crate::jobs::{Jobs, supervisor};
use crate::metrics::Metrics;
use crate::security::rates::RateTable;
use crate::security::sites::Sites;
use crate::training::Trainer;

/// How old the answer to "is there a key?" may be: a key that was just made at the command
/// line counts after at most this long.
const KEYS_KNOWN_FOR: Duration = Duration::from_secs(1);
/// Rows that are read at once.
const PAGE_ROWS: u32 = 1000;
/// How old the copy of the aliases may be; a move through this server counts at once.
const ALIASES_KNOWN_FOR: Duration = Duration::from_secs(1);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It would listen beyond this machine, and everybody could use it.
    #[error("{address} is not a loopback address, and there is no key to keep strangers out")]
    NoKeys {
        /// Where it would listen.
        address: std::net::SocketAddr,
    },
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error("the system has no randomness")]
    Random(#[from] getrandom::Error),
}

/// A server, for as long as it runs.
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) sites: Sites,
    pub(crate) rates: RateTable<KeyId>,
    /// Names the configuration in every row that is written.
    pub(crate) config_hash: ConfigHash,
    /// Tasks that outlive their request: answers on their way to the store.
    pub(crate) tasks: TaskTracker,
    pub(crate) large_bodies: Semaphore,
    preparing: Semaphore,
    /// Makes tenants of keys, anew for each process: nobody outside can know them.
    tenant_secret: [u8; 32],
    keys_exist: Mutex<Option<(Instant, bool)>>,
    pub(crate) aliases: RwLock<Aliases>,
    /// One load of a model at a time.
    pub(crate) loading: Mutex<()>,
    /// What trains, where anything does.
    pub(crate) trainer: Option<Arc<dyn Trainer>>,
    pub(crate) jobs: Jobs,
    pub(crate) uploads: Semaphore,
    draining: AtomicBool,
}

/// A copy of the aliases.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    read_at: Option<Instant>,
    /// What answers, by alias: the adapter, or the model where there is none.
    pub(crate) targets: HashMap<String, ModelDigest>,
}

/// A server that listens, and has not answered yet.
pub struct BoundServer {
    server: Arc<Server>,
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    address: std::net::SocketAddr,
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a server is made of.
pub struct Parts {
    /// What answers.
    pub backend: Arc<dyn Backend>,
    /// What remembers.
    pub store: Store,
    /// What trains; without it there are no fine-tuning jobs.
    pub trainer: Option<Arc<dyn Trainer>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("store", self.store.url()).finish_non_exhaustive()
    }
}

/// Checks the configuration and binds the address.
///
/// # Errors
/// If the address is beyond loopback and there is no key, and whatever else stands in the way.
pub async fn bind(config: ServerConfig, parts: Parts) -> Result<BoundServer, ServeError> {
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let server = Arc::new(Server::new(config, parts).await?);
    let address = server.config.address;
    if !address.ip().is_loopback() && !server.has_key().await? {
        return Err(ServeError::NoKeys { address });
    }
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok(BoundServer { server, listener, tls, address })
}

impl BoundServer {
    /// Where it listens: the port is known now, even if it was given as 0.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Answers until `stop`, then lets open answers end.
    pub async fn run(self, stop: CancellationToken) {
        let router = crate::routes::router(&self.server);
        self.server.tasks.spawn(supervisor::run(Arc::clone(&self.server), stop.clone()));
        listen::run(self.server, self.listener, self.tls, router, stop).await;
    }
}

impl Server {
    async fn new(config: ServerConfig, parts: Parts) -> Result<Server, ServeError> {
        let recorded = serde_json::json!({
            "server": env!("CARGO_PKG_VERSION"),
            "capture": config.capture,
            "answer_tokens_default": config.limits.answer_tokens_default,
            "body_bytes_max": config.limits.body_bytes_max,
            "generation_timeout_ms": config.limits.generation_timeout.as_millis() as u64,
        });
        let config_hash = parts.store.record_config(&recorded).await?;
        let mut tenant_secret = [0u8; 32];
        getrandom::fill(&mut tenant_secret)?;
        let Limits { preparing_max, uploads_max, .. } = config.limits;
        Ok(Server {
            sites: Sites::new(config.address, &config.hosts, &config.origins),
            config,
            backend: parts.backend,
            store: parts.store,
            metrics: Metrics::new(),
            rates: RateTable::default(),
            config_hash,
            tasks: TaskTracker::new(),
            large_bodies: Semaphore::new(LARGE_UNITS),
            preparing: Semaphore::new(preparing_max),
            tenant_secret,
            keys_exist: Mutex::default(),
            aliases: RwLock::default(),
            loading: Mutex::default(),
            trainer: parts.trainer,
            jobs: Jobs::default(),
            uploads: Semaphore::new(uploads_max),
            draining: AtomicBool::new(false),
        })
    }

    async fn has_key(&self) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let works =
            |key: &Key| key.revoked_at.is_none() && key.expires_at.is_none_or(|end| end > now);
        let mut page = Page::newest(PAGE_ROWS);
        loop {
            let keys = self.store.list_keys(page).await?;
            match keys.last() {
                _ if keys.iter().any(works) => return Ok(true),
                Some(last) if keys.len() == PAGE_ROWS as usize => page = page.behind(last.id),
                _ => return Ok(false),
            }
        }
    }

    /// Whether a request without a key is refused.
    pub(crate) async fn needs_keys(&self) -> Result<bool, ApiError> {
        if !self.config.address.ip().is_loopback() {
            return Ok(true);
        }
        // One looks at a time; the others wait for what it finds.
        let mut known = self.keys_exist.lock().await;
        match *known {
            Some((at, exist)) if at.elapsed() < KEYS_KNOWN_FOR => Ok(exist),
            _ => {
                let exist = self.has_key().await?;
                *known = Some((Instant::now(), exist));
                Ok(exist)
            }
        }
    }

    /// Whose requests may share what the engine keeps.
    pub(crate) fn tenant(&self, who: &[u8]) -> TenantId {
        let hash = blake3::keyed_hash(&self.tenant_secret, who);
        let mut id = [0u8; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        TenantId(id)
    }

    /// Runs work that takes the processor, away from the threads that serve connections. A panic
    /// in it is this request's alone.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _place = self.preparing.acquire().await.map_err(|_| crate::generation::broken_off())?;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a request could not be prepared");
                Err(crate::generation::broken_off())
            }
        }
    }

    /// Reads the aliases again where the copy is old.
    pub(crate) async fn refresh_aliases(&self) -> Result<(), ApiError> {
        let read_at = self.aliases.read().unwrap_or_else(PoisonError::into_inner).read_at;
        if read_at.is_some_and(|at| at.elapsed() < ALIASES_KNOWN_FOR) {
            return Ok(());
        }
        self.read_aliases().await
    }

    /// Reads the aliases.
    pub(crate) async fn read_aliases(&self) -> Result<(), ApiError> {
        let now = Instant::now();
        let found = self.store.aliases().await?;
        let answers = |target: AliasTarget| target.adapter.unwrap_or(target.model);
        let targets = found.into_iter().map(|alias| (alias.name, answers(alias.target)));
        let fresh = Aliases { read_at: Some(now), targets: targets.collect() };
        let mut aliases = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
        // Two that read at the same time: the later look wins.
        if aliases.read_at.is_none_or(|at| at < now) {
            *aliases = fresh;
        }
        Ok(())
    }

    /// From now on new work is refused.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let not_found = |message: String| ApiError::new(ErrorKind::NotFound, message);
        match &error {
            error if error.is_transient() => {
                tracing::error!(%error, "the store");
                let message = "the store cannot record at the moment; nothing was acknowledged";
                ApiError::new(ErrorKind::StoreUnavailable, message)
                    .retry_after(Duration::from_secs(1))
            }
            StoreError::NoSuchTurn(_)
            | StoreError::NoSuchConversation(_)
            | StoreError::NoSuchFile(_)
            | StoreError::NoSuchRun(_) => not_found(error.to_string()),
            StoreError::BlobTooLarge { .. } => {
                ApiError::new(ErrorKind::TooLarge, error.to_string())
            }
            StoreError::NoSuchModel(_) => ApiError::new(ErrorKind::NoSuchModel, error.to_string()),
            StoreError::Invalid { field, .. } => {
                ApiError::new(ErrorKind::InvalidValue, error.to_string()).param(*field)
            }
            StoreError::AliasMoved { .. }
            | StoreError::ModelBlocked { .. }
            | StoreError::RunStatus { .. } => ApiError::new(ErrorKind::Conflict, error.to_string()),
            _ => ApiError::internal(&error),
        }
    }
}
