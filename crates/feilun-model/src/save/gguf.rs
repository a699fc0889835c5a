//! A whole model in one GGUF file, version 3.

use std::io::Write;
use std::path::Path;

use feilun_kernels::BlockType;

use super::atomic::{self, Pending, WriteError};
use super::error::SaveError;
use super::gguf_config::with_divisors;
use super::gguf_metadata::{GgufMetadata, as_gguf};
use super::outgoing::{Encoder, Job, Outgoing};
use super::same_config::same_config;
use super::source::WeightSource;
use super::storage::Storage;
use crate::config::ModelConfig;
use crate::gguf::type_id_of;
use crate::gguf_config::ROPE_FREQS;
use crate::model_files::ModelFiles;
use crate::tensor_names::Naming;

const VERSION: u32 = 3;
/// ggml's number of the present form of its blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// Writes a GGUF file: the metadata (its keys on storage adapted), and the weights.
///
/// # Errors
/// When the file exists, when a weight is not finite or too large for the storage, when the disk
/// is full, when the configuration has something that GGUF cannot say. Nothing is left of it then.
pub fn save_gguf(
    path: &Path,
    metadata: &GgufMetadata,
    weights: &dyn WeightSource,
    storage: Storage,
    job: &mut Job<'_>,
) -> Result<(), SaveError> {
    let mut metadata = metadata.clone();
    metadata.set_u32("general.file_type", file_type(storage.matrices()));
    metadata.set_u32("general.quantization_version", QUANTIZATION_VERSION);
    let tensors = Outgoing::all(&as_gguf(weights.config()), Naming::Gguf, storage);
    let pending = Pending::new(path)?;
    atomic::write(pending.path(), |out| {
        let header = header(&metadata, &tensors);
        out.write_all(&header)?;
        pad(out, header.len(), metadata.alignment)?;
        if let Some(divisors) = &metadata.rope_divisors {
            let bytes: Vec<u8> = divisors.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write_all(&bytes)?;
            pad(out, bytes.len(), metadata.alignment)?;
        }
        let mut encoder = Encoder::new(weights, job, &tensors);
        for tensor in &tensors {
            encoder.write(tensor, out)?;
            pad(out, tensor.num_bytes(), metadata.alignment)?;
        }
        Ok(())
    })?;
    check_read_again(pending.path(), weights.config())?;
    pending.commit()
}

/// What no key says is derived by readers: they have to come to the model that was meant.
fn check_read_again(path: &Path, config: &ModelConfig) -> Result<(), SaveError> {
    let read = ModelFiles::open_gguf(path)?;
    same_config("GGUF", &with_divisors(config), read.config())
}

/// Magic, counts, keys and tensor infos.
fn header(metadata: &GgufMetadata, tensors: &[Outgoing]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    let num_tensors = tensors.len() + usize::from(metadata.rope_divisors.is_some());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((num_tensors as u64).to_le_bytes());
    bytes.extend((metadata.entries().len() as u64).to_le_bytes());
    for (key, value) in metadata.entries() {
        push_name(&mut bytes, key);
        bytes.extend(value);
    }
    let mut offset = 0_usize;
    let mut info = |name: &str, dims: &[usize], block_type: BlockType, num_bytes: usize| {
        push_name(&mut bytes, name);
        bytes.extend((dims.len() as u32).to_le_bytes());
        // GGUF counts dimensions from the contiguous one.
        bytes.extend(dims.iter().rev().flat_map(|&dim| (dim as u64).to_le_bytes()));
        bytes.extend(type_id_of(block_type).to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset = (offset + num_bytes).next_multiple_of(metadata.alignment);
    };
    if let Some(divisors) = &metadata.rope_divisors {
        info(ROPE_FREQS, &[divisors.len()], BlockType::F32, divisors.len() * 4);
    }
    for tensor in tensors {
        info(&tensor.name, &tensor.dims(), tensor.block_type, tensor.num_bytes());
    }
    bytes
}

fn push_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend(name.as_bytes());
}

/// Zeros after `len` bytes, up to the alignment.
fn pad(out: &mut dyn Write, len: usize, alignment: usize) -> Result<(), WriteError> {
    out.write_all(&vec![0; len.next_multiple_of(alignment) - len])?;
    Ok(())
}

/// llama.cpp's number for "mostly of this type".
fn file_type(block_type: BlockType) -> u32 {
    match block_type {
        BlockType::F32 => 0,
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q8_0 => 7,
        BlockType::Q5_0 => 8,
        BlockType::Q5_1 => 9,
        BlockType::Q4K => 14,
        BlockType::Q5K => 16,
        BlockType::Q6K => 18,
        BlockType::Bf16 => 32,
    }
}
