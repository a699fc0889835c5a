//! A folder in the Hugging Face layout: `config.json`, weights in one safetensors file or in
//! several with an index, and small files for tokenizer, template and generation.
//!
//! Names in the index are names of files in the folder and nothing else: a path never leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::{self, DigestError};
use crate::hf_template::ChatTemplates;
use crate::mapped_file::MappedFile;
use crate::model_files::{DeclaredTensor, ModelFileError, SpecialTokens};
use crate::safetensors_header::parse_header;

/// Shape and switches of the decoder.
pub(crate) const CONFIG: &str = "config.json";
/// Weights in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Of small JSON files; real ones have a few kilobytes, and parsed JSON takes a multiple of it.
const MAX_SMALL_BYTES: u64 = 256 << 10;
/// Of a template; the largest known have about 30 KB.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Of an index, for the same reason as a header.
const MAX_INDEX_BYTES: u64 = 4 << 20;
/// Gemma's has 33 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// The largest known have about 200.
const MAX_SHARDS: usize = 1_024;

/// An open folder; the weights are mapped.
#[derive(Debug)]
pub(crate) struct ModelFolder {
    folder: PathBuf,
    shards: Vec<MappedFile>,
    declared: Vec<DeclaredTensor>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl ModelFolder {
    /// Opens the weights that the folder's index names, or `model.safetensors`.
    pub(crate) fn open(folder: &Path) -> Result<ModelFolder, ModelFileError> {
        let index_path = folder.join(INDEX);
        let Some(bytes) = read_optional(&index_path, MAX_INDEX_BYTES)? else {
            return ModelFolder::with_weights(folder, &[folder.join(WEIGHTS)]);
        };
        let Index { weight_map } = serde_json::from_slice(&bytes)
            .map_err(|source| ModelFileError::Json { path: index_path.clone(), source })?;
        let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        if names.is_empty() || names.len() > MAX_SHARDS {
            let (found, max) = (names.len(), MAX_SHARDS);
            return Err(ModelFileError::TooManyShards { path: index_path, found, max });
        }
        if let Some(found) = names.iter().find(|name| !is_plain_name(name)) {
            let found = (*found).into();
            return Err(ModelFileError::ShardName { path: index_path, found });
        }
        let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        let opened = ModelFolder::with_weights(folder, &paths)?;
        opened.check_index(index_path, &weight_map)?;
        Ok(opened)
    }

    /// Opens one weight file, with the small files beside it.
    pub(crate) fn of_file(path: &Path) -> Result<ModelFolder, ModelFileError> {
        // The parent of a bare name is "", which `join` treats as the current folder.
        let folder = path.parent().unwrap_or(Path::new(""));
        ModelFolder::with_weights(folder, &[path.to_owned()])
    }

    fn with_weights(folder: &Path, paths: &[PathBuf]) -> Result<ModelFolder, ModelFileError> {
        let mut shards = Vec::with_capacity(paths.len());
        let mut declared = Vec::new();
        for (file, path) in paths.iter().enumerate() {
            let io_error = |source| ModelFileError::Io { path: path.clone(), source };
            let map = MappedFile::open(path).map_err(io_error)?;
            let tensors = parse_header(map.as_ref())
                .map_err(|source| ModelFileError::Safetensors { path: path.clone(), source })?;
            declared.extend(tensors.into_iter().map(|tensor| DeclaredTensor {
                name: tensor.name.into(),
                file,
                block_type: tensor.block_type,
                shape: tensor.shape,
                range: tensor.range,
            }));
            shards.push(map);
        }
        Ok(ModelFolder { folder: folder.to_owned(), shards, declared })
    }

    /// Each tensor must be where the index says, and nowhere else.
    fn check_index(
        &self,
        path: PathBuf,
        weight_map: &BTreeMap<String, String>,
    ) -> Result<(), ModelFileError> {
        for tensor in &self.declared {
            let expected = weight_map.get(tensor.name.as_ref()).map(String::as_str);
            let found = self.shards.get(tensor.file).and_then(file_name);
            if expected != found {
                return Err(ModelFileError::ShardIndex { path, name: tensor.name.to_string() });
            }
        }
        let declared: BTreeSet<&str> = self.declared.iter().map(|t| t.name.as_ref()).collect();
        match weight_map.keys().find(|name| !declared.contains(name.as_str())) {
            Some(name) => Err(ModelFileError::MissingTensor { path, name: name.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn shards(&self) -> &[MappedFile] {
        &self.shards
    }

    pub(crate) fn declared(&self) -> &[DeclaredTensor] {
        &self.declared
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn config_json(&self) -> Result<Vec<u8>, ModelFileError> {
        read_required(&self.path_of(CONFIG), MAX_SMALL_BYTES)
    }

    pub(crate) fn tokenizer_json(&self) -> Result<Vec<u8>, ModelFileError> {
        read_required(&self.path_of(TOKENIZER), MAX_TOKENIZER_BYTES)
    }

    pub(crate) fn tokenizer_config(&self) -> Result<Option<Vec<u8>>, ModelFileError> {
        read_optional(&self.path_of(TOKENIZER_CONFIG), MAX_TOKENIZER_BYTES)
    }

    /// A file of its own wins over the key of `tokenizer_config.json`, as in transformers.
    pub(crate) fn chat_template(&self) -> Result<Option<String>, ModelFileError> {
        let path = self.path_of(CHAT_TEMPLATE);
        if let Some(bytes) = read_optional(&path, MAX_TEMPLATE_BYTES)? {
            let not_utf8 = |error| ModelFileError::Io {
                path: path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            };
            return String::from_utf8(bytes).map(Some).map_err(not_utf8);
        }
        let Some(bytes) = self.tokenizer_config()? else { return Ok(None) };
        let path = self.path_of(TOKENIZER_CONFIG);
        let templates: ChatTemplates = serde_json::from_slice(&bytes)
            .map_err(|source| ModelFileError::Json { path, source })?;
        Ok(templates.default())
    }

    /// From `generation_config.json` where it says something, else from `config.json`.
    pub(crate) fn special_tokens(
        &self,
        vocab_size: usize,
    ) -> Result<SpecialTokens, ModelFileError> {
        let mut special = SpecialTokens::default();
        for name in [GENERATION_CONFIG, CONFIG] {
            let path = self.path_of(name);
            let Some(bytes) = read_optional(&path, MAX_SMALL_BYTES)? else { continue };
            let ids: TokenIds = serde_json::from_slice(&bytes)
                .map_err(|source| ModelFileError::Json { path: path.clone(), source })?;
            let check = |key, id: u64| match u32::try_from(id) {
                Ok(id) if (id as usize) < vocab_size => Ok(id),
                _ => {
                    let (path, found) = (path.clone(), id.to_string());
                    Err(ModelFileError::TokenId { path, key, found, expected: vocab_size })
                }
            };
            if let (None, Some(bos)) = (special.bos, first(&ids.bos_token_id)) {
                special.bos = Some(check("bos_token_id", bos)?);
            }
            if special.eos.is_empty() {
                for &id in all(&ids.eos_token_id) {
                    let id = check("eos_token_id", id)?;
                    if !special.eos.contains(&id) {
                        special.eos.push(id);
                    }
                }
            }
        }
        Ok(special)
    }

    pub(crate) fn digest(&self) -> Result<blake3::Hash, DigestError> {
        let mut files = Vec::new();
        for shard in &self.shards {
            let name = file_name(shard).unwrap_or_default().to_owned();
            files.push((name, digest::of_map(shard)?));
        }
        for name in [CONFIG, TOKENIZER, TOKENIZER_CONFIG, GENERATION_CONFIG, CHAT_TEMPLATE] {
            let path = self.path_of(name);
            let mut hasher = blake3::Hasher::new();
            let hashed = match File::open(&path) {
                Ok(file) => hasher.update_reader(file).map(|hasher| Some(hasher.finalize())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
            if let Some(hash) = hashed.map_err(|error| (path, error))? {
                files.push((name.to_owned(), hash));
            }
        }
        Ok(digest::of_files(files))
    }
}

/// Ids in JSON: one, several, or none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u64),
    Several(Vec<u64>),
}

#[derive(Deserialize)]
struct TokenIds {
    #[serde(default)]
    bos_token_id: Option<Ids>,
    #[serde(default)]
    eos_token_id: Option<Ids>,
}

fn all(ids: &Option<Ids>) -> &[u64] {
    match ids {
        None => &[],
        Some(Ids::One(id)) => std::slice::from_ref(id),
        Some(Ids::Several(ids)) => ids,
    }
}

fn first(ids: &Option<Ids>) -> Option<u64> {
    all(ids).first().copied()
}

fn file_name(map: &MappedFile) -> Option<&str> {
    map.path().file_name().and_then(|name| name.to_str())
}

/// Neither a path nor hidden, on any system.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(is_plain)
}

pub(crate) fn read_required(path: &Path, max: u64) -> Result<Vec<u8>, ModelFileError> {
    read_optional(path, max)?.ok_or_else(|| ModelFileError::Io {
        path: path.to_owned(),
        source: io::Error::from(io::ErrorKind::NotFound),
    })
}

/// The content of a file of at most `max` bytes, or `None` where there is no such file.
fn read_optional(path: &Path, max: u64) -> Result<Option<Vec<u8>>, ModelFileError> {
    let io_error = |source| ModelFileError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let found = file.metadata().map_err(io_error)?.len();
    if found > max {
        return Err(ModelFileError::TooLarge { path: path.to_owned(), found, max });
    }
    let mut bytes = Vec::new();
    // The file may have grown since, or be a pipe.
    file.take(max).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(Some(bytes))
}
