//! The two servers, started the same way: one model file, so many threads, a free loopback port.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::client;
use crate::peer::Build;
use crate::server::Server;

/// How long the peer may take to load a small model.
const START_TIME: Duration = Duration::from_secs(60);

/// Which server.
pub(super) enum Contender<'p> {
    Feilun { program: &'p Path, data: &'p Path },
    Peer(&'p Build),
}

/// A server that runs; it ends when this is dropped.
pub(super) enum Running {
    Feilun(Server),
    Peer(PeerServer),
}

impl Contender<'_> {
    /// Its name in reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Contender::Feilun { .. } => "feilun",
            Contender::Peer(build) => build.name,
        }
    }

    /// Starts it for so many sequences at once, each of at most so many tokens. Ours plans its
    /// memory by itself.
    pub(super) fn start(
        &self,
        model: &Path,
        threads: usize,
        sequences: usize,
        context: usize,
    ) -> anyhow::Result<Running> {
        let threads = threads.to_string();
        match self {
            Contender::Feilun { program, data } => {
                let server = Server::start(program, data, model, &["--threads", &threads])?;
                Ok(Running::Feilun(server))
            }
            Contender::Peer(build) => {
                let mut command = Command::new(build.programs.join("llama-server"));
                command.arg("-m").arg(model).args(["-t", &threads, "-tb", &threads]);
                command.args(["-np", &sequences.to_string()]);
                command.args(["-c", &(sequences * context).to_string()]);
                PeerServer::start(command).map(Running::Peer)
            }
        }
    }
}

impl Running {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Running::Feilun(server) => server.address,
            Running::Peer(server) => server.address,
        }
    }
}

/// A `llama-server`.
pub(super) struct PeerServer {
    child: Child,
    address: SocketAddr,
}

impl PeerServer {
    fn start(mut command: Command) -> anyhow::Result<PeerServer> {
        // Free when it is chosen; another program that is faster shows as an error.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let line = crate::shown(&command);
        let child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let mut server = PeerServer { child, address };
        let start = Instant::now();
        while client::get(address, "/health").is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("`{line}` ended ({status})");
            }
            if start.elapsed() > START_TIME {
                bail!("`{line}` does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
