//! The store of the data directory, opened for a command.

use feilun_store::{Store, StoreOptions, StoreUrl};
use tokio::runtime::Runtime;

use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};

/// Where turns, keys and aliases are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// The database instead of the data directory's own: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    database: Option<StoreUrl>,
}

impl StoreArgs {
    /// Opens the store; its tasks live in the runtime.
    pub(crate) fn open(&self, session: &Session) -> Outcome<(Runtime, Store)> {
        let data = &session.data;
        std::fs::create_dir_all(data.path())
            .doing(|| format!("cannot create {}", data.path().display()))?;
        let url = match (&self.database, &session.environment.database_url) {
            (Some(url), _) => url.clone(),
            (None, Some(text)) => {
                text.parse().map_err(Failure::usage).hint("FEILUN_DATABASE_URL says it")?
            }
            (None, None) => StoreUrl::sqlite(data.database()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let options = StoreOptions::new(data.blobs());
        let store = runtime
            .block_on(Store::open(&url, options))
            .doing(|| format!("cannot open the store {url}"))?;
        Ok((runtime, store))
    }
}
