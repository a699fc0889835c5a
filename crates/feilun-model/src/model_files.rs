//! A model on disk, whatever its format: configuration, tensors by role, tokenizer, template.
//!
//! Everything is checked when it is opened: each tensor that the configuration needs is there,
//! with the right shape and a type that the kernels know, and no tensor is left over (a weight
//! that nobody multiplies by is a model that nobody trained). The tokenizer is checked when it is
//! asked for: Gemma's 262,144 strings would double the time of opening. Start at [`ModelFiles::open`].

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use feilun_kernels::BlockType;

use crate::config::ModelConfig;
use crate::config_check::ConfigError;
use crate::digest;
use crate::gguf::{Gguf, GgufError};
use crate::gguf_config::{ROPE_FREQS, config_from_gguf};
use crate::gguf_vocabulary::GgufVocabulary;
use crate::hf_config::config_from_json;
use crate::mapped_file::MappedFile;
use crate::model_folder::{CONFIG, ModelFolder};
use crate::safetensors_header::SafetensorsError;
use crate::tensor::{RowOrder, TensorRole, TensorView};
use crate::tensor_names::{self, Naming, Shape};

/// Why a model cannot be opened. Names come from files and are printed with escapes.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ModelFileError {
    #[error("cannot read `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}`: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("`{}`: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("`{}`: {source}", path.display())]
    Safetensors { path: PathBuf, source: SafetensorsError },
    #[error("`{}`: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{}` has {found} bytes, at most {max} are allowed", path.display())]
    TooLarge { path: PathBuf, found: u64, max: u64 },
    #[error("`{}` names the file {found:?}, expected the name of a .safetensors file beside it", path.display())]
    ShardName { path: PathBuf, found: String },
    #[error("`{}` names {found} weight files, at most {max} are allowed", path.display())]
    TooManyShards { path: PathBuf, found: usize, max: usize },
    #[error("`{}`: tensor {name:?} is in another file than the index says", path.display())]
    ShardIndex { path: PathBuf, name: String },
    #[error("`{}`: {key} is {found}, expected an id below {expected}", path.display())]
    TokenId { path: PathBuf, key: &'static str, found: String, expected: usize },
    #[error("`{}` is neither a .gguf file nor a folder or file of a safetensors model", path.display())]
    UnknownKind { path: PathBuf },
    #[error("`{}`: tensor {name:?} is missing", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error("`{}`: tensor {name:?} has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("`{}`: tensor {name:?} is a vector of {found}, expected F32, F16 or BF16", path.display())]
    VectorType { path: PathBuf, name: String, found: BlockType },
    #[error(
        "`{}`: tensor {name:?} has no place in this architecture; the model needs something that \
         is not supported", path.display()
    )]
    UnusedTensor { path: PathBuf, name: String },
    #[error("`{}`: {found} tokens in the tokenizer, but {expected} rows of embedding", path.display())]
    VocabularySize { path: PathBuf, found: usize, expected: usize },
}

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    /// One file with everything.
    Gguf,
    /// A folder with `config.json` and one or more weight files.
    Safetensors,
}

/// What the tokenizer is made from.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource<'a> {
    /// The content of `tokenizer.json`.
    TokenizerJson(Vec<u8>),
    /// The fields of a GGUF file.
    Gguf(GgufVocabulary<'a>),
}

/// Ids that generation begins and ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begin of sequence, if the model has one (whether text gets one is the tokenizer's say).
    pub bos: Option<u32>,
    /// Each of these ends a generation; no duplicates.
    pub eos: Vec<u32>,
}

/// An open model. Weights stay in the mapped files until somebody reads them.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    config: ModelConfig,
    contents: Contents,
    tensors: HashMap<TensorRole, StoredTensor>,
}

#[derive(Debug)]
enum Contents {
    Gguf(Gguf<MappedFile>),
    Folder(ModelFolder),
}

/// A tensor as a file declares it, before its role is known.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredTensor {
    pub(crate) name: Box<str>,
    /// Index of its file.
    pub(crate) file: usize,
    pub(crate) block_type: BlockType,
    /// Outermost first, contiguous last.
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// A tensor with a role, checked against the configuration.
#[derive(Debug)]
struct StoredTensor {
    declared: DeclaredTensor,
    rows: usize,
    cols: usize,
    row_order: RowOrder,
    offset: f32,
}

impl ModelFiles {
    /// Opens a `.gguf` file, a folder with `config.json` and safetensors, or a `.safetensors`
    /// file in such a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelFiles, ModelFileError> {
        let path = path.as_ref();
        if path.is_dir() {
            return ModelFiles::open_folder(path, ModelFolder::open(path)?);
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("gguf") => ModelFiles::open_gguf(path),
            Some("safetensors") => ModelFiles::open_folder(path, ModelFolder::of_file(path)?),
            _ if !path.exists() => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                Err(ModelFileError::Io { path: path.into(), source })
            }
            _ => Err(ModelFileError::UnknownKind { path: path.into() }),
        }
    }

    fn open_folder(path: &Path, folder: ModelFolder) -> Result<ModelFiles, ModelFileError> {
        let config = config_from_json(&folder.config_json()?)
            .map_err(|source| ModelFileError::Config { path: folder.path_of(CONFIG), source })?;
        let is_tied = config.tied_embeddings;
        // Some files carry the tied head once more, and old Llamas a table that is recomputed.
        let ignored = |name: &str| {
            (is_tied && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq")
        };
        let declared = folder.declared().iter().cloned();
        let tensors = assign_roles(path, &config, Naming::HuggingFace, declared, ignored)?;
        Ok(ModelFiles { path: path.into(), config, contents: Contents::Folder(folder), tensors })
    }

    pub(crate) fn open_gguf(path: &Path) -> Result<ModelFiles, ModelFileError> {
        let io_error = |source| ModelFileError::Io { path: path.into(), source };
        let gguf_error = |source| ModelFileError::Gguf { path: path.into(), source };
        let map = MappedFile::open(path).map_err(io_error)?;
        let gguf = Gguf::parse(map).map_err(gguf_error)?;
        let config = config_from_gguf(&gguf)
            .map_err(|source| ModelFileError::Config { path: path.into(), source })?;
        let declared = gguf.tensors().iter().map(|tensor| DeclaredTensor {
            name: tensor.name.clone(),
            file: 0,
            block_type: tensor.block_type,
            shape: tensor.dims.iter().rev().copied().collect(),
            range: tensor.range.clone(),
        });
        let ignored = |name: &str| name == ROPE_FREQS;
        let tensors = assign_roles(path, &config, Naming::Gguf, declared, ignored)?;
        let num_tokens = GgufVocabulary::num_tokens(&gguf).map_err(gguf_error)?;
        if num_tokens != config.vocab_size {
            return Err(ModelFileError::VocabularySize {
                path: path.into(),
                found: num_tokens,
                expected: config.vocab_size,
            });
        }
        Ok(ModelFiles { path: path.into(), config, contents: Contents::Gguf(gguf), tensors })
    }

    /// The decoder's shape and switches.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the weights are stored.
    pub fn format(&self) -> ModelFormat {
        match &self.contents {
            Contents::Gguf(_) => ModelFormat::Gguf,
            Contents::Folder(_) => ModelFormat::Safetensors,
        }
    }

    /// Size of the weight files together.
    pub fn file_bytes(&self) -> u64 {
        self.maps().iter().map(|map| map.as_ref().len() as u64).sum()
    }

    /// Every tensor of the model, in the order of the computation.
    pub fn tensor_roles(&self) -> impl Iterator<Item = TensorRole> + use<> {
        tensor_names::needed(&self.config).into_iter().map(|needed| needed.role)
    }

    /// A tensor that this configuration has. `OutputHead` is missing where embeddings are tied.
    pub fn tensor(&self, role: TensorRole) -> Result<TensorView<'_>, ModelFileError> {
        self.optional_tensor(role).ok_or_else(|| ModelFileError::MissingTensor {
            path: self.path.clone(),
            name: tensor_names::name(self.naming(), self.config.architecture, role),
        })
    }

    /// A tensor, if this configuration has it.
    pub fn optional_tensor(&self, role: TensorRole) -> Option<TensorView<'_>> {
        let stored = self.tensors.get(&role)?;
        let map = self.maps().get(stored.declared.file)?;
        Some(TensorView {
            name: &stored.declared.name,
            block_type: stored.declared.block_type,
            rows: stored.rows,
            cols: stored.cols,
            bytes: map.as_ref().get(stored.declared.range.clone())?,
            row_order: stored.row_order,
            offset: stored.offset,
        })
    }

    /// Gives the pages of a tensor back to the system, after it was packed. It can still be
    /// read; then its bytes come from the file again.
    pub fn advise_dont_need(&self, role: TensorRole) -> Result<(), ModelFileError> {
        let Some(stored) = self.tensors.get(&role) else { return Ok(()) };
        let Some(map) = self.maps().get(stored.declared.file) else { return Ok(()) };
        map.advise_dont_need(stored.declared.range.clone())
            .map_err(|source| ModelFileError::Io { path: map.path().into(), source })
    }

    /// What the tokenizer is made from.
    pub fn tokenizer(&self) -> Result<TokenizerSource<'_>, ModelFileError> {
        match &self.contents {
            Contents::Gguf(gguf) => GgufVocabulary::read(gguf)
                .map(TokenizerSource::Gguf)
                .map_err(|source| self.gguf_error(source)),
            Contents::Folder(folder) => folder.tokenizer_json().map(TokenizerSource::TokenizerJson),
        }
    }

    /// `tokenizer_config.json`, which names the special tokens of a `tokenizer.json`; a model may
    /// do without.
    pub fn tokenizer_config(&self) -> Result<Option<Vec<u8>>, ModelFileError> {
        match &self.contents {
            Contents::Gguf(_) => Ok(None),
            Contents::Folder(folder) => folder.tokenizer_config(),
        }
    }

    /// The Jinja source that renders a conversation, if the model has one.
    pub fn chat_template(&self) -> Result<Option<String>, ModelFileError> {
        match &self.contents {
            Contents::Gguf(gguf) => {
                let template = gguf.string("tokenizer.chat_template");
                Ok(template.map_err(|source| self.gguf_error(source))?.map(str::to_owned))
            }
            Contents::Folder(folder) => folder.chat_template(),
        }
    }

    /// The ids that generation begins and ends with.
    pub fn special_tokens(&self) -> Result<SpecialTokens, ModelFileError> {
        match &self.contents {
            Contents::Gguf(gguf) => {
                let ids = GgufVocabulary::special_ids(gguf);
                let ids = ids.map_err(|source| self.gguf_error(source))?;
                let mut eos = Vec::new();
                for id in [ids.eos, ids.eot, ids.eom].into_iter().flatten() {
                    if !eos.contains(&id) {
                        eos.push(id);
                    }
                }
                Ok(SpecialTokens { bos: ids.bos, eos })
            }
            Contents::Folder(folder) => folder.special_tokens(self.config.vocab_size),
        }
    }

    /// The content's name: BLAKE3 of a GGUF file; of a folder, the digest of its files (see
    /// the module `digest`). It reads everything, so it takes a while.
    pub fn digest(&self) -> Result<blake3::Hash, ModelFileError> {
        match &self.contents {
            Contents::Gguf(gguf) => digest::of_map(gguf.source()),
            Contents::Folder(folder) => folder.digest(),
        }
        .map_err(|(path, source)| ModelFileError::Io { path, source })
    }

    /// The file, where the model is one GGUF file.
    pub(crate) fn gguf(&self) -> Option<&Gguf<MappedFile>> {
        match &self.contents {
            Contents::Gguf(gguf) => Some(gguf),
            Contents::Folder(_) => None,
        }
    }

    /// The folder, where the model is one.
    pub(crate) fn folder(&self) -> Option<&ModelFolder> {
        match &self.contents {
            Contents::Gguf(_) => None,
            Contents::Folder(folder) => Some(folder),
        }
    }

    fn naming(&self) -> Naming {
        match &self.contents {
            Contents::Gguf(_) => Naming::Gguf,
            Contents::Folder(_) => Naming::HuggingFace,
        }
    }

    fn maps(&self) -> &[MappedFile] {
        match &self.contents {
            Contents::Gguf(gguf) => std::slice::from_ref(gguf.source()),
            Contents::Folder(folder) => folder.shards(),
        }
    }

    fn gguf_error(&self, source: GgufError) -> ModelFileError {
        ModelFileError::Gguf { path: self.path.clone(), source }
    }
}

/// Finds the tensor for each role that the configuration needs; all others must be `ignored`.
fn assign_roles(
    path: &Path,
    config: &ModelConfig,
    naming: Naming,
    declared: impl Iterator<Item = DeclaredTensor>,
    ignored: impl Fn(&str) -> bool,
) -> Result<HashMap<TensorRole, StoredTensor>, ModelFileError> {
    let mut by_name: HashMap<Box<str>, DeclaredTensor> =
        declared.map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut tensors = HashMap::new();
    for needed in tensor_names::needed(config) {
        let name = tensor_names::name(naming, config.architecture, needed.role);
        let Some(found) = by_name.remove(name.as_str()) else {
            return Err(ModelFileError::MissingTensor { path: path.into(), name });
        };
        let (rows, cols) = check_shape(path, &found, needed.shape)?;
        let (row_order, offset) = tensor_names::storage(naming, needed.kind, config);
        let stored = StoredTensor { declared: found, rows, cols, row_order, offset };
        tensors.insert(needed.role, stored);
    }
    match by_name.into_keys().filter(|name| !ignored(name)).min() {
        Some(name) => Err(ModelFileError::UnusedTensor { path: path.into(), name: name.into() }),
        None => Ok(tensors),
    }
}

fn check_shape(
    path: &Path,
    found: &DeclaredTensor,
    needed: Shape,
) -> Result<(usize, usize), ModelFileError> {
    let (expected, rows, cols) = match needed {
        Shape::Vector(len) => (vec![len], 1, len),
        Shape::Matrix(rows, cols) => (vec![rows, cols], rows, cols),
    };
    if found.shape != expected {
        return Err(ModelFileError::TensorShape {
            path: path.into(),
            name: found.name.to_string(),
            found: found.shape.clone(),
            expected,
        });
    }
    let is_float = found.block_type.block_len() == 1;
    if matches!(needed, Shape::Vector(_)) && !is_float {
        return Err(ModelFileError::VectorType {
            path: path.into(),
            name: found.name.to_string(),
            found: found.block_type,
        });
    }
    Ok((rows, cols))
}
