//! The manifest of a checkpoint: which files, how long, with which digests.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CheckpointState;
use crate::run::durable::{FileDigest, digest_file, read_small};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const STATE: &str = "state.json";
/// Changed when old readers would misunderstand.
const FORMAT: u32 = 1;
/// A handful of lines, and the state with its windows.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// Values, moments, state, and room for other optimizers.
const MAX_FILES: usize = 64;

/// The file as it is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    files: Vec<Entry>,
    /// Of `files` as compact JSON: the manifest guards itself too.
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    bytes: u64,
    blake3: String,
}

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum VerifyError {
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{name} is damaged: {source}")]
    Json { name: &'static str, source: serde_json::Error },
    #[error("manifest.json is damaged: it does not match its own digest")]
    Manifest,
    #[error("manifest.json has format {found}, expected {FORMAT}")]
    Format { found: u32 },
    #[error("{name} has {found} bytes, expected {expected}: cut short or added to")]
    Length { name: String, found: u64, expected: u64 },
    #[error("{name} is damaged: its digest is {found}, expected {expected}")]
    Digest { name: String, found: String, expected: String },
    #[error("the files are {found:?}, expected {expected:?}")]
    Files { found: Vec<String>, expected: Vec<String> },
    #[error("state.json is of step {found}, expected {expected}")]
    Step { found: u64, expected: u64 },
}

/// The bytes of a manifest of these files.
pub(super) fn to_bytes(files: Vec<(String, FileDigest)>) -> Result<Vec<u8>, serde_json::Error> {
    let files = files
        .into_iter()
        .map(|(name, FileDigest { bytes, blake3 })| Entry { name, bytes, blake3 })
        .collect::<Vec<_>>();
    let digest = crate::run::settings::digest(&files)?;
    serde_json::to_vec(&Manifest { format: FORMAT, files, digest })
}

/// Verifies every byte of a checkpoint and returns its state. `tensors` are the names of the
/// files that it must have beside the state.
pub(super) fn verify(
    path: &Path,
    step: u64,
    tensors: &[&str],
) -> Result<CheckpointState, VerifyError> {
    let read = |name: &str| {
        read_small(&path.join(name), MAX_JSON_BYTES)
            .map_err(|source| VerifyError::Read { name: name.to_owned(), source })
    };
    let bytes = read(MANIFEST)?;
    let json = |name| move |source| VerifyError::Json { name, source };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(json(MANIFEST))?;
    if manifest.format != FORMAT {
        return Err(VerifyError::Format { found: manifest.format });
    }
    let digest = crate::run::settings::digest(&manifest.files).map_err(json(MANIFEST))?;
    let canonical = serde_json::to_vec(&manifest).map_err(json(MANIFEST))?;
    // The second: not a byte may differ, even where JSON would not care.
    if digest != manifest.digest || canonical != bytes || manifest.files.len() > MAX_FILES {
        return Err(VerifyError::Manifest);
    }
    let found: Vec<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
    let expected: Vec<String> = tensors.iter().chain([&STATE]).map(|&name| name.into()).collect();
    if found != expected {
        return Err(VerifyError::Files { found, expected });
    }
    for file in &manifest.files {
        verify_file(path, file)?;
    }
    let state: CheckpointState = serde_json::from_slice(&read(STATE)?).map_err(json(STATE))?;
    if state.step != step {
        return Err(VerifyError::Step { found: state.step, expected: step });
    }
    Ok(state)
}

fn verify_file(path: &Path, entry: &Entry) -> Result<(), VerifyError> {
    let path = path.join(&entry.name);
    let name = entry.name.clone();
    let read = |source| VerifyError::Read { name: entry.name.clone(), source };
    // The length first: it says more than a digest when a file was cut short.
    let (found, expected) = (path.metadata().map_err(read)?.len(), entry.bytes);
    if found != expected {
        return Err(VerifyError::Length { name, found, expected });
    }
    let (found, expected) = (digest_file(&path).map_err(read)?.blake3, entry.blake3.clone());
    if found != expected {
        return Err(VerifyError::Digest { name, found, expected });
    }
    Ok(())
}
