//! A model on the disk, seen as a whole: which path the engine opens, and what is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use feilun_model::ModelFiles;
use serde::Serialize;

use crate::failure::Outcome;
use crate::manifest::Manifest;
use crate::pull::is_gguf;

/// The path that the engine opens: a GGUF file, or the folder of a safetensors model.
pub(crate) fn entry_point<'a>(folder: &Path, names: impl Iterator<Item = &'a str>) -> PathBuf {
    let mut names = names;
    match names.find(|name| is_gguf(name)) {
        Some(name) => folder.join(name),
        None => folder.to_owned(),
    }
}

/// Opens and checks the model that these files make.
pub(crate) fn open_files<'a>(
    folder: &Path,
    names: impl Iterator<Item = &'a str>,
) -> Outcome<ModelFiles> {
    Ok(ModelFiles::open(entry_point(folder, names))?)
}

/// Opens an installed model.
pub(crate) fn open(folder: &Path, manifest: &Manifest) -> Outcome<ModelFiles> {
    open_files(folder, manifest.files.iter().map(|file| file.name.as_str()))
}

/// What a model is, for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Description {
    pub(crate) architecture: String,
    pub(crate) parameters: u64,
    /// Number of tensors of each storage type.
    pub(crate) types: BTreeMap<String, usize>,
    pub(crate) layers: usize,
    pub(crate) hidden_size: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
}

impl Description {
    pub(crate) fn of(files: &ModelFiles) -> Description {
        let config = files.config();
        let mut parameters = 0;
        let mut types = BTreeMap::new();
        for role in files.tensor_roles() {
            if let Some(tensor) = files.optional_tensor(role) {
                parameters += tensor.rows as u64 * tensor.cols as u64;
                *types.entry(tensor.block_type.to_string()).or_insert(0) += 1;
            }
        }
        Description {
            architecture: format!("{:?}", config.architecture),
            parameters,
            types,
            layers: config.layers.len(),
            hidden_size: config.hidden_size,
            vocabulary: config.vocab_size,
            context: config.context_length,
        }
    }

    /// The storage type of most tensors that are matrices, as people call the model's type.
    pub(crate) fn types_line(&self) -> String {
        let mut types: Vec<_> = self.types.iter().collect();
        types.sort_by_key(|&(_, count)| std::cmp::Reverse(*count));
        types.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }
}
