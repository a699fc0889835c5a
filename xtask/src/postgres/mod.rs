//! The PostgreSQL that tests of the store need: installed where it is missing, and a throw-away
//! cluster that lives as long as the tests.

pub(crate) mod cluster;

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::{run, say};
use cluster::Cluster;

/// Names the cluster for the tests; set by the user, it names one of theirs.
pub(crate) const URL_VARIABLE: &str = "FEILUN_TEST_POSTGRES";

/// The cluster that tests may use.
pub(crate) enum Server {
    /// The user's; we leave it running.
    Given(String),
    /// Ours; it ends when this is dropped.
    Ours(Cluster),
}

impl Server {
    /// Takes the user's, or starts one.
    pub(crate) fn ready() -> anyhow::Result<Self> {
        if let Ok(url) = std::env::var(URL_VARIABLE)
            && !url.is_empty()
        {
            return Ok(Self::Given(url));
        }
        if cluster::programs().is_none() {
            install()?;
        }
        let started =
            Cluster::start().context("cannot start a PostgreSQL cluster for the tests")?;
        Ok(Self::Ours(started))
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Given(url) => url.clone(),
            Self::Ours(cluster) => cluster.url(),
        }
    }
}

fn install() -> anyhow::Result<()> {
    const ADVICE: &str = "the tests need PostgreSQL: install it (on Debian: apt-get install \
                          postgresql), or name a server of yours in FEILUN_TEST_POSTGRES";
    say("installing Debian's postgresql for the tests");
    let sudo: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["sudo", "--non-interactive"] };
    for arguments in [&["update", "--quiet"][..], &["install", "--yes", "--quiet", "postgresql"]] {
        let words: Vec<&str> = [sudo, &["apt-get"], arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
        run(command.stdin(Stdio::null()).stdout(Stdio::null())).context(ADVICE)?;
    }
    if cluster::programs().is_none() {
        bail!("{ADVICE}; apt-get installed something else");
    }
    Ok(())
}
