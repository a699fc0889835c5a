//! `cargo xtask clients`: a real `feilun up`, asked by other people's clients.
//!
//! OpenAI's own Python client makes every call that Feilun offers. Then schemathesis makes up
//! requests from the OpenAPI document and compares each answer with it. Both lie in virtual
//! environments in the cache folder of peers, made once with pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::server::Server;
use crate::{cargo, metadata, models, peer, run, say};

/// The clients; their versions are in the environments' names too, so that a new one is made anew.
const CLIENT: &str = "openai==3.54.0";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// The test model's file without its ending: how a model that is given by its path is called.
const MODEL: &str = "smollm2";

/// Runs every client.
pub(crate) fn run_all() -> anyhow::Result<()> {
    let model = models::fetch()?.join(format!("{MODEL}.gguf"));
    let client = environment(&[CLIENT])?.join("python");
    let schemathesis = environment(&[SCHEMATHESIS])?.join("schemathesis");
    run(&mut cargo(&["build", "--locked", "-p", "feilun"]))?;
    let data = std::env::temp_dir().join(format!("feilun-clients-{}", std::process::id()));
    let program = metadata::load()?.target_directory.join("debug").join("feilun");
    let outcome = Server::start(&program, &data, &model, &[]).and_then(|server| {
        let script = metadata::workspace_root().join("xtask/src/clients/openai_client.py");
        run(Command::new(client).arg(script).arg(server.url()).arg(MODEL))?;
        // It leaves a folder with what it found behind.
        run(compare_with_document(&schemathesis, &server.url()).current_dir(&data))
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

/// The programs of an environment with these packages in it, named after the first.
pub(crate) fn environment(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = peer::folder()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let name = packages.first().copied().unwrap_or_default().replace("==", "-");
    let environment = folder.join(name.replace(['[', ']'], "-"));
    let (programs, done) = (environment.join("bin"), environment.join(".done"));
    if !done.exists() {
        say(&format!("installing {} with pip", packages.join(" and ")));
        let log = folder.join("clients.log");
        peer::run_logged(Command::new("python3").args(["-m", "venv"]).arg(&environment), &log)?;
        let mut pip = Command::new(programs.join("python"));
        peer::run_logged(pip.args(["-m", "pip", "install", "--quiet"]).args(packages), &log)?;
        std::fs::write(&done, "")?;
    }
    Ok(programs)
}
