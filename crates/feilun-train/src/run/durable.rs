//! Files that are there after a crash, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Large enough that a disk is kept busy, small beside any model.
const BUFFER_BYTES: usize = 1 << 20;

/// What a file must be to be the one that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileDigest {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// Counts and digests what passes through.
struct Digesting<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a new file and waits until it is on the disk.
pub(super) fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<FileDigest> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let buffered = BufWriter::with_capacity(BUFFER_BYTES, &file);
    let mut writer = Digesting { inner: buffered, hasher: blake3::Hasher::new(), bytes: 0 };
    content(&mut writer)?;
    writer.flush()?;
    let digest =
        FileDigest { bytes: writer.bytes, blake3: writer.hasher.finalize().to_hex().to_string() };
    drop(writer);
    file.sync_all()?;
    Ok(digest)
}

/// The digest of a file as it is.
pub(super) fn digest_file(path: &Path) -> io::Result<FileDigest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(FileDigest { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// A small file at most `max_bytes` long.
pub(super) fn read_small(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("more than {max_bytes} bytes, expected fewer");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Makes names that were created, renamed or removed in a directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates or replaces a small file in one instant.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let writing = path.with_extension("writing");
    remove_if_there(&writing)?;
    write_file(&writing, |writer| writer.write_all(bytes))?;
    rename(&writing, path)
}

/// Renames within a directory, to last.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
