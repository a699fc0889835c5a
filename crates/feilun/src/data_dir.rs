//! Where things lie in the data directory.
//!
//! ```text
//! DATA/models/NAME/manifest.json   an installed model: complete, never changed
//! DATA/models/NAME/...             its files
//! DATA/models/.partial/NAME/       a pull on its way, resumable
//! DATA/models/.partial/NAME.lock   held by the pull that works on it
//! DATA/runs/NAME/                  a training run: configuration, metrics, checkpoints, result
//! DATA/evaluations/ID/             what a model made of a suite: see `feilun_eval::results`
//! DATA/tokens/DIGEST.tokens      texts as tokens, for pretraining; may be removed, is made anew
//! DATA/feilun.db                   turns, feedback, keys, aliases (`feilun-store`)
//! DATA/blobs/                      uploaded files
//! DATA/kernels.json                the fastest kernels of this machine, measured at first start
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Outcome, OutcomeExt as _};
use crate::manifest::{self, Manifest};
use crate::model_name::ModelName;

/// The directory that `--data` names.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    pub(crate) fn new(path: PathBuf) -> DataDir {
        DataDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn kernels(&self) -> PathBuf {
        self.0.join("kernels.json")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("feilun.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    pub(crate) fn model(&self, name: &ModelName) -> PathBuf {
        self.models().join(name.as_str())
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.models().join(".partial")
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.0.join("tokens")
    }

    pub(crate) fn evaluations(&self) -> PathBuf {
        self.0.join("evaluations")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    pub(crate) fn run(&self, name: &ModelName) -> PathBuf {
        self.runs().join(name.as_str())
    }

    /// The names of the runs, sorted.
    pub(crate) fn run_names(&self) -> Outcome<Vec<ModelName>> {
        names_in(&self.runs())
    }

    /// The installed models by name. Folders without a readable manifest come with the reason.
    pub(crate) fn installed(&self) -> Outcome<Vec<(ModelName, Outcome<Manifest>)>> {
        let names = names_in(&self.models())?;
        Ok(names
            .into_iter()
            .map(|name| {
                let manifest = manifest::read(&self.model(&name));
                (name, manifest)
            })
            .collect())
    }
}

/// The names in a folder that are names of ours, sorted. Whatever else lies there, such as
/// `.partial`, is left out; a folder that is not there has none.
fn names_in(folder: &Path) -> Outcome<Vec<ModelName>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(|| format!("cannot read {}", folder.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|text| text.parse::<ModelName>().ok()));
    }
    names.sort();
    Ok(names)
}
