//! `cargo xtask clients`: a real `feilun up`, asked by other people's clients.
//!
//! OpenAI's own Python client makes every call that Feilun offers. It lies in a virtual environment
//! in the cache folder of peers, made once with pip.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{cargo, metadata, models, peer, run, say};

/// The client; its version is in the environment's name too, so that a new one is made anew.
const CLIENT: &str = "openai==3.54.0";
/// How long the server may take to start: a debug build measures its kernels first.
const START_TIME: Duration = Duration::from_secs(120);
/// The test model's file without its ending: how a model that is given by its path is called.
const MODEL: &str = "smollm2";
/// What the server says before its address.
const LISTENING: &str = "listening on ";

/// Runs every client.
pub(crate) fn run_all() -> anyhow::Result<()> {
    let model = models::fetch()?.join(format!("{MODEL}.gguf"));
    let python = environment()?;
    run(&mut cargo(&["build", "--locked", "-p", "feilun"]))?;
    let data = std::env::temp_dir().join(format!("feilun-clients-{}", std::process::id()));
    let outcome = Server::start(&data, &model).and_then(|server| {
        let script = metadata::workspace_root().join("xtask/src/clients/openai_client.py");
        run(Command::new(python).arg(script).arg(&server.url).arg(MODEL))
    });
    if data.exists() {
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("cannot remove {}", data.display()))?;
    }
    outcome
}

/// The Python of an environment with the client in it.
fn environment() -> anyhow::Result<PathBuf> {
    let folder = peer::folder()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let environment = folder.join(CLIENT.replace("==", "-"));
    let (python, done) = (environment.join("bin/python"), environment.join(".done"));
    if !done.exists() {
        say(&format!("installing {CLIENT} with pip"));
        let log = folder.join("clients.log");
        peer::run_logged(Command::new("python3").args(["-m", "venv"]).arg(&environment), &log)?;
        let mut pip = Command::new(&python);
        peer::run_logged(pip.args(["-m", "pip", "install", "--quiet", CLIENT]), &log)?;
        std::fs::write(&done, "")?;
    }
    Ok(python)
}

/// A server that ends with this value.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, model: &Path) -> anyhow::Result<Server> {
        let program = metadata::load()?.target_directory.join("debug").join("feilun");
        let mut command = Command::new(program);
        command.arg("--data").arg(data).args(["up", "--listen", "127.0.0.1:0", "--log", "warn"]);
        command.arg("--model").arg(model).stderr(Stdio::piped());
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
        let mut server = Server { child, url: String::new() };
        while server.url.is_empty() {
            let line = lines.recv_timeout(START_TIME).context("`feilun up` does not listen")?;
            if let Some(rest) = line.strip_prefix(LISTENING) {
                server.url = rest.split(' ').next().unwrap_or_default().to_owned();
            }
        }
        if !server.url.starts_with("http://") {
            bail!("`feilun up` listens on `{}`", server.url);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
