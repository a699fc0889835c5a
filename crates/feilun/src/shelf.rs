//! What `feilun up` can serve: models that it was given, installed models, and what finished
//! runs have made.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use feilun_server::room::{Shelf, ShelfItem, Stored};
use feilun_store::digest::ModelDigest;
use feilun_train::run::RunFiles;
use serde::Deserialize;

use crate::data_dir::DataDir;
use crate::model_name::ModelName;
use crate::resolve::FoundModel;
use crate::stored_model;

/// The shelf of a data directory. It looks anew each time, so that a model that was pulled, or a
/// run that has ended, is there at once.
#[derive(Debug)]
pub(crate) struct DataShelf {
    data: DataDir,
    /// Models that the command line named.
    given: Vec<ShelfItem>,
}

impl DataShelf {
    pub(crate) fn new(data: DataDir, given: &[FoundModel]) -> DataShelf {
        DataShelf { data, given: given.iter().map(item_of_given).collect() }
    }

    fn installed(&self) -> Vec<ShelfItem> {
        let found = self.data.installed().unwrap_or_else(|failure| {
            tracing::error!(%failure, "cannot see which models are installed");
            Vec::new()
        });
        // A broken one is told by `feilun models`.
        let whole = found.into_iter().filter_map(|(name, manifest)| Some((name, manifest.ok()?)));
        whole
            .map(|(name, manifest)| {
                let folder = self.data.model(&name);
                let names = manifest.files.iter().map(|file| file.name.as_str());
                ShelfItem {
                    name: name.to_string(),
                    digest: manifest.digest_hex().parse().ok(),
                    created: made_at(&folder),
                    size_bytes: manifest.bytes(),
                    what: Stored::Model { path: stored_model::entry_point(&folder, names) },
                }
            })
            .collect()
    }

    fn made(&self) -> Vec<ShelfItem> {
        let names = self.data.run_names().unwrap_or_else(|failure| {
            tracing::error!(%failure, "cannot see which runs there are");
            Vec::new()
        });
        names.iter().filter_map(|name| result_of_run(&self.data.run(name), name)).collect()
    }
}

impl Shelf for DataShelf {
    fn items(&self) -> Vec<ShelfItem> {
        let all = self.given.iter().cloned().chain(self.installed()).chain(self.made());
        let mut items: Vec<ShelfItem> = Vec::new();
        for item in all {
            if !items.iter().any(|other| other.name == item.name) {
                items.push(item);
            }
        }
        items
    }
}

/// The part of a tuning run's configuration that tells what its adapter is for.
#[derive(Deserialize)]
struct RunBase {
    base: Base,
}

#[derive(Deserialize)]
struct Base {
    path: PathBuf,
    digest: String,
}

/// What a run has made, if it has ended: its results come under their names when they are whole.
fn result_of_run(root: &Path, name: &ModelName) -> Option<ShelfItem> {
    let (path, what) = if root.join("adapter").is_dir() {
        let RunBase { base } = RunFiles::new(root).config().ok()?;
        let (folder, digest) = (root.join("adapter"), base.digest.parse().ok()?);
        (folder.clone(), Stored::Adapter { folder, base: digest, base_path: base.path })
    } else {
        let path = ["model.gguf", "model"].map(|name| root.join(name));
        let path = path.into_iter().find(|path| path.exists())?;
        (path.clone(), Stored::Model { path })
    };
    Some(ShelfItem {
        name: name.to_string(),
        digest: None,
        created: made_at(&path),
        size_bytes: file_bytes(&path),
        what,
    })
}

fn item_of_given(model: &FoundModel) -> ShelfItem {
    ShelfItem {
        name: served_name(model),
        digest: model.digest.as_deref().and_then(digest_of),
        created: made_at(&model.path),
        size_bytes: file_bytes(&model.path),
        what: Stored::Model { path: model.path.clone() },
    }
}

fn digest_of(text: &str) -> Option<ModelDigest> {
    text.rsplit(':').next()?.parse().ok()
}

/// What callers write as `model`: the installed name, or a file's without its ending. Where the
/// file lies is not theirs to know.
pub(crate) fn served_name(model: &FoundModel) -> String {
    let stem = || Some(model.path.file_stem()?.to_string_lossy().into_owned());
    match model.digest {
        Some(_) => model.label.clone(),
        None => stem().unwrap_or_else(|| model.label.clone()),
    }
}

fn made_at(path: &Path) -> SystemTime {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a file, or the files of a folder, take.
pub(crate) fn file_bytes(path: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| bytes(&entry.path())).sum(),
        Err(_) => bytes(path),
    }
}
