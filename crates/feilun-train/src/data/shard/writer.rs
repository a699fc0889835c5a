//! Writing a shard, document by document.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{HEADER_BYTES, MAGIC, ShardError, VERSION, token_width};
use crate::data::example::first_u64;

/// A shard that is being written. Dropped before [`finish`](Self::finish), it leaves nothing.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// use feilun_train::data::shard::{Shard, ShardWriter};
///
/// let path = folder.path().join("train.tokens");
/// let mut writer = ShardWriter::create(&path, 100, blake3::hash(b"a tokenizer")).unwrap();
/// writer.add(&[1, 2, 3]).unwrap();
/// writer.add(&[4, 5]).unwrap();
/// writer.finish().unwrap();
///
/// let shard = Shard::open(&path).unwrap();
/// assert_eq!(shard.document(1).unwrap(), [4, 5]);
/// ```
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    partial: Partial,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    vocab_size: u32,
    tokenizer: blake3::Hash,
    num_tokens: u64,
    /// End and hash of each document.
    index: Vec<(u64, u64)>,
    /// The bytes of one document.
    buffer: Vec<u8>,
}

/// A file under a temporary name, removed unless it was renamed.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nothing can be done about a failure here, and the name tells what the file is.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl ShardWriter {
    /// Begins a shard for tokens below `vocab_size`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(
        path: &Path,
        vocab_size: u32,
        tokenizer: blake3::Hash,
    ) -> Result<ShardWriter, ShardError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let error = |source| ShardError::Write { path: path.to_owned(), source };
        let file = File::create(&partial).map_err(error)?;
        let mut writer = ShardWriter {
            path: path.to_owned(),
            partial: Partial(Some(partial)),
            out: BufWriter::with_capacity(1 << 20, file),
            hasher: blake3::Hasher::new(),
            vocab_size,
            tokenizer,
            num_tokens: 0,
            index: Vec::new(),
            buffer: Vec::new(),
        };
        writer.out.write_all(&[0; HEADER_BYTES]).map_err(error)?;
        Ok(writer)
    }

    /// Adds a document.
    ///
    /// # Errors
    /// If a token is outside the vocabulary, or the disk is full.
    pub fn add(&mut self, tokens: &[u32]) -> Result<(), ShardError> {
        if let Some(&found) = tokens.iter().find(|&&token| token >= self.vocab_size) {
            let (path, document) = (self.path.clone(), self.index.len());
            return Err(ShardError::Token { path, document, found, vocab_size: self.vocab_size });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        match token_width(self.vocab_size) {
            2 => tokens.iter().for_each(|&t| buffer.extend_from_slice(&(t as u16).to_le_bytes())),
            _ => tokens.iter().for_each(|&t| buffer.extend_from_slice(&t.to_le_bytes())),
        }
        self.write(&buffer)?;
        self.buffer = buffer;
        self.num_tokens += tokens.len() as u64;
        let mut hasher = blake3::Hasher::new();
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        self.index.push((self.num_tokens, first_u64(&hasher.finalize())));
        Ok(())
    }

    /// How many tokens were added.
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// If the disk is full; then there is no file.
    pub fn finish(mut self) -> Result<(), ShardError> {
        let width = token_width(self.vocab_size) as u64;
        let padding = (self.num_tokens * width).next_multiple_of(8) - self.num_tokens * width;
        self.write(&[0; 8][..padding as usize])?;
        let index = std::mem::take(&mut self.index);
        for (end, hash) in &index {
            self.write(&end.to_le_bytes())?;
            self.write(&hash.to_le_bytes())?;
        }
        let header = self.header(index.len() as u64);
        let complete = self.complete(&header);
        complete.map_err(|source| ShardError::Write { path: self.path, source })
    }

    fn header(&self, num_documents: u64) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(token_width(self.vocab_size) as u32).to_le_bytes());
        header.extend_from_slice(&num_documents.to_le_bytes());
        header.extend_from_slice(&self.num_tokens.to_le_bytes());
        header.extend_from_slice(&self.vocab_size.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(self.tokenizer.as_bytes());
        header.extend_from_slice(self.hasher.finalize().as_bytes());
        header.resize(HEADER_BYTES, 0);
        header
    }

    /// The header last, then everything on disk, then the name: a shard with a name is whole.
    fn complete(&mut self, header: &[u8]) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(header)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        if let Some(partial) = &self.partial.0 {
            std::fs::rename(partial, &self.path)?;
        }
        self.partial.0 = None;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ShardError> {
        self.hasher.update(bytes);
        let written = self.out.write_all(bytes);
        written.map_err(|source| ShardError::Write { path: self.path.clone(), source })
    }
}
