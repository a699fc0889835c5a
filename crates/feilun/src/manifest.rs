//! What an installed model consists of: `manifest.json` in its folder.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::model_name::ModelName;

pub(crate) const FILE_NAME: &str = "manifest.json";

/// Read by this program alone; a later form gets a higher number.
const FORMAT: u32 = 1;

/// A manifest is a few hundred bytes for each file; more is not ours.
const MAX_BYTES: u64 = 1 << 20;

/// An installed model: where it came from and what every file must be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) name: String,
    /// As `feilun pull` understands it.
    pub(crate) source: String,
    /// A package's version or a repository's commit.
    pub(crate) version: Option<String>,
    pub(crate) licence: Option<String>,
    /// Key of the terms that were accepted at pull.
    pub(crate) terms: Option<String>,
    /// Sorted by name.
    pub(crate) files: Vec<FileEntry>,
    /// Names the model by its content, as `ModelFiles::digest` does: `blake3:...`.
    pub(crate) digest: String,
    /// RFC 3339, UTC.
    pub(crate) pulled_at: String,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Where a model came from, as the manifest tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) source: String,
    pub(crate) version: Option<String>,
    pub(crate) licence: Option<String>,
    pub(crate) terms: Option<String>,
}

impl Manifest {
    pub(crate) fn new(
        name: &ModelName,
        origin: Origin,
        mut files: Vec<FileEntry>,
        digest: String,
    ) -> Manifest {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
        Manifest {
            format: FORMAT,
            name: name.to_string(),
            source: origin.source,
            version: origin.version,
            licence: origin.licence,
            terms: origin.terms,
            files,
            digest,
            pulled_at: now.to_string(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// The digest without its kind.
    pub(crate) fn digest_hex(&self) -> &str {
        self.digest.rsplit(':').next().unwrap_or_default()
    }

    fn fault(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("format {}, expected {FORMAT}", self.format));
        }
        if let Some(file) = self.files.iter().find(|file| !is_plain_file_name(&file.name)) {
            return Some(format!("`{}` is no plain file name", file.name));
        }
        let is_digest =
            |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
        let digests = self.files.iter().map(|file| file.sha256.as_str()).chain([self.digest_hex()]);
        let bad = digests.into_iter().find(|digest| !is_digest(digest));
        bad.map(|digest| format!("`{digest}` is no digest"))
    }
}

/// One path component, and none that is hidden.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Reads and checks the manifest in a model's folder.
pub(crate) fn read(folder: &Path) -> Outcome<Manifest> {
    let path = folder.join(FILE_NAME);
    let parse = || -> Outcome<Manifest> {
        let mut text = String::new();
        File::open(&path)?.take(MAX_BYTES).read_to_string(&mut text)?;
        let manifest: Manifest = serde_json::from_str(&text)?;
        match manifest.fault() {
            Some(fault) => Err(Failure::failed(fault)),
            None => Ok(manifest),
        }
    };
    parse().doing(|| format!("cannot read {}", path.display()))
}

/// SHA-256 of a file, in lower-case hexadecimal. `progress` hears of every chunk's bytes.
pub(crate) fn sha256_of(path: &Path, mut progress: impl FnMut(u64)) -> Outcome<String> {
    let mut hash = || -> Outcome<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let num_bytes = file.read(&mut buffer)?;
            if num_bytes == 0 {
                return Ok(hex(&hasher.finalize()));
            }
            hasher.update(&buffer[..num_bytes]);
            progress(num_bytes as u64);
        }
    };
    hash().doing(|| format!("cannot read {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> FileEntry {
        FileEntry { name: name.to_owned(), bytes: 3, sha256: "ab".repeat(32) }
    }

    fn manifest(files: Vec<FileEntry>) -> Manifest {
        let digest = format!("blake3:{}", "cd".repeat(32));
        Manifest::new(&"m".parse().unwrap(), Origin::default(), files, digest)
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_a_wrong_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let written = manifest(vec![entry("a")]);
        let write = |manifest: &Manifest| {
            let text = serde_json::to_vec(manifest).unwrap();
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            read(folder.path())
        };
        assert_eq!(write(&written).unwrap().digest, written.digest);
        let mut bad = written.clone();
        bad.files[0].sha256 = "../../x".to_owned();
        assert!(write(&bad).is_err());
        bad = written.clone();
        bad.digest = "blake3:".to_owned();
        assert!(write(&bad).is_err());
        let mut escaping = manifest(vec![entry("../a")]);
        assert!(write(&escaping).is_err());
        escaping.format = 2;
        assert!(write(&escaping).is_err());
    }
}
