//! Token shards: documents as tokens in one file, read at random by a memory map.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | the magic `feilunts` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes of a token, 2 or 4 |
//! | 16 | 8 | number of documents, D |
//! | 24 | 8 | number of tokens, T |
//! | 32 | 4 | size of the vocabulary; every token is smaller |
//! | 36 | 4 | 0 |
//! | 40 | 32 | [`tokenizer_digest`] of the tokenizer that made the tokens |
//! | 72 | 32 | BLAKE3 of everything from offset 128 on |
//! | 104 | 24 | 0 |
//! | 128 | T × width | the tokens of all documents, one document after the other |
//! | … | 0 to 7 | zeros up to a multiple of 8 |
//! | … | D × 16 | for each document: how many tokens there are up to its end (8), and the first 8 bytes of the BLAKE3 of its tokens as 4-byte numbers (8) |
//!
//! The file ends there. A file is written under a temporary name and renamed when it is complete,
//! so a shard that exists is whole.

mod reader;
mod writer;

use std::io;
use std::path::PathBuf;

use feilun_text::Tokenizer;

pub use self::reader::Shard;
pub use self::writer::ShardWriter;

const MAGIC: &[u8; 8] = b"feilunts";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
/// Of one document in the index.
const ENTRY_BYTES: usize = 16;

/// Why a shard cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ShardError {
    #[error("cannot read the token shard `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the token shard `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("token shard `{path}`: {what} is {found}, expected {expected}; make the shard anew")]
    Invalid { path: PathBuf, what: &'static str, found: String, expected: String },
    #[error(
        "token shard `{path}`: document {document} has the token {found}, the vocabulary has \
         {vocab_size}"
    )]
    Token { path: PathBuf, document: usize, found: u32, vocab_size: u32 },
    #[error(
        "token shard `{path}` was made with another tokenizer (digest {found}, the model's is \
         {expected}); make the shard anew with the model's tokenizer"
    )]
    Tokenizer { path: PathBuf, found: String, expected: String },
}

/// Names a vocabulary: BLAKE3 over the kind and the bytes of each token, by id.
pub fn tokenizer_digest(tokenizer: &Tokenizer) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let bytes = tokenizer.token_bytes(id);
        hasher.update(&[tokenizer.kind(id).map_or(0, |kind| 1 + kind as u8)]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.update(&[u8::from(tokenizer.adds_bos()), u8::from(tokenizer.adds_eos())]);
    hasher.finalize()
}

/// The bytes of a token: few where the vocabulary allows it.
fn token_width(vocab_size: u32) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

#[cfg(test)]
mod tests;
