//! Reading a shard at random. A header that lies is refused before anything is allocated.

use std::path::{Path, PathBuf};

use feilun_model::mapped_file::MappedFile;
use feilun_text::Tokenizer;

use super::{ENTRY_BYTES, HEADER_BYTES, MAGIC, ShardError, VERSION, token_width, tokenizer_digest};

/// An open shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: MappedFile,
    width: usize,
    num_documents: usize,
    num_tokens: usize,
    vocab_size: u32,
    /// Where the index begins.
    index: usize,
}

impl Shard {
    /// Opens a shard and checks its header and its index; the tokens are checked as they are
    /// read, and the digest by [`verify`](Self::verify).
    ///
    /// # Errors
    /// Naming what does not fit.
    pub fn open(path: &Path) -> Result<Shard, ShardError> {
        let map = MappedFile::open(path)
            .map_err(|source| ShardError::Read { path: path.to_owned(), source })?;
        let invalid = |what, found: String, expected: String| ShardError::Invalid {
            path: path.to_owned(),
            what,
            found,
            expected,
        };
        let bytes = map.as_ref();
        if bytes.len() < HEADER_BYTES {
            let expected = format!("at least {HEADER_BYTES} bytes");
            return Err(invalid("the file", format!("{} bytes long", bytes.len()), expected));
        }
        if &bytes[..8] != MAGIC {
            let found = String::from_utf8_lossy(&bytes[..8]).escape_debug().to_string();
            return Err(invalid("the magic", found, String::from_utf8_lossy(MAGIC).into()));
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(invalid("the version", version.to_string(), VERSION.to_string()));
        }
        let vocab_size = u32_at(bytes, 32);
        let width = token_width(vocab_size);
        if u32_at(bytes, 12) as usize != width {
            let found = u32_at(bytes, 12).to_string();
            let expected = format!("{width} for a vocabulary of {vocab_size}");
            return Err(invalid("the width of tokens", found, expected));
        }
        let (num_documents, num_tokens) = (u64_at(bytes, 16), u64_at(bytes, 24));
        let tokens_bytes = num_tokens
            .checked_mul(width as u64)
            .and_then(|len| len.checked_next_multiple_of(8))
            .and_then(|len| len.checked_add(HEADER_BYTES as u64));
        let index_bytes = num_documents.checked_mul(ENTRY_BYTES as u64);
        let total = tokens_bytes.zip(index_bytes).and_then(|(a, b)| a.checked_add(b));
        if total != Some(bytes.len() as u64) {
            let expected = format!(
                "{} for {num_documents} documents with {num_tokens} tokens",
                total.map_or("more than 2^64".into(), |total| total.to_string())
            );
            return Err(invalid("the length of the file", bytes.len().to_string(), expected));
        }
        // Both are smaller than the file, which is in the address space.
        let (num_documents, num_tokens) = (num_documents as usize, num_tokens as usize);
        let index = bytes.len() - num_documents * ENTRY_BYTES;
        let path = path.to_owned();
        let shard = Shard { path, map, width, num_documents, num_tokens, vocab_size, index };
        shard.check_index()?;
        Ok(shard)
    }

    fn check_index(&self) -> Result<(), ShardError> {
        let invalid = |what, found: u64, expected| ShardError::Invalid {
            path: self.path.clone(),
            what,
            found: found.to_string(),
            expected,
        };
        let mut last = 0;
        for document in 0..self.num_documents {
            let end = self.end(document);
            if end < last || end > self.num_tokens as u64 {
                let expected = format!("{last} to {}", self.num_tokens);
                return Err(invalid("the end of a document", end, expected));
            }
            last = end;
        }
        if last != self.num_tokens as u64 {
            let expected = self.num_tokens.to_string();
            return Err(invalid("the end of the last document", last, expected));
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many documents it has.
    pub fn num_documents(&self) -> usize {
        self.num_documents
    }

    /// How many tokens all documents have together.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// The size of the vocabulary: every token is smaller.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The digest of the contents, as the header has it.
    pub fn digest(&self) -> blake3::Hash {
        self.digest_at(72)
    }

    /// How many tokens a document has.
    pub fn document_len(&self, document: usize) -> usize {
        let start = document.checked_sub(1).map_or(0, |before| self.end(before));
        (self.end(document) - start) as usize
    }

    /// Names the tokens of a document: equal documents have equal hashes.
    pub fn document_hash(&self, document: usize) -> u64 {
        u64_at(self.map.as_ref(), self.index + document * ENTRY_BYTES + 8)
    }

    /// The tokens of a document.
    ///
    /// # Errors
    /// If one is outside the vocabulary.
    pub fn document(&self, document: usize) -> Result<Vec<u32>, ShardError> {
        let mut tokens = Vec::new();
        self.read(document, 0..self.document_len(document), &mut tokens)?;
        Ok(tokens)
    }

    /// Adds a part of a document's tokens to `out`.
    ///
    /// # Errors
    /// If one is outside the vocabulary.
    pub fn read(
        &self,
        document: usize,
        range: std::ops::Range<usize>,
        out: &mut Vec<u32>,
    ) -> Result<(), ShardError> {
        let len = self.document_len(document);
        assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} tokens");
        let first = (self.end(document) as usize) - len;
        let place = |token: usize| HEADER_BYTES + (first + token) * self.width;
        let bytes = &self.map.as_ref()[place(range.start)..place(range.end)];
        let before = out.len();
        match self.width {
            2 => out
                .extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))),
            _ => out.extend(
                bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
        }
        match out[before..].iter().find(|&&token| token >= self.vocab_size) {
            None => Ok(()),
            Some(&found) => {
                let (path, vocab_size) = (self.path.clone(), self.vocab_size);
                Err(ShardError::Token { path, document, found, vocab_size })
            }
        }
    }

    /// Refuses a shard that another tokenizer made.
    ///
    /// # Errors
    /// With both digests.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), ShardError> {
        let (found, expected) = (self.digest_at(40), tokenizer_digest(tokenizer));
        if found == expected {
            return Ok(());
        }
        Err(ShardError::Tokenizer {
            path: self.path.clone(),
            found: found.to_hex().to_string(),
            expected: expected.to_hex().to_string(),
        })
    }

    /// Reads the whole file and compares its digest to that of the header.
    ///
    /// # Errors
    /// If a byte is not what was written.
    pub fn verify(&self) -> Result<(), ShardError> {
        let found = blake3::hash(&self.map.as_ref()[HEADER_BYTES..]);
        if found == self.digest() {
            return Ok(());
        }
        Err(ShardError::Invalid {
            path: self.path.clone(),
            what: "the digest of the contents",
            found: found.to_hex().to_string(),
            expected: self.digest().to_hex().to_string(),
        })
    }

    /// How many tokens there are up to the end of a document.
    fn end(&self, document: usize) -> u64 {
        u64_at(self.map.as_ref(), self.index + document * ENTRY_BYTES)
    }

    fn digest_at(&self, offset: usize) -> blake3::Hash {
        let mut digest = [0; 32];
        digest.copy_from_slice(&self.map.as_ref()[offset..offset + 32]);
        digest.into()
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}
