//! Bytes of files, in a folder, each named by its digest: `blobs/ab/abcdef...`.
//!
//! A blob is written under another name in `blobs/incoming`, synced and renamed, so under its
//! own name it is whole or not there. Everything here blocks; callers within async code use a
//! thread for it. It knows no rows: [`crate::files`] says which blobs are needed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::BlobDigest;
use crate::error::StoreError;

const INCOMING: &str = "incoming";
/// An upload to which nothing was added for so long was left by a crash.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);
/// Files that one opening looks at, so that it takes no time to speak of; the next looks further.
const SWEPT_MAX: usize = 10_000;

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

/// A blob that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    path: TemporaryPath,
    hasher: blake3::Hasher,
    size_bytes: u64,
    bytes_max: u64,
}

/// A blob that is whole and on the disk, but not yet under its name. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct StagedBlob {
    path: TemporaryPath,
    digest: BlobDigest,
    size_bytes: u64,
}

/// Removes its file when dropped.
#[derive(Debug)]
struct TemporaryPath(PathBuf);

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        // Usually it was renamed. What a crash leaves here is swept later.
        let _ = fs::remove_file(&self.0);
    }
}

impl Blobs {
    /// Makes the folder where it is missing, and removes what a crash left in it.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        let incoming = folder.join(INCOMING);
        fs::create_dir_all(&incoming).map_err(StoreError::io("create", &incoming))?;
        sweep(&incoming, SystemTime::now()).map_err(StoreError::io("sweep", &incoming))?;
        Ok(Self { folder })
    }

    /// Begins a blob of at most `bytes_max` bytes.
    pub(crate) fn writer(&self, bytes_max: u64) -> Result<BlobWriter, StoreError> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let path = TemporaryPath(self.folder.join(INCOMING).join(name));
        let mut open = File::options();
        open.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let file = open.open(&path.0).map_err(StoreError::io("create", &path.0))?;
        Ok(BlobWriter { file, path, hasher: blake3::Hasher::new(), size_bytes: 0, bytes_max })
    }

    /// Gives a staged blob its name. The same bytes under the same name are replaced by
    /// themselves.
    pub(crate) fn keep(&self, staged: &StagedBlob) -> Result<(), StoreError> {
        let path = self.path(staged.digest);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        fs::rename(&staged.path.0, &path).map_err(StoreError::io("rename", &staged.path.0))?;
        sync_folder(folder)?;
        sync_folder(&self.folder)
    }

    /// The bytes of this name, to be read.
    pub(crate) fn read(&self, digest: BlobDigest) -> Result<File, StoreError> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoSuchBlob(digest),
            _ => StoreError::io("open", path)(error),
        })
    }

    /// Removes the bytes of this name, if they are there.
    pub(crate) fn remove(&self, digest: BlobDigest) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn path(&self, digest: BlobDigest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(name)
    }
}

/// Removes what nobody has written to for so long that nobody is writing it. Several processes
/// may have the folder open, so what is younger may be somebody's.
fn sweep(incoming: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(incoming)?.take(SWEPT_MAX) {
        let entry = entry?;
        // What cannot be looked at or removed, or is gone by now, does no harm.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().map(|time| now.duration_since(time).unwrap_or_default());
        if metadata.is_file() && age.is_ok_and(|age| age > ABANDONED_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl BlobWriter {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if size_bytes > self.bytes_max {
            return Err(StoreError::BlobTooLarge { bytes_max: self.bytes_max });
        }
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.path.0))?;
        self.hasher.update(bytes);
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// Waits until all bytes are on the disk.
    pub fn finish(self) -> Result<StagedBlob, StoreError> {
        self.file.sync_all().map_err(StoreError::io("sync", &self.path.0))?;
        let digest = BlobDigest::from_bytes(self.hasher.finalize().into());
        Ok(StagedBlob { path: self.path, digest, size_bytes: self.size_bytes })
    }
}

impl StagedBlob {
    /// Its name to be.
    pub fn digest(&self) -> BlobDigest {
        self.digest
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Its bytes, to be read before anybody decides whether to keep them.
    pub fn open(&self) -> Result<File, StoreError> {
        File::open(&self.path.0).map_err(StoreError::io("open", &self.path.0))
    }
}

/// The digest of everything that `source` still gives, which is written to `target` too.
pub(crate) fn copy_digested(
    mut source: impl io::Read,
    mut target: impl io::Write,
) -> io::Result<(BlobDigest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size_bytes = 0;
    loop {
        let length = source.read(&mut buffer)?;
        if length == 0 {
            return Ok((BlobDigest::from_bytes(hasher.finalize().into()), size_bytes));
        }
        hasher.update(&buffer[..length]);
        target.write_all(&buffer[..length])?;
        size_bytes += length as u64;
    }
}

/// Makes names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_blob_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let mut writer = blobs.writer(10).unwrap();
        writer.write(b"hello ").unwrap();
        writer.write(b"you").unwrap();
        let staged = writer.finish().unwrap();
        assert!(matches!(blobs.read(staged.digest()), Err(StoreError::NoSuchBlob(_))));
        blobs.keep(&staged).unwrap();
        let digest = staged.digest();
        assert_eq!(digest.as_bytes(), blake3::hash(b"hello you").as_bytes());
        drop(staged);
        let mut text = String::new();
        blobs.read(digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello you");
        assert_eq!(names(&folder.path().join(INCOMING)), 0);
        blobs.remove(digest).unwrap();
        blobs.remove(digest).unwrap();
        assert!(matches!(blobs.read(digest), Err(StoreError::NoSuchBlob(_))));
    }

    #[test]
    fn a_blob_has_a_limit_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let mut writer = blobs.writer(3).unwrap();
        writer.write(b"abc").unwrap();
        assert!(matches!(writer.write(b"d"), Err(StoreError::BlobTooLarge { bytes_max: 3 })));
        drop(writer);
        assert_eq!(names(&folder.path().join(INCOMING)), 0);
    }

    #[test]
    fn what_a_crash_left_is_swept_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = folder.path().join(INCOMING);
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let mut writer = blobs.writer(10).unwrap();
        writer.write(b"new").unwrap();
        let left = incoming.join("left");
        let file = File::create(&left).unwrap();
        let long_ago = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        file.set_modified(long_ago).unwrap();
        Blobs::open(folder.path().to_owned()).unwrap();
        assert!(!left.exists());
        blobs.keep(&writer.finish().unwrap()).unwrap();
    }
}
