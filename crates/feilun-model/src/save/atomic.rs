//! Files and folders that appear whole or not at all: written under a temporary name beside the
//! target, synced, then renamed.
//!
//! The temporary name depends on the target alone, so that what a killed process left behind is
//! removed by the next attempt. Two processes that write to one target at the same time are the
//! caller's to prevent (a run has a lock on its directory).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::SaveError;

/// A file or folder on its way to its name.
#[derive(Debug)]
pub(super) struct Pending {
    target: PathBuf,
    /// Removed when this is dropped before [`Pending::commit`].
    temporary: PathBuf,
}

impl Pending {
    /// Refuses a target that exists, unless it is an empty folder.
    pub(super) fn new(target: &Path) -> Result<Pending, SaveError> {
        let is_empty_folder = || fs::read_dir(target).is_ok_and(|mut all| all.next().is_none());
        if target.symlink_metadata().is_ok() && !is_empty_folder() {
            return Err(SaveError::Exists { path: target.to_owned() });
        }
        let Some(name) = target.file_name() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "no name to write to");
            return Err(SaveError::Io { path: target.to_owned(), source });
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(SaveError::io(parent))?;
        let temporary = target.with_file_name(hidden);
        let pending = Pending { target: target.to_owned(), temporary };
        pending.clear();
        Ok(pending)
    }

    /// Makes the folder, and says where it is for now.
    pub(super) fn create_folder(&self) -> Result<&Path, SaveError> {
        fs::create_dir(&self.temporary).map_err(SaveError::io(&self.temporary))?;
        Ok(&self.temporary)
    }

    /// Where it is for now.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives it its name. Files in a folder must be synced already, as [`write`] does.
    pub(super) fn commit(self) -> Result<(), SaveError> {
        sync(&self.temporary)?;
        fs::rename(&self.temporary, &self.target).map_err(SaveError::io(&self.target))?;
        sync(parent(&self.target))
    }

    fn clear(&self) {
        // Usually there is nothing to remove; if removing fails, creating will say so.
        if self.temporary.is_dir() {
            let _ = fs::remove_dir_all(&self.temporary);
        } else {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Writes a file and syncs it.
pub(super) fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<(), WriteError>,
) -> Result<(), SaveError> {
    let file = File::create_new(path).map_err(SaveError::io(path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    content(&mut out).map_err(|error| error.at(path))?;
    let file = out.into_inner().map_err(|error| SaveError::io(path)(error.into_error()))?;
    file.sync_all().map_err(SaveError::io(path))
}

/// What may go wrong while a file's content is written: the disk, or the content.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Content(#[from] SaveError),
}

impl WriteError {
    fn at(self, path: &Path) -> SaveError {
        match self {
            WriteError::Io(source) => SaveError::Io { path: path.to_owned(), source },
            WriteError::Content(error) => error,
        }
    }
}

/// The folder that a path lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync(path: &Path) -> Result<(), SaveError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(SaveError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("deep/a.bin");
        let pending = Pending::new(&target).unwrap();
        write(pending.path(), |out| Ok(out.write_all(b"all of it")?)).unwrap();
        assert_eq!(names(&place.path().join("deep")), [".a.bin.partial"]);
        pending.commit().unwrap();
        assert_eq!(names(&place.path().join("deep")), ["a.bin"]);
        assert!(matches!(Pending::new(&target), Err(SaveError::Exists { .. })));
    }

    #[test]
    fn failure_leaves_nothing_and_a_killed_attempt_is_cleared() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        // As a killed process would leave it.
        fs::create_dir(place.path().join(".model.partial")).unwrap();
        fs::write(place.path().join(".model.partial/half"), "x").unwrap();
        let pending = Pending::new(&target).unwrap();
        let folder = pending.create_folder().unwrap();
        let full = |_: &mut dyn Write| Err(io::Error::from(io::ErrorKind::StorageFull).into());
        let error = write(&folder.join("weights"), full).unwrap_err();
        assert!(error.to_string().contains("weights"), "{error}");
        drop(pending);
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn an_empty_folder_is_filled_and_a_full_one_refused() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        fs::create_dir(&target).unwrap();
        let pending = Pending::new(&target).unwrap();
        write(&pending.create_folder().unwrap().join("a"), |_| Ok(())).unwrap();
        pending.commit().unwrap();
        assert_eq!(names(&target), ["a"]);
        assert!(matches!(Pending::new(&target), Err(SaveError::Exists { .. })));
    }
}
