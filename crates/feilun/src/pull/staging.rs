//! The folder where a pull gathers its files, and the one step that makes them a model.
//!
//! A crash at any moment leaves either no model or a complete one: files are written and synced
//! under `.partial/NAME`, and one rename puts them in place.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{self, FileEntry, Manifest, Origin};
use crate::model_name::ModelName;
use crate::output;

/// Left free on the disk by a pull.
const DISK_MARGIN_BYTES: u64 = 64 << 20;

/// A pull on its way. While it lives, no other pull of the same name can start.
#[derive(Debug)]
pub(crate) struct Staging {
    name: ModelName,
    data: DataDir,
    root: PathBuf,
    /// The lock is the open file's; it goes with the process, however that ends.
    _lock: File,
}

impl Staging {
    /// Opens or resumes the pull of `name`.
    pub(crate) fn open(data: &DataDir, name: &ModelName) -> Outcome<Staging> {
        let partials = data.partials();
        fs::create_dir_all(&partials)
            .doing(|| format!("cannot create {}", partials.display()))
            .hint("choose another place with --data DIR")?;
        let lock = lock(data, name)?;
        let root = partials.join(name.as_str());
        let staging = Staging { name: name.clone(), data: data.clone(), root, _lock: lock };
        // Left by a process that was killed while it removed an older model.
        let _ = fs::remove_dir_all(staging.aside());
        fs::create_dir_all(staging.files())?;
        fs::create_dir_all(staging.scratch())?;
        Ok(staging)
    }

    /// For files that will be the model's, complete under their own names.
    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// For what is on its way: downloads, packages.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Where an older model goes before it is deleted.
    fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    /// Refuses a transfer that the disk cannot hold.
    pub(crate) fn require_disk(&self, bytes: u64) -> Outcome {
        let stat = rustix::fs::statvfs(&self.root)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed = bytes.saturating_add(DISK_MARGIN_BYTES);
        if free >= needed {
            return Ok(());
        }
        let (free, needed) = (output::bytes(free), output::bytes(needed));
        let place = self.data.path().display();
        Err(Failure::failed(format!("the disk of {place} has {free} free, {needed} are needed"))
            .hint("free some space, or choose another place with --data DIR"))
    }

    /// Gives up what was gathered.
    pub(crate) fn discard(self) -> Outcome {
        Ok(fs::remove_dir_all(&self.root)?)
    }

    /// Puts the gathered files in place as a model.
    pub(crate) fn install(
        self,
        origin: Origin,
        files: Vec<FileEntry>,
        digest: String,
    ) -> Outcome<Manifest> {
        let folder = self.files();
        remove_strays(&folder, &files)?;
        let manifest = Manifest::new(&self.name, origin, files, digest);
        fs::write(folder.join(manifest::FILE_NAME), serde_json::to_vec_pretty(&manifest)?)?;
        for entry in fs::read_dir(&folder)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&folder)?.sync_all()?;
        let place = self.data.model(&self.name);
        // An older model of that name goes with the rest of the staging folder.
        if place.exists() {
            fs::rename(&place, self.aside())?;
        }
        fs::rename(&folder, &place).doing(|| format!("cannot install {}", place.display()))?;
        File::open(self.data.models())?.sync_all()?;
        fs::remove_dir_all(&self.root)?;
        Ok(manifest)
    }
}

/// What an earlier pull from another source may have left here is not part of this model.
fn remove_strays(folder: &Path, files: &[FileEntry]) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !files.iter().any(|file| entry.file_name() == file.name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Takes the lock of a model's name, or says who has it.
fn lock(data: &DataDir, name: &ModelName) -> Outcome<File> {
    let path = data.partials().join(format!("{name}.lock"));
    let file = File::create(&path).doing(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::failed(format!("another `feilun` is busy with the model `{name}`"))
                .hint("wait for it to end, then try again"))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Removes an installed model: out of sight in one rename, then from the disk.
pub(crate) fn remove(data: &DataDir, name: &ModelName) -> Outcome {
    let staging = Staging::open(data, name)?;
    fs::rename(data.model(name), staging.aside())
        .doing(|| format!("cannot remove {}", data.model(name).display()))?;
    fs::remove_dir_all(&staging.root)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(staging: &Staging, name: &str, content: &str) -> FileEntry {
        let path = staging.files().join(name);
        fs::write(&path, content).unwrap();
        FileEntry {
            name: name.to_owned(),
            bytes: content.len() as u64,
            sha256: manifest::sha256_of(&path, |_| ()).unwrap(),
        }
    }

    #[test]
    fn a_model_appears_whole_and_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path().to_owned());
        let name: ModelName = "m".parse().unwrap();
        for content in ["old", "new"] {
            let staging = Staging::open(&data, &name).unwrap();
            fs::write(staging.files().join("stray"), "x").unwrap();
            let files = vec![entry(&staging, "a.gguf", content)];
            let digest = "ab".repeat(32);
            staging.install(Origin::default(), files, digest).unwrap();
            assert_eq!(fs::read_to_string(data.model(&name).join("a.gguf")).unwrap(), content);
            assert!(!data.model(&name).join("stray").exists());
            assert!(!data.partials().join("m").exists());
        }
        let installed = data.installed().unwrap();
        assert_eq!(installed.len(), 1);
        assert!(installed[0].1.is_ok());
        remove(&data, &name).unwrap();
        assert!(data.installed().unwrap().is_empty());
    }

    #[test]
    fn one_pull_of_a_name_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path().to_owned());
        let (a, b): (ModelName, ModelName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = Staging::open(&data, &a).unwrap();
        assert!(Staging::open(&data, &a).is_err());
        Staging::open(&data, &b).unwrap();
        drop(first);
        Staging::open(&data, &a).unwrap();
    }

    #[test]
    fn a_full_disk_is_said_before_the_transfer() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path().to_owned());
        let staging = Staging::open(&data, &"a".parse().unwrap()).unwrap();
        staging.require_disk(0).unwrap();
        assert!(staging.require_disk(u64::MAX).is_err());
    }
}
