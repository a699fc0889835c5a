//! A file in memory without reading it: the one place of this crate that is unsafe.

#![expect(unsafe_code, reason = "memory maps: a file may change under the map")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

/// A read-only map of a whole regular file.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file (not a folder, not a pipe).
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the map is read-only and private to this process. Model files are immutable by
        // contract (named by content digest); if someone rewrites one in place, bytes change
        // between reads, and every reader here checks what it reads at the time it reads it, so
        // the worst is a wrong weight. Truncation in place ends the process with SIGBUS, as it
        // does every program that maps model files.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(MappedFile { path: path.to_owned(), map })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that these bytes are not needed soon. Their pages leave the resident
    /// memory of this process and come back from the file when they are read again.
    pub fn advise_dont_need(&self, range: Range<usize>) -> io::Result<()> {
        if range.start >= range.end || range.end > self.map.len() {
            return Ok(());
        }
        #[cfg(unix)]
        {
            let len = range.end - range.start;
            // SAFETY: MADV_DONTNEED loses data only in anonymous or private-dirty pages; this
            // map is of a file and was never writable, so a later read gets the same bytes.
            unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    len,
                )?;
            }
        }
        Ok(())
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}
