//! Content digests: the names of immutable files. One file is its BLAKE3; several files together
//! are the BLAKE3 of one line for each, in the order of names: `name NUL digest newline`.

use std::io;
use std::path::PathBuf;

use crate::mapped_file::MappedFile;

/// Hashed at a time; then its pages are given back, so that hashing a model does not make it
/// resident.
const CHUNK_BYTES: usize = 16 << 20;

/// What went wrong, and with which file.
pub(crate) type DigestError = (PathBuf, io::Error);

/// BLAKE3 of a mapped file.
pub(crate) fn of_map(map: &MappedFile) -> Result<blake3::Hash, DigestError> {
    let mut hasher = blake3::Hasher::new();
    for (index, chunk) in map.as_ref().chunks(CHUNK_BYTES).enumerate() {
        hasher.update(chunk);
        let start = index * CHUNK_BYTES;
        map.advise_dont_need(start..start + chunk.len())
            .map_err(|source| (map.path().to_owned(), source))?;
    }
    Ok(hasher.finalize())
}

/// The digest of several files, whose names are unique.
pub(crate) fn of_files(mut files: Vec<(String, blake3::Hash)>) -> blake3::Hash {
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in &files {
        hasher.update(name.as_bytes());
        hasher.update(b"\0");
        hasher.update(hash.to_hex().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize()
}
