//! The folder of a run's checkpoints: written, listed, verified, tidied.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use feilun_model::train::ParameterInfo;

use super::manifest::{self, MANIFEST, STATE, VerifyError};
use super::{CheckpointError, CheckpointState, tensors};
use crate::run::durable::{remove_if_there, rename, sync_directory, write_file};

/// Names in the folder: a checkpoint, and what a crash may leave behind.
const FINISHED: &str = "step-";
const WRITING: &str = ".writing-";
const REMOVING: &str = ".removing-";
const REFUSED: &str = "refused-";

/// The checkpoints of one run. The run's lock is held by whoever writes.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
}

/// A checkpoint whose every byte was verified.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: CheckpointState,
}

/// A checkpoint that is not used, and why.
#[derive(Debug)]
pub struct Refused {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: VerifyError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint `{}` is refused: {}", self.path.display(), self.reason)
    }
}

/// A checkpoint just written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of its tensors.
    pub bytes: u64,
}

impl Checkpoints {
    /// The checkpoints in a folder, which need not be there.
    pub fn new(root: PathBuf) -> Checkpoints {
        Checkpoints { root }
    }

    /// Makes the folder, and removes what a crash has left half-written or half-removed.
    ///
    /// # Errors
    /// When the disk does.
    pub fn prepare(&self) -> Result<(), CheckpointError> {
        let tidy = |source| CheckpointError::Tidy { path: self.root.clone(), source };
        fs::create_dir_all(&self.root).map_err(tidy)?;
        for name in self.names()? {
            if name.starts_with(WRITING) || name.starts_with(REMOVING) {
                remove_if_there(&self.root.join(name)).map_err(tidy)?;
            }
        }
        Ok(())
    }

    /// The steps of which there are checkpoints, ascending.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let names = self.names()?;
        let number = |name: &String| name.strip_prefix(FINISHED)?.parse().ok();
        let mut steps: Vec<u64> = names.iter().filter_map(number).collect();
        // Only names that are written just so: `step-7` and `step-00000007` are not both one.
        steps.retain(|&step| names.contains(&folder_name(step)));
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// Where the checkpoint of a step is.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(folder_name(step))
    }

    /// The newest checkpoint that verifies, and those newer ones that do not. `tensors` are the
    /// names of its files.
    ///
    /// # Errors
    /// When there are checkpoints and none verifies.
    pub fn newest(
        &self,
        tensors: &[&str],
    ) -> Result<(Option<Found>, Vec<Refused>), CheckpointError> {
        let steps = self.steps()?;
        let mut refused = Vec::new();
        for &step in steps.iter().rev() {
            let path = self.path(step);
            match manifest::verify(&path, step, tensors) {
                Ok(state) => return Ok((Some(Found { path, state }), refused)),
                Err(reason) => refused.push(Refused { path, reason }),
            }
        }
        if refused.is_empty() {
            return Ok((None, refused));
        }
        let newest = Box::new(refused.swap_remove(0));
        Err(CheckpointError::NoneVerifies { path: self.root.clone(), num: steps.len(), newest })
    }

    /// Renames a refused checkpoint, so that it is neither tried nor counted again.
    ///
    /// # Errors
    /// When the disk does.
    pub fn set_aside(&self, refused: &Refused) -> Result<(), CheckpointError> {
        let name = refused.path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.root.join(format!("{REFUSED}{name}"));
        let moved = remove_if_there(&aside).and_then(|()| rename(&refused.path, &aside));
        moved.map_err(|source| CheckpointError::Tidy { path: refused.path.clone(), source })
    }

    /// Writes a checkpoint. When this returns, it is on the disk, whole; when it fails, nothing
    /// of it is left and no other checkpoint was touched.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(
        &self,
        parameters: &[ParameterInfo],
        tensors: &[(&str, &[f32])],
        state: &CheckpointState,
    ) -> Result<Written, CheckpointError> {
        let path = self.path(state.step);
        let name = folder_name(state.step);
        let writing = self.root.join(format!("{WRITING}{name}"));
        let header = tensors::header(parameters);
        let bytes = tensors.iter().map(|(_, values)| tensors::file_bytes(&header, values)).sum();
        let written = write_files(&writing, &header, tensors, state)
            .and_then(|()| self.remove(&name))
            .and_then(|()| rename(&writing, &path));
        match written {
            Ok(()) => Ok(Written { path, bytes }),
            Err(source) => {
                // Room is what is missing most often; the error of the write says more than one
                // of this removal.
                let _ = remove_if_there(&writing);
                Err(CheckpointError::Write { path, bytes, source })
            }
        }
    }

    /// Fills the flat vectors from a verified checkpoint.
    ///
    /// # Errors
    /// When it was made with other parameters, or cannot be read.
    pub fn load(
        &self,
        found: &Found,
        parameters: &[ParameterInfo],
        name: &str,
        values: &mut [f32],
    ) -> Result<(), CheckpointError> {
        tensors::read(&found.path.join(name), parameters, values)
    }

    /// Removes all but the newest `keep_last` and the one of step `best`.
    ///
    /// # Errors
    /// When the disk does.
    pub fn retain(&self, keep_last: usize, best: Option<u64>) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        let num_old = steps.len().saturating_sub(keep_last.max(1));
        for &step in steps[..num_old].iter().filter(|&&step| Some(step) != best) {
            let name = folder_name(step);
            self.remove(&name)
                .map_err(|source| CheckpointError::Tidy { path: self.path(step), source })?;
        }
        Ok(())
    }

    /// Removes a checkpoint in one instant, as seen by a reader after a crash.
    fn remove(&self, name: &str) -> io::Result<()> {
        let (path, removing) = (self.root.join(name), self.root.join(format!("{REMOVING}{name}")));
        if !path.try_exists()? {
            return Ok(());
        }
        remove_if_there(&removing)?;
        rename(&path, &removing)?;
        remove_if_there(&removing)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let list = |source| CheckpointError::List { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(list)?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect::<io::Result<_>>().map_err(list)
    }
}

fn folder_name(step: u64) -> String {
    format!("{FINISHED}{step:08}")
}

fn write_files(
    folder: &Path,
    header: &[u8],
    tensors: &[(&str, &[f32])],
    state: &CheckpointState,
) -> io::Result<()> {
    remove_if_there(folder)?;
    fs::create_dir(folder)?;
    let mut files = Vec::new();
    for &(name, values) in tensors {
        let write = |writer: &mut dyn io::Write| tensors::write(writer, header, values);
        files.push((name.to_owned(), write_file(&folder.join(name), write)?));
    }
    let state = serde_json::to_vec(state)?;
    let digest = write_file(&folder.join(STATE), |writer| writer.write_all(&state))?;
    files.push((STATE.to_owned(), digest));
    let manifest = manifest::to_bytes(files)?;
    write_file(&folder.join(MANIFEST), |writer| writer.write_all(&manifest))?;
    sync_directory(folder)
}

#[cfg(test)]
mod tests;
