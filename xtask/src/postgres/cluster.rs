//! A PostgreSQL cluster in a temporary folder, on a free loopback port, with a password of its
//! own. PostgreSQL refuses to run as root, so for root it runs as an unprivileged user.
//!
//! Tests of `feilun-store` include this file too, for a cluster that they may stop and start.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Its only user.
const USER: &str = "feilun";
/// How long it may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster; it ends when this is dropped.
pub(crate) struct Cluster {
    programs: PathBuf,
    /// Who runs it, where that is not us.
    account: Option<(u32, u32)>,
    folder: tempfile::TempDir,
    port: u16,
    password: String,
    server: Option<Child>,
}

/// The folder of PostgreSQL's programs: Debian keeps each version in a folder of its own.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    folders.sort();
    let newest_first = folders.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = newest_first.chain(std::env::split_paths(&path)).collect();
    all.into_iter().find(|folder| {
        ["initdb", "postgres", "pg_isready"].iter().all(|name| folder.join(name).is_file())
    })
}

impl Cluster {
    /// Makes a cluster and waits until it answers.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let programs = programs().context("PostgreSQL is not installed")?;
        let is_root = rustix::process::geteuid().is_root();
        let account = if is_root { Some(unprivileged_account()?) } else { None };
        let folder = tempfile::tempdir()?;
        let password = random_word()?;
        let mut cluster = Self { programs, account, folder, port: 0, password, server: None };
        cluster.make()?;
        // The port is free when it is chosen; another program may be faster in taking it.
        for attempt in 1.. {
            cluster.port = free_port()?;
            match cluster.run() {
                Err(error) if attempt == 3 => return Err(error),
                Err(_) => cluster.end(Signal::QUIT)?,
                Ok(()) => break,
            }
        }
        Ok(cluster)
    }

    /// Its address, with the password.
    pub(crate) fn url(&self) -> String {
        let Self { password, port, .. } = self;
        format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres")
    }

    /// Starts the server, on the port it had, and waits until it answers.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories="] {
            server.args(["-c", setting]);
        }
        server.stderr(log);
        self.server = Some(server.spawn().context("cannot start postgres")?);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut ready = self.program("pg_isready");
            ready.args(["--quiet", "--host=127.0.0.1", "--username", USER]);
            if ready.arg(format!("--port={}", self.port)).status()?.success() {
                return Ok(());
            }
            if self.server.as_mut().is_some_and(|server| !matches!(server.try_wait(), Ok(None))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        bail!("PostgreSQL does not answer; it said: {log}")
    }

    /// Ends the server: [`Signal::QUIT`] at once and without tidying up, [`Signal::INT`] in
    /// order, but without waiting for those who are connected.
    pub(crate) fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        if server.try_wait()?.is_none() {
            kill_process(Pid::from_child(&server), signal)?;
            server.wait()?;
        }
        Ok(())
    }

    fn make(&self) -> anyhow::Result<()> {
        let secret = self.folder.path().join("password");
        std::fs::write(&secret, &self.password)?;
        if let Some((user, group)) = self.account {
            for path in [self.folder.path(), &secret] {
                chown(path, Some(user), Some(group))?;
            }
        }
        let mut command = self.program("initdb");
        command.arg("-D").arg(self.data()).arg("--pwfile").arg(&secret);
        command.args(["--username", USER, "--auth=scram-sha-256", "--encoding=UTF8"]);
        let output = command.args(["--no-locale", "--no-sync"]).output()?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of PostgreSQL's programs, to be run by the right user, in silence.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command.current_dir(self.folder.path()).env_remove("PGOPTIONS");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing of it is needed any more. If it does not end, it ends when it misses its folder.
        let _ = self.end(Signal::QUIT);
    }
}

/// PostgreSQL's own, or nobody.
fn unprivileged_account() -> anyhow::Result<(u32, u32)> {
    let accounts = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let numbers = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    numbers("postgres").or_else(|| numbers("nobody")).context("no unprivileged user is there")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn random_word() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
