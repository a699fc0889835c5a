//! A real `feilun up`, for as long as a value lives.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;

use crate::say;

/// How long it may take to start: a debug build measures its kernels first.
const START_TIME: Duration = Duration::from_secs(120);
/// What it says before its address.
const LISTENING: &str = "listening on http://";

/// A server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a program of ours with a data directory, a model and further arguments of `up`.
    pub(crate) fn start(
        program: &Path,
        data: &Path,
        model: &Path,
        more: &[&str],
    ) -> anyhow::Result<Server> {
        let mut command = Command::new(program);
        command.arg("--data").arg(data).args(["up", "--listen", "127.0.0.1:0", "--log", "warn"]);
        command.arg("--model").arg(model).args(more).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start `feilun up`")?;
        let stderr = child.stderr.take().context("the server has no stderr")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                say(&format!("feilun up: {line}"));
                // Nobody listens any more once the address is known.
                let _ = sender.send(line);
            }
        });
        // From here on it ends whatever happens.
        let mut server = Server { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        while server.address.port() == 0 {
            let line = lines.recv_timeout(START_TIME).context("`feilun up` does not listen")?;
            if let Some(rest) = line.strip_prefix(LISTENING) {
                let address = rest.split(' ').next().unwrap_or_default();
                server.address = address.parse().with_context(|| format!("it said `{line}`"))?;
            }
        }
        Ok(server)
    }

    /// Where it is, as a client wants to be told.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
