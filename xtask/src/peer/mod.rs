//! The peer of `bench infer` and `bench serve`: llama.cpp, built here from the source distribution of the
//! Python package `llama-cpp-python`, which pip fetches.
//!
//! Everything lies in one cache folder outside the checkout and is made once. Start at
//! [`set_up`]; [`run`] measures with what it returns.

mod build;
mod run;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

pub(crate) use build::Build;
use build::{Programs, Recipe};

use crate::say;
use crate::side_by_side::Peer;

/// The package and the digest of its archive; both change together.
const PACKAGE: &str = "llama-cpp-python==0.3.36";
const ARCHIVE: &str = "llama_cpp_python-0.3.36.tar.gz";
const ARCHIVE_SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";

/// The unpacked archive, and llama.cpp inside it.
const SOURCE: &str = "llama_cpp_python-0.3.36";

/// What a report calls it.
pub(crate) const PEER: Peer =
    Peer { name: "llama.cpp", version: "vendored in llama-cpp-python 0.3.36" };

/// Fetches, unpacks and builds what is not there yet; every build that this machine can make.
pub(crate) fn set_up() -> anyhow::Result<Vec<Build>> {
    make(&build::BENCHES, build::recipes()?)
}

/// The same for the peer's server: the first way to build it, or every one.
pub(crate) fn set_up_servers(every: bool) -> anyhow::Result<Vec<Build>> {
    let recipes = build::recipes()?;
    let num_recipes = if every { recipes.len() } else { 1 };
    make(&build::SERVER, recipes.into_iter().take(num_recipes).collect())
}

fn make(programs: &Programs, recipes: Vec<Recipe>) -> anyhow::Result<Vec<Build>> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let source = source(&folder)?;
    let mut builds = Vec::new();
    for recipe in recipes {
        match recipe.make(programs, &source, &folder) {
            Ok(build) => builds.push(build),
            Err(error) => say(&format!("{} does not build: {error:#}", recipe.name)),
        }
    }
    if builds.is_empty() {
        bail!("no build of {} succeeded", PEER.name);
    }
    Ok(builds)
}

/// The cache folder of everything that peers need.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))
        .context("set XDG_CACHE_HOME or HOME")?;
    Ok(cache.join("feilun").join("peer"))
}

/// The folder of llama.cpp's sources.
fn source(folder: &Path) -> anyhow::Result<PathBuf> {
    let llama_cpp = folder.join(SOURCE).join("vendor").join("llama.cpp");
    let unpacked = folder.join(SOURCE).join(".unpacked");
    if unpacked.exists() {
        return Ok(llama_cpp);
    }
    let archive = folder.join(ARCHIVE);
    if !archive.exists() {
        say(&format!("fetching {PACKAGE} (80 MB) with pip"));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
        pip.args(["--no-binary", "llama-cpp-python", PACKAGE, "--dest"]).arg(folder);
        run_logged(&mut pip, &folder.join("download.log"))?;
    }
    check_digest(&archive)?;
    say(&format!("unpacking {ARCHIVE}"));
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(folder);
    run_logged(&mut tar, &folder.join("unpack.log"))?;
    std::fs::write(&unpacked, "")?;
    Ok(llama_cpp)
}

fn check_digest(archive: &Path) -> anyhow::Result<()> {
    let bytes =
        std::fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != ARCHIVE_SHA256 {
        bail!(
            "{}: sha256 is {found}, expected {ARCHIVE_SHA256}; remove it and try again",
            archive.display()
        );
    }
    Ok(())
}

/// Runs a command with its output in a file, which an error names.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    crate::run(command).with_context(|| format!("see {}", log.display()))
}

/// Whether a program can be started at all.
fn is_installed(program: impl AsRef<OsStr>) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
