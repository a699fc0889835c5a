//! LoRA adapters in the PEFT layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter is applied unmerged: `y += scale * B (A x)`. It is small, so it is read into memory
//! as `f32`, and everything is checked against the base model's configuration when it is opened.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use feilun_kernels::BlockType;
use half::{bf16, f16};

use crate::config::ModelConfig;
use crate::config_check::ConfigError;
use crate::digest;
use crate::lora_config::LoraConfig;
use crate::mapped_file::MappedFile;
use crate::model_files::ModelFileError;
use crate::model_folder::read_required;
use crate::safetensors_header::{HeaderTensor, SafetensorsError, parse_header};
use crate::tensor::LayerTensor;
use crate::tensor_names::Shape;

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
const MAX_CONFIG_BYTES: u64 = 256 << 10;

/// PEFT's names of the matrices that can be adapted, as part of a layer.
pub(crate) const MODULES: [(&str, LayerTensor); 7] = [
    ("self_attn.q_proj", LayerTensor::AttnQ),
    ("self_attn.k_proj", LayerTensor::AttnK),
    ("self_attn.v_proj", LayerTensor::AttnV),
    ("self_attn.o_proj", LayerTensor::AttnOutput),
    ("mlp.gate_proj", LayerTensor::MlpGate),
    ("mlp.up_proj", LayerTensor::MlpUp),
    ("mlp.down_proj", LayerTensor::MlpDown),
];

/// Why an adapter cannot be opened. Names come from files and are printed with escapes.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum AdapterError {
    #[error("cannot read `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    File(#[from] ModelFileError),
    #[error("`{}`: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("`{}`: {source}", path.display())]
    Safetensors { path: PathBuf, source: SafetensorsError },
    #[error("`{}`: tensor {name:?} is none of LoRA's matrices for q, k, v, o, gate, up or down", path.display())]
    UnknownTensor { path: PathBuf, name: String },
    #[error("`{}`: tensor {name:?} is missing", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error("`{}`: tensor {name:?} is of layer {found}, the model has {num_layers}", path.display())]
    Layer { path: PathBuf, name: String, found: usize, num_layers: usize },
    #[error("`{}`: tensor {name:?} has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape { path: PathBuf, name: String, found: Vec<usize>, expected: [usize; 2] },
    #[error("`{}`: tensor {name:?} has a weight that is not finite: {found}", path.display())]
    NotFinite { path: PathBuf, name: String, found: f32 },
    #[error("`{}` has no matrices", path.display())]
    Empty { path: PathBuf },
    #[error("made for a base of {found:?}, the model is {expected:?}")]
    Base { found: BaseShape, expected: BaseShape },
}

/// The sizes of a base model that an adapter's shapes depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the configuration")]
pub struct BaseShape {
    pub num_layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub q_size: usize,
    pub kv_size: usize,
}

impl BaseShape {
    fn of(config: &ModelConfig) -> BaseShape {
        BaseShape {
            num_layers: config.layers.len(),
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            q_size: config.q_size(),
            kv_size: config.kv_size(),
        }
    }
}

/// Low-rank additions to linear layers, applied unmerged: `y += scale * B (A x)`.
#[derive(Debug)]
pub struct Adapter {
    /// The content's name: see [`crate::ModelFiles::digest`].
    pub digest: blake3::Hash,
    base: BaseShape,
    /// One entry for each layer of the base model.
    layers: Vec<HashMap<LayerTensor, LoraMatrix>>,
}

/// The addition to one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraMatrix {
    /// `(rank, inputs)`, row by row.
    pub a: Vec<f32>,
    /// `(outputs, rank)`, row by row.
    pub b: Vec<f32>,
    /// Width of the bottleneck, at least 1.
    pub rank: usize,
    /// Factor on the result.
    pub scale: f32,
}

impl Adapter {
    /// Reads the adapter in a folder for a base model of the given configuration.
    pub fn open(folder: impl AsRef<Path>, base: &ModelConfig) -> Result<Adapter, AdapterError> {
        let folder = folder.as_ref();
        let config_path = folder.join(CONFIG);
        let config_json = read_required(&config_path, MAX_CONFIG_BYTES)?;
        let config = LoraConfig::parse(&config_json)
            .map_err(|source| AdapterError::Config { path: config_path.clone(), source })?;
        let path = folder.join(WEIGHTS);
        let map = MappedFile::open(&path)
            .map_err(|source| AdapterError::Io { path: path.clone(), source })?;
        let tensors = parse_header(map.as_ref())
            .map_err(|source| AdapterError::Safetensors { path: path.clone(), source })?;
        let layers = Reader { path: &path, base, config: &config, bytes: map.as_ref() }
            .layers(&tensors)
            .map_err(|error| match error {
                ReadError::Adapter(error) => error,
                ReadError::Config(source) => AdapterError::Config { path: config_path, source },
            })?;
        let weights_digest =
            digest::of_map(&map).map_err(|(path, source)| AdapterError::Io { path, source })?;
        let files = vec![
            (CONFIG.to_owned(), blake3::hash(&config_json)),
            (WEIGHTS.to_owned(), weights_digest),
        ];
        Ok(Adapter { digest: digest::of_files(files), base: BaseShape::of(base), layers })
    }

    /// Size of the weights of the adapter in a folder, without reading them.
    pub fn file_bytes(folder: impl AsRef<Path>) -> Result<u64, AdapterError> {
        let path = folder.as_ref().join(WEIGHTS);
        let found = std::fs::metadata(&path).map_err(|source| AdapterError::Io { path, source })?;
        Ok(found.len())
    }

    /// Whether the adapter was opened for a base of these sizes; cheap enough for every step.
    pub fn check_fits(&self, base: &ModelConfig) -> Result<(), AdapterError> {
        let expected = BaseShape::of(base);
        match self.base == expected {
            true => Ok(()),
            false => Err(AdapterError::Base { found: self.base, expected }),
        }
    }

    /// The addition to a matrix, if the adapter has one.
    pub fn matrix(&self, layer: usize, tensor: LayerTensor) -> Option<&LoraMatrix> {
        self.layers.get(layer)?.get(&tensor)
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> usize {
        let matrices = self.layers.iter().flat_map(HashMap::values);
        matrices.map(|matrix| 4 * (matrix.a.len() + matrix.b.len())).sum()
    }

    /// Layers of the base model.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// The largest rank, for scratch memory.
    pub fn max_rank(&self) -> usize {
        let matrices = self.layers.iter().flat_map(HashMap::values);
        matrices.map(|matrix| matrix.rank).max().unwrap_or(0)
    }
}

enum ReadError {
    Adapter(AdapterError),
    Config(ConfigError),
}

impl From<AdapterError> for ReadError {
    fn from(error: AdapterError) -> ReadError {
        ReadError::Adapter(error)
    }
}

impl From<ConfigError> for ReadError {
    fn from(error: ConfigError) -> ReadError {
        ReadError::Config(error)
    }
}

/// What is at hand while the matrices are read.
struct Reader<'a> {
    path: &'a Path,
    base: &'a ModelConfig,
    config: &'a LoraConfig,
    bytes: &'a [u8],
}

/// The two halves of an addition, as they are found.
#[derive(Default)]
struct Pair<'a> {
    a: Option<&'a HeaderTensor>,
    b: Option<&'a HeaderTensor>,
}

impl Reader<'_> {
    fn layers(
        &self,
        tensors: &[HeaderTensor],
    ) -> Result<Vec<HashMap<LayerTensor, LoraMatrix>>, ReadError> {
        let mut pairs: HashMap<(usize, usize), Pair<'_>> = HashMap::new();
        for tensor in tensors {
            let Some((layer, module, is_a)) = parse_name(&tensor.name) else {
                let (path, name) = (self.path.into(), tensor.name.clone());
                return Err(AdapterError::UnknownTensor { path, name }.into());
            };
            let num_layers = self.base.layers.len();
            if layer >= num_layers {
                let (path, name) = (self.path.into(), tensor.name.clone());
                return Err(AdapterError::Layer { path, name, found: layer, num_layers }.into());
            }
            let pair = pairs.entry((layer, module)).or_default();
            *(if is_a { &mut pair.a } else { &mut pair.b }) = Some(tensor);
        }
        if pairs.is_empty() {
            return Err(AdapterError::Empty { path: self.path.into() }.into());
        }
        let mut layers: Vec<_> = self.base.layers.iter().map(|_| HashMap::new()).collect();
        for ((layer, module), pair) in pairs {
            let Some((module, tensor)) = MODULES.get(module) else { continue };
            let matrix = self.matrix(&format!("model.layers.{layer}.{module}"), *tensor, &pair)?;
            if let Some(matrices) = layers.get_mut(layer) {
                matrices.insert(*tensor, matrix);
            }
        }
        Ok(layers)
    }

    fn matrix(
        &self,
        module: &str,
        tensor: LayerTensor,
        pair: &Pair<'_>,
    ) -> Result<LoraMatrix, ReadError> {
        let (rank, scale) = self.config.rank_and_scale(module)?;
        let missing = |half: &str| {
            let name = format!("base_model.model.{module}.{half}.weight");
            AdapterError::MissingTensor { path: self.path.into(), name }
        };
        let a = pair.a.ok_or_else(|| missing("lora_A"))?;
        let b = pair.b.ok_or_else(|| missing("lora_B"))?;
        let Some((Shape::Matrix(outputs, inputs), _)) = self.base.layer_tensor(tensor) else {
            // Every entry of `MODULES` is a matrix of every configuration.
            return Err(AdapterError::Empty { path: self.path.into() }.into());
        };
        Ok(LoraMatrix {
            a: self.floats(a, [rank, inputs])?,
            b: self.floats(b, [outputs, rank])?,
            rank,
            scale,
        })
    }

    fn floats(
        &self,
        tensor: &HeaderTensor,
        expected: [usize; 2],
    ) -> Result<Vec<f32>, AdapterError> {
        let name = || tensor.name.clone();
        if tensor.shape != expected {
            let found = tensor.shape.clone();
            let path = self.path.into();
            return Err(AdapterError::TensorShape { path, name: name(), found, expected });
        }
        let bytes = self.bytes.get(tensor.range.clone()).unwrap_or_default();
        let floats = to_f32(tensor.block_type, bytes);
        if let Some(&found) = floats.iter().find(|weight| !weight.is_finite()) {
            return Err(AdapterError::NotFinite { path: self.path.into(), name: name(), found });
        }
        Ok(floats)
    }
}

/// Layer, index into [`MODULES`], and whether it is A, of names such as
/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`.
fn parse_name(name: &str) -> Option<(usize, usize, bool)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let is_plain_number = layer.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = layer == "0" || !layer.starts_with('0');
    let layer = layer.parse().ok().filter(|_| is_plain_number && is_canonical)?;
    let (module, is_a) = match rest.strip_suffix(".lora_A.weight") {
        Some(module) => (module, true),
        None => (rest.strip_suffix(".lora_B.weight")?, false),
    };
    let module = MODULES.iter().position(|(known, _)| *known == module)?;
    Some((layer, module, is_a))
}

fn to_f32(block_type: BlockType, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0.iter().copied();
    match block_type {
        BlockType::F16 => halves.map(|half| f16::from_le_bytes(half).to_f32()).collect(),
        BlockType::Bf16 => halves.map(|half| bf16::from_le_bytes(half).to_f32()).collect(),
        // The header knows no other type than these and F32.
        _ => bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect(),
    }
}
