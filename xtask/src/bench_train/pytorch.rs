//! The peer: PyTorch with transformers and PEFT, in a Python environment of its own.
//!
//! Environment, allocator and compiled kernels lie in the peers' cache folder, outside the
//! checkout, and are made once. `scripts/bench/train_peer.py` measures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::{Arguments, Case};
use crate::peer::{folder, run_logged};
use crate::side_by_side::{Peer, json_of};
use crate::{metadata, say};

/// What a report calls it; `requirements.txt` has the versions, and a test compares.
pub(super) const PEER: Peer =
    Peer { name: "PyTorch", version: "torch 2.15.0, transformers 5.23.0, peft 0.21.2" };

const REQUIREMENTS: &str = "scripts/bench/requirements.txt";
const SCRIPT: &str = "scripts/bench/train_peer.py";

/// jemalloc keeps what it has, in huge pages: each step asks for the same memory again.
const MALLOC_CONF: &str = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always";

/// One way to run it. Which is the fastest depends on the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) compiled: bool,
    pub(super) jemalloc: bool,
}

const VARIANTS: [Variant; 4] = [
    Variant { name: "eager", compiled: false, jemalloc: false },
    Variant { name: "eager+jemalloc", compiled: false, jemalloc: true },
    Variant { name: "compile", compiled: true, jemalloc: false },
    Variant { name: "compile+jemalloc", compiled: true, jemalloc: true },
];

impl Variant {
    pub(super) fn exists(name: &str) -> bool {
        VARIANTS.iter().any(|variant| variant.name == name)
    }
}

/// PyTorch, installed.
pub(super) struct PyTorch {
    python: PathBuf,
    jemalloc: Option<PathBuf>,
    /// What `torch.compile` made, for the next run.
    compiled: PathBuf,
}

/// Installs what is not there yet.
pub(super) fn set_up() -> anyhow::Result<PyTorch> {
    let folder = folder()?.join("pytorch");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let python = python(&folder)?;
    let jemalloc = match jemalloc(&folder) {
        Ok(library) => Some(library),
        Err(error) => {
            say(&format!("no jemalloc, so variants without it only: {error:#}"));
            None
        }
    };
    Ok(PyTorch { python, jemalloc, compiled: folder.join("inductor") })
}

/// The interpreter of the environment.
fn python(folder: &Path) -> anyhow::Result<PathBuf> {
    let requirements = metadata::workspace_root().join(REQUIREMENTS);
    let wanted = std::fs::read_to_string(&requirements).context(REQUIREMENTS)?;
    let venv = folder.join("venv");
    let python = venv.join("bin").join("python");
    // What was installed: other requirements install again.
    let done = folder.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    say("installing PyTorch with pip (some 3 GB)");
    let log = folder.join("install.log");
    run_logged(Command::new("python3").args(["-m", "venv"]).arg(&venv), &log)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "-r"]).arg(&requirements);
    run_logged(&mut pip, &log)?;
    std::fs::write(&done, wanted)?;
    Ok(python)
}

/// The system's jemalloc, or Debian's package unpacked without installing it.
fn jemalloc(folder: &Path) -> anyhow::Result<PathBuf> {
    if let Some(library) = system_jemalloc() {
        return Ok(library);
    }
    let unpacked = folder.join("jemalloc");
    if find_jemalloc(&unpacked).is_none() {
        std::fs::create_dir_all(&unpacked)?;
        let log = folder.join("jemalloc.log");
        let mut download = Command::new("apt-get");
        run_logged(download.args(["download", "libjemalloc2"]).current_dir(&unpacked), &log)?;
        let package = files_in(&unpacked)
            .into_iter()
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get left no package")?;
        let mut unpack = Command::new("dpkg-deb");
        run_logged(unpack.arg("--extract").arg(package).arg(&unpacked), &log)?;
    }
    find_jemalloc(&unpacked).context("the package has no library")
}

/// From the dynamic linker's list: `libjemalloc.so.2 (libc6,x86-64) => PATH`.
fn system_jemalloc() -> Option<PathBuf> {
    let output = Command::new("ldconfig").arg("-p").output().ok()?;
    let list = String::from_utf8_lossy(&output.stdout);
    let line = list.lines().find(|line| line.trim_start().starts_with("libjemalloc.so.2 "))?;
    Some(PathBuf::from(line.split_once("=> ")?.1.trim()))
}

/// Debian has it in `usr/lib/ARCHITECTURE/`.
fn find_jemalloc(unpacked: &Path) -> Option<PathBuf> {
    let folders = files_in(&unpacked.join("usr").join("lib"));
    folders.into_iter().map(|folder| folder.join("libjemalloc.so.2")).find(|path| path.exists())
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

impl PyTorch {
    /// What this machine can run.
    pub(super) fn variants(&self) -> Vec<Variant> {
        let can = |variant: &Variant| self.jemalloc.is_some() || !variant.jemalloc;
        VARIANTS.into_iter().filter(can).collect()
    }

    /// What the script says of one run.
    pub(super) fn measure(
        &self,
        case: &Case,
        arguments: &Arguments,
        variant: Variant,
    ) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.python);
        command.arg(metadata::workspace_root().join(SCRIPT));
        command.args(["--shape", case.model, "--method", case.method]);
        for (flag, number) in case.numbers(arguments) {
            command.args([flag, &number.to_string()]);
        }
        if variant.compiled {
            command.arg("--compile");
        }
        command.env("OMP_NUM_THREADS", arguments.threads.to_string());
        command.env("TORCHINDUCTOR_CACHE_DIR", &self.compiled);
        if let Some(library) = self.jemalloc.as_ref().filter(|_| variant.jemalloc) {
            command.env("LD_PRELOAD", library).env("MALLOC_CONF", MALLOC_CONF);
        }
        json_of(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_the_versions_that_are_installed() {
        let path = metadata::workspace_root().join(REQUIREMENTS);
        let requirements = std::fs::read_to_string(path).unwrap();
        for package in PEER.version.split(", ") {
            let pinned = package.replace(' ', "==");
            assert!(requirements.lines().any(|line| line == pinned), "{pinned}");
        }
    }
}
