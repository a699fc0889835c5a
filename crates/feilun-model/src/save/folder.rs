//! A whole model as a folder in the Hugging Face layout: `config.json`, `model.safetensors`, and
//! the small files of tokenizer, template and generation.

use std::fs;
use std::io;
use std::path::Path;

use feilun_kernels::BlockType;

use super::atomic::{self, Pending};
use super::error::SaveError;
use super::hf_config::config_json;
use super::outgoing::{Encoder, Job, Outgoing};
use super::safetensors::write_header;
use super::source::WeightSource;
use super::storage::Storage;
use crate::model_files::{ModelFiles, SpecialTokens};
use crate::model_folder::{CONFIG, WEIGHTS};
use crate::tensor_names::Naming;

/// Files that go with a model and do not depend on its weights.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
];
/// Larger than any of them; Gemma's tokenizer has 33 MB.
const MAX_COMPANION_BYTES: u64 = 128 << 20;

/// The small files of a folder, by name.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// Each file's name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Ids that go into `config.json`.
    pub special_tokens: SpecialTokens,
}

impl Companions {
    /// Those of an open folder; `None` where the model is a GGUF file.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_folder(files: &ModelFiles) -> Result<Option<Companions>, SaveError> {
        let Some(folder) = files.folder() else { return Ok(None) };
        let mut companions =
            Companions { files: Vec::new(), special_tokens: files.special_tokens()? };
        for name in COMPANIONS {
            let path = folder.path_of(name);
            let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "too large");
            let content = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
                Ok(metadata) if metadata.len() > MAX_COMPANION_BYTES => Err(too_large()),
                Ok(_) => fs::read(&path),
            };
            companions.files.push((name.to_owned(), content.map_err(SaveError::io(path))?));
        }
        Ok(Some(companions))
    }
}

/// Writes a new folder with the weights in F32, F16 or BF16.
///
/// # Errors
/// When the folder exists and is not empty, when the configuration has what `config.json` cannot
/// say, when a weight is not finite, when the disk is full. Nothing is left of it then.
pub fn save_folder(
    path: &Path,
    companions: &Companions,
    weights: &dyn WeightSource,
    block_type: BlockType,
    job: &mut Job<'_>,
) -> Result<(), SaveError> {
    if block_type.block_len() > 1 {
        return Err(SaveError::NotExpressible {
            format: "safetensors",
            what: "the storage".into(),
            found: block_type.to_string(),
            expected: "F32, F16 or BF16".into(),
        });
    }
    let config = weights.config();
    let config_json = config_json(config, &companions.special_tokens, block_type)?;
    let tensors = Outgoing::all(config, Naming::HuggingFace, Storage::uniform(block_type));
    let pending = Pending::new(path)?;
    let folder = pending.create_folder()?;
    let small = companions.files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    for (name, content) in small.chain([(CONFIG, config_json.as_bytes())]) {
        atomic::write(&folder.join(name), |out| Ok(out.write_all(content)?))?;
    }
    atomic::write(&folder.join(WEIGHTS), |out| {
        let announced = tensors.iter().map(|t| (t.name.as_str(), t.block_type, t.dims()));
        write_header(announced, out)?;
        let mut encoder = Encoder::new(weights, job, &tensors);
        tensors.iter().try_for_each(|tensor| encoder.write(tensor, out))
    })?;
    pending.commit()
}
