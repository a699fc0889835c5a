//! Models that lie on this machine already.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{FileEntry, sha256_of};
use crate::pull::{is_gguf, one_model, progress::Progress};

/// The files of the model at `path`: the file itself, or those of a folder.
pub(crate) fn files(path: &Path) -> Outcome<Vec<PathBuf>> {
    if path.is_file() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_gguf(name) {
            return Ok(vec![path.to_owned()]);
        }
        return Err(Failure::failed(format!(
            "{}: expected a .gguf file or a folder",
            path.display()
        )));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).doing(|| format!("cannot read {}", path.display()))? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    let chosen = one_model(&names, None)
        .map_err(|fault| Failure::failed(format!("{}: {fault}", path.display())))?;
    Ok(chosen.into_iter().map(|name| path.join(name)).collect())
}

/// Copies one file into `folder` and digests the copy. The original stays the user's: changing
/// it later does not change the model.
pub(crate) fn copy(path: &Path, folder: &Path) -> Outcome<FileEntry> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !crate::manifest::is_plain_file_name(&name) {
        return Err(Failure::failed(format!("{}: no plain file name", path.display()))
            .hint("rename it: letters, digits, `-`, `_` and `.`"));
    }
    let target = folder.join(&name);
    let progress = Progress::start(&format!("copying {name}"), fs::metadata(path)?.len())?;
    let bytes = fs::copy(path, &target).doing(|| format!("cannot copy {}", path.display()))?;
    let sha256 = sha256_of(&target, |num_bytes| progress.add(num_bytes))?;
    Ok(FileEntry { name, bytes, sha256 })
}
