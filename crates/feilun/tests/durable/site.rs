//! A data directory, and where its store is.

use std::path::Path;

use feilun_store::StoreUrl;

use crate::cluster::Cluster;
use crate::up::{UP, Up, feilun, model_file};

pub(crate) struct Site {
    folder: tempfile::TempDir,
    /// Where the store is.
    pub(crate) url: StoreUrl,
    /// The same for the server, with the password.
    address: Option<String>,
    /// The tests' own PostgreSQL, which they may stop.
    pub(crate) cluster: Option<Cluster>,
}

impl Site {
    /// With the store in the data directory.
    pub(crate) fn sqlite() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::sqlite(folder.path().join("feilun.db"));
        Site { folder, url, address: None, cluster: None }
    }

    /// With the store in a PostgreSQL of its own.
    pub(crate) fn postgres() -> Site {
        let cluster = Cluster::start().unwrap();
        let address = cluster.url();
        let url = address.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Site { folder, url, address: Some(address), cluster: Some(cluster) }
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a server.
    pub(crate) fn start(&self) -> Up {
        let mut command = feilun(self.data(), &UP);
        if let Some(address) = &self.address {
            command.env("FEILUN_DATABASE_URL", address);
        }
        command.arg("--model").arg(model_file());
        Up::start_command(command)
    }
}
