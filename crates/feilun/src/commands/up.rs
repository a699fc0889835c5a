//! `feilun up`: serve models over HTTP, and keep what is said.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feilun_infer::room::{Room, RoomConfig};
use feilun_kernels::Pool;
use feilun_server::backend::Backend as _;
use feilun_server::room::RoomBackend;
use feilun_server::{Limits, Parts, ServeError, ServerConfig, TlsFiles};
use feilun_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::commands::{Session, pull};
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::resolve::{self, FoundModel};
use crate::shelf::{self, DataShelf};
use crate::store::StoreArgs;
use crate::trainer::TuneTrainer;
use crate::{machine, output};

/// Serve models over HTTP, with OpenAI's API
///
/// Every answer is recorded in the data directory before its last byte is sent. It listens on this
/// machine alone; another address needs keys (feilun keys create). Without a model installed, it
/// fetches smollm2-135m-instruct first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun up
  feilun up --model gemma3-270m --model ./tuned.gguf
  feilun up --listen 0.0.0.0:8443 --host models.example --tls-cert cert.pem --tls-key key.pem

Then:
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' -d '
    {\"model\": \"smollm2-135m-instruct\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'")]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A model to load at the start: an installed name, the beginning of a digest, or a path; may
    /// be given several times. Other models and adapters of the data directory are loaded when
    /// somebody asks them
    #[arg(long, short, value_name = "MODEL")]
    model: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// A name under which the server is reached, besides localhost and its address
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// A web page's origin that may use the server, such as `https://app.example`
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// The certificate for TLS, with those that vouch for it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Threads to compute with, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Most memory for models and their caches, in GiB; without it three quarters of what is free
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// Most memory of a fine-tuning job, in GiB; without it what is free when it begins
    #[arg(long, value_name = "GIB")]
    training_memory: Option<f64>,
    /// What to log: error, warn, info, debug, or a filter such as feilun_server=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log as JSON, one object a line
    #[arg(long)]
    log_json: bool,
}

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    let start = Instant::now();
    start_log(&args)?;
    let config = config(&args);
    if args.model.is_empty() {
        pull::default_if_missing(session, "the first start")?;
    }
    let names: Vec<Option<&str>> = match args.model.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let found: Vec<FoundModel> =
        names.into_iter().map(|name| resolve::find(session, name)).collect::<Outcome<_>>()?;
    refuse_same_names(&found)?;
    let (runtime, store) = args.store.open(session)?;
    let shelf = || DataShelf::new(session.data.clone(), &found);
    let backend = Arc::new(open_room(&args, session, shelf())?);
    for model in &found {
        runtime.block_on(add(&backend, &store, model))?;
    }
    let trainer = TuneTrainer {
        data: session.data.clone(),
        shelf: shelf(),
        threads: args.threads,
        memory: args.training_memory,
    };
    let parts = Parts { backend, store: store.clone(), trainer: Some(Arc::new(trainer)) };
    let bound = runtime.block_on(feilun_server::bind(config, parts)).map_err(explained)?;
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    output::talk(format!(
        "listening on {scheme}://{} after {:.1} s; Ctrl-C ends it",
        bound.address(),
        start.elapsed().as_secs_f64()
    ));
    // The first signal lets answers end; a second Ctrl-C ends everything.
    session.interrupt.spare_one();
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let ask = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            output::talk("stopping: answers may end first");
            ask.cancel();
        });
        bound.run(stop).await;
        store.close().await?;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

fn start_log(args: &Args) -> Outcome {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Failure::usage(format!("--log `{}`: {error}", args.log)))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if args.log_json {
        log.json().init()
    } else {
        log.with_target(false).init()
    }
    Ok(())
}

fn config(args: &Args) -> ServerConfig {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    ServerConfig {
        hosts: args.host.clone(),
        origins: args.allow_origin.clone(),
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        limits: Limits::default(),
        ..ServerConfig::new(args.listen)
    }
}

/// A room without models in memory.
fn open_room(args: &Args, session: &Session, shelf: DataShelf) -> Outcome<RoomBackend> {
    let threads = match args.threads {
        Some(threads) => threads.into(),
        None => machine::threads(&session.environment)?,
    };
    let memory = memory_bytes(args.memory)?;
    let kernels = machine::kernels(session, &mut Pool::new(threads)?)?;
    tracing::debug!(threads, memory, "opening the room");
    let config = RoomConfig { kernels, ..RoomConfig::new(threads, memory) };
    Ok(RoomBackend::new(Room::start(config)?, Box::new(shelf)))
}

fn memory_bytes(gibibytes: Option<f64>) -> Outcome<usize> {
    const GIB: f64 = (1u64 << 30) as f64;
    let bytes = match (gibibytes, machine::memory_bytes()) {
        (Some(gibibytes), _) if gibibytes > 0.0 && gibibytes < 1e6 => gibibytes * GIB,
        (Some(gibibytes), _) => {
            return Err(Failure::usage(format!("--memory {gibibytes} is no amount of memory")));
        }
        (None, Some((_, available))) => available as f64 * 0.75,
        (None, None) => 4.0 * GIB,
    };
    Ok(bytes as usize)
}

/// Two files of one name cannot be told apart by callers.
fn refuse_same_names(found: &[FoundModel]) -> Outcome {
    for (index, model) in found.iter().enumerate() {
        let name = shelf::served_name(model);
        let is_other =
            |other: &&FoundModel| shelf::served_name(other) == name && other.path != model.path;
        if let Some(other) = found[..index].iter().find(is_other) {
            let (one, two) = (&other.label, &model.label);
            return Err(Failure::usage(format!("{one} and {two} would both be called `{name}`")));
        }
    }
    Ok(())
}

/// Loads a model and records it, so that aliases can point to it.
async fn add(backend: &RoomBackend, store: &Store, model: &FoundModel) -> Outcome {
    let name = shelf::served_name(model);
    let loaded = backend.load(&name, false).doing(|| format!("cannot serve {}", model.label))?;
    let facts = loaded.facts();
    match feilun_server::record_model(store, facts).await {
        Err(StoreError::ModelBlocked { reason, .. }) => {
            return Err(Failure::refused(format!("{} is blocked: {reason}", model.label)));
        }
        recorded => recorded?,
    }
    output::talk(format!("serving {name} ({})", facts.digest));
    Ok(())
}

fn explained(error: ServeError) -> Failure {
    match error {
        ServeError::NoKeys { .. } => Failure::usage(error)
            .hint("make one: feilun keys create me --role admin")
            .hint("or listen on this machine alone: --listen 127.0.0.1:8080"),
        ServeError::Tls(_) => Failure::usage(error),
        error => error.into(),
    }
}
