//! `cargo xtask clients`: a real `feilun up`, asked by other people's clients.
//!
//! OpenAI's own Python client makes every call that Feilun offers. Then schemathesis makes up
//! requests from the OpenAPI document and compares each answer with it. Both lie in virtual
//! environments in the cache folder of peers, made once with pip.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{cargo, metadata, models, peer, run, say};

/// The clients; their versions are in the environments' names too, so that a new one is made anew.
const CLIENT: &str = "openai==3.54.0";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// How long the server may take to start: a debug build measures its kernels first.
const START_TIME: Duration = Duration::from_secs(120);
/// The test model's file without its ending: how a model that is given by its path is called.
const MODEL: &str = "smollm2";
/// What the server says before its address.
const LISTENING: &str = "listening on ";

/// Runs every client.
pub(crate) fn run_all() -> anyhow::Result<()> {
    let model = models::fetch()?.join(format!("{MODEL}.gguf"));
    let client = environment(CLIENT)?.join("python");
    let schemathesis = environment(SCHEMATHESIS)?.join("schemathesis");
    run(&mut cargo(&["build", "--locked", "-p", "feilun"]))?;
    let data = std::env::temp_dir().join(format!("feilun-clients-{}", std::process::id()));
    let outcome = Server::start(&data, &model).and_then(|server| {
        let script = metadata::workspace_root().join("xtask/src/clients/openai_client.py");
        run(Command::new(client).arg(script).arg(&server.url).arg(MODEL))?;
        // It leaves a folder with what it found behind.
        run(compare_with_document(&schemathesis, &server.url).current_dir(&data))
    });
    if data.exists() {
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("cannot remove {}", data.display()))?;
    }
    outcome
}

/// Requests made up from the document. That every one that fits it is accepted is not expected: a
/// model must be there, and texts have meanings that no schema tells.
fn compare_with_document(schemathesis: &Path, url: &str) -> Command {
    let mut command = Command::new(schemathesis);
    command.arg("run").arg(format!("{url}/openapi.json")).args(["--no-color", "--seed", "1"]);
    command.args(["--max-examples", "30", "--request-timeout", "30"]);
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    command
}

/// The programs of an environment with a package in it.
fn environment(package: &str) -> anyhow::Result<PathBuf> {
    let folder = peer::folder()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let environment = folder.join(package.replace("==", "-"));
    let (programs, done) = (environment.join("bin"), environment.join(".done"));
    if !done.exists() {
        say(&format!("installing {package} with pip"));
        let log = folder.join("clients.log");
        peer::run_logged(Command::new("python3").args(["-m", "venv"]).arg(&environment), &log)?;
        let mut pip = Command::new(programs.join("python"));
        peer::run_logged(pip.args(["-m", "pip", "install", "--quiet", package]), &log)?;
        std::fs::write(&done, "")?;
    }
    Ok(programs)
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
