//! The keys of a GGUF file to be written: typed values as the bytes that go to the file.

use crate::config::{Architecture, ModelConfig};
use crate::gguf::{Gguf, GgufError};
use crate::gguf_config::ROPE_FREQS;
use crate::gguf_value::ValueType;
use crate::model_files::{ModelFileError, ModelFiles};

const DEFAULT_ALIGNMENT: usize = 32;
/// These say how the base was quantized or split, which is not how the copy is.
const STALE_PREFIXES: [&str; 2] = ["quantize.", "split."];

/// Everything in a GGUF file but the model's weights.
#[derive(Clone, Debug)]
pub struct GgufMetadata {
    /// Key, and the bytes of its type and value; in the order of the file.
    entries: Vec<(String, Vec<u8>)>,
    pub(super) alignment: usize,
    /// The tensor `rope_freqs.weight`, where rotary embeddings are stretched by one.
    pub(super) rope_divisors: Option<Vec<f32>>,
}

impl GgufMetadata {
    /// The keys of an open GGUF file, bytes unchanged; `None` where the model is no GGUF file.
    ///
    /// # Errors
    /// When the file changed since it was opened.
    pub fn of_file(files: &ModelFiles) -> Result<Option<GgufMetadata>, ModelFileError> {
        let Some(gguf) = files.gguf() else { return Ok(None) };
        let path = files.path().to_owned();
        let metadata = read(gguf).map_err(|source| ModelFileError::Gguf { path, source })?;
        Ok(Some(metadata))
    }

    /// No keys yet.
    pub(super) fn empty() -> GgufMetadata {
        let (entries, rope_divisors) = (Vec::new(), None);
        GgufMetadata { entries, alignment: DEFAULT_ALIGNMENT, rope_divisors }
    }

    /// Key and encoded value, in the order of the file.
    pub(super) fn entries(&self) -> &[(String, Vec<u8>)] {
        &self.entries
    }

    /// Sets a 32-bit integer.
    pub(super) fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, scalar(ValueType::U32, &value.to_le_bytes()));
    }

    /// Sets a 32-bit float.
    pub(super) fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, scalar(ValueType::F32, &value.to_le_bytes()));
    }

    /// Sets a truth value.
    pub(super) fn set_bool(&mut self, key: &str, value: bool) {
        self.set(key, scalar(ValueType::Bool, &[u8::from(value)]));
    }

    /// Sets a text.
    pub(super) fn set_string(&mut self, key: &str, value: &str) {
        self.set(key, scalar(ValueType::String, &string(value)));
    }

    /// Sets an array of texts.
    pub(super) fn set_strings(&mut self, key: &str, values: &[&str]) {
        self.set(key, array(ValueType::String, values.iter().map(|value| string(value))));
    }

    /// Sets an array of 32-bit integers.
    pub(super) fn set_i32s(&mut self, key: &str, values: &[i32]) {
        self.set(key, array(ValueType::I32, values.iter().map(|value| value.to_le_bytes())));
    }

    /// Sets an array of 32-bit floats.
    pub(super) fn set_f32s(&mut self, key: &str, values: &[f32]) {
        self.set(key, array(ValueType::F32, values.iter().map(|value| value.to_le_bytes())));
    }

    /// Sets an array of truth values.
    pub(super) fn set_bools(&mut self, key: &str, values: &[bool]) {
        self.set(key, array(ValueType::Bool, values.iter().map(|&value| [u8::from(value)])));
    }

    /// Replaces a value in its place, or adds the key at the end.
    fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.entries.iter_mut().find(|(old, _)| old == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }
}

fn read<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<GgufMetadata, GgufError> {
    let is_stale = |key: &str| STALE_PREFIXES.iter().any(|stale| key.starts_with(stale));
    let entries = gguf
        .raw_entries()
        .filter(|(key, _)| !is_stale(key))
        .map(|(key, bytes)| (key.to_owned(), bytes.to_vec()))
        .collect();
    // It was bounded when the file was opened.
    let alignment = gguf.integer("general.alignment")?.map(|alignment| alignment as usize);
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    Ok(GgufMetadata { entries, alignment, rope_divisors: rope_divisors(gguf) })
}

fn rope_divisors<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Option<Vec<f32>> {
    // The configuration took it for F32 when the file was opened.
    let tensor = gguf.tensor(ROPE_FREQS)?;
    let bytes = gguf.bytes().get(tensor.range.clone())?;
    Some(bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect())
}

/// The configuration as GGUF has it: Mistral goes under the name and in the row order of Llama.
pub(super) fn as_gguf(config: &ModelConfig) -> ModelConfig {
    let architecture = match config.architecture {
        Architecture::Mistral => Architecture::Llama,
        other => other,
    };
    ModelConfig { architecture, ..config.clone() }
}

fn scalar(value_type: ValueType, value: &[u8]) -> Vec<u8> {
    let mut bytes = value_type.number().to_le_bytes().to_vec();
    bytes.extend(value);
    bytes
}

fn array<V: AsRef<[u8]>>(element: ValueType, values: impl ExactSizeIterator<Item = V>) -> Vec<u8> {
    let mut bytes = scalar(ValueType::Array, &element.number().to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    for value in values {
        bytes.extend(value.as_ref());
    }
    bytes
}

fn string(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    bytes.extend(value.as_bytes());
    bytes
}
