//! Evaluations on disk.
//!
//! ```text
//! ROOT/ID/manifest.json      what it is of, and how it went
//! ROOT/ID/items.jsonl        the result of each item, a line each; added to and synced as they come
//! ROOT/ID/lock               locked while a process works here
//! ROOT/ID/...                cards
//! ROOT/suites/DIGEST.jsonl   the items that were asked
//! ```
//!
//! The id follows from what is evaluated ([`Identity`]), so the same command finds what was
//! broken off, and goes on with it. Results depend on nothing else, so what was broken off ends
//! with the file of a run that was not, byte for byte.

mod card;
mod error;
mod figures;
mod items;
mod manifest;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub use self::card::{Card, unit};
pub use self::error::ResultsError;
pub use self::figures::{Figure, Pairs};
use self::items::{Appender, replace_file};
pub use self::manifest::{ID_CHARS, Identity, Manifest};
use crate::run::ItemResult;
use crate::suite::Suite;

const MANIFEST: &str = "manifest.json";
const ITEMS: &str = "items.jsonl";
const LOCK: &str = "lock";
const SUITES: &str = "suites";
/// A manifest is a page of names, digests and numbers; a scorer's settings may be in it.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The directory of all evaluations.
#[derive(Clone, Debug)]
pub struct Evaluations {
    root: PathBuf,
}

/// A stored evaluation, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// What it is of.
    pub manifest: Manifest,
    /// What came of the items, in the order of the file.
    pub results: Vec<ItemResult>,
}

impl Evaluation {
    /// Items that contribute nothing, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        self.results.iter().filter_map(|r| Some((r.id.as_str(), r.problem.as_deref()?)))
    }
}

impl Evaluations {
    /// Those under a directory, which need not be there.
    pub fn new(root: &Path) -> Evaluations {
        Evaluations { root: root.to_owned() }
    }

    /// The directory of one.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// All manifests, oldest first; those that cannot be read come with the reason.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Result<Manifest, ResultsError>>, ResultsError> {
        let mut all: Vec<_> = self.ids()?.iter().map(|id| self.manifest(id)).collect();
        all.sort_by_key(|manifest| manifest.as_ref().map_or(0, |m| m.begun));
        Ok(all)
    }

    fn ids(&self) -> Result<Vec<String>, ResultsError> {
        let io = |source| ResultsError::Io { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            let name = name.to_string_lossy();
            if name.len() == ID_CHARS && name.chars().all(|c| c.is_ascii_hexdigit()) {
                ids.push(name.into_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    fn manifest(&self, id: &str) -> Result<Manifest, ResultsError> {
        let path = self.folder(id).join(MANIFEST);
        let io = |source| ResultsError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(io)?;
        file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(ResultsError::TooMuch { path, what: "bytes", max: bytes.len() - 1 });
        }
        serde_json::from_slice(&bytes).map_err(|source| ResultsError::Json { path, source })
    }

    /// The evaluation whose id begins like this.
    ///
    /// # Errors
    /// When there is none, or more than one, or it cannot be read.
    pub fn find(&self, beginning: &str) -> Result<Evaluation, ResultsError> {
        let wanted = beginning.to_owned();
        let mut found = self.ids()?;
        found.retain(|id| id.starts_with(beginning));
        match &found[..] {
            [] => Err(ResultsError::NotFound { wanted }),
            [id] => self.read(id),
            several => Err(ResultsError::Ambiguous { wanted, found: several.join(", ") }),
        }
    }

    /// One evaluation. A result that is half there, because it is being written, is left out.
    fn read(&self, id: &str) -> Result<Evaluation, ResultsError> {
        let manifest = self.manifest(id)?;
        let stored = items::read(&self.folder(id).join(ITEMS))?;
        match stored.damage {
            Some(damage) if manifest.finished.is_some() => Err(damage),
            _ => Ok(Evaluation { manifest, results: stored.results }),
        }
    }

    /// The items that an evaluation was asked.
    ///
    /// # Errors
    /// When they cannot be read, or are not what they were.
    pub fn suite(&self, manifest: &Manifest) -> Result<Suite, ResultsError> {
        let wanted = &manifest.identity.suite_digest;
        let path = self.suite_path(wanted);
        let io = |source| ResultsError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let suite = Suite::read(BufReader::new(file), &manifest.suite).map_err(io)?;
        let suite = suite.map_err(|source| ResultsError::Suite { path: path.clone(), source })?;
        let found = suite.digest().to_hex().to_string();
        if found != *wanted {
            return Err(ResultsError::SuiteDigest { path, found });
        }
        Ok(suite)
    }

    fn suite_path(&self, digest: &str) -> PathBuf {
        self.root.join(SUITES).join(format!("{digest}.jsonl"))
    }

    /// Begins an evaluation, or goes on with one of the same identity.
    ///
    /// # Errors
    /// When another process works on it, or the disk does not play along.
    pub fn begin(
        &self,
        manifest: Manifest,
        suite: &Suite,
        again: bool,
    ) -> Result<Ongoing, ResultsError> {
        let folder = self.folder(&manifest.id);
        let io = |source| ResultsError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(io)?;
        fs::create_dir_all(self.root.join(SUITES)).map_err(io)?;
        let lock = lock(&folder, &manifest.id)?;
        let path = self.suite_path(&manifest.identity.suite_digest);
        if !path.exists() {
            replace_file(&path, suite.to_lines().as_bytes())?;
        }
        let path = folder.join(ITEMS);
        // A manifest that cannot be read is one that was never finished being written.
        let manifest = match self.manifest(&manifest.id) {
            Ok(stored) if !again => stored,
            _ => {
                let items = if again { fs::remove_file(&path) } else { Ok(()) };
                items.or_else(only_missing).map_err(io)?;
                manifest
            }
        };
        let stored = items::read(&path)?;
        let done: HashSet<String> = stored.results.iter().map(|r| r.id.clone()).collect();
        let mut wanted = suite.items().iter().take(manifest.num_items);
        let is_finished = manifest.finished.is_some()
            && stored.damage.is_none()
            && wanted.all(|item| done.contains(&item.id));
        let ongoing = Ongoing {
            items: Appender::open(&path, stored.good_bytes)?,
            manifest: Manifest { finished: manifest.finished.filter(|_| is_finished), ..manifest },
            folder,
            done,
            damage: stored.damage,
            start: Instant::now(),
            _lock: lock,
        };
        ongoing.write_manifest()?;
        Ok(ongoing)
    }
}

fn only_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// How long to wait for whoever only looks at the lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

fn lock(folder: &Path, id: &str) -> Result<File, ResultsError> {
    let path = folder.join(LOCK);
    let io = |source| ResultsError::Io { path: path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(io)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PATIENCE / 10);
            }
            Err(TryLockError::WouldBlock) => return Err(ResultsError::Locked { id: id.into() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
}

/// An evaluation that is being worked on, locked for as long as this lives.
#[derive(Debug)]
pub struct Ongoing {
    folder: PathBuf,
    manifest: Manifest,
    items: Appender,
    done: HashSet<String>,
    damage: Option<ResultsError>,
    start: Instant,
    _lock: File,
}

impl Ongoing {
    /// What it is of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where cards go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ids of the items that have a result.
    pub fn done(&self) -> &HashSet<String> {
        &self.done
    }

    /// Why stored results after the last of [`Ongoing::done`] were given up, where any were.
    pub fn damage(&self) -> Option<&ResultsError> {
        self.damage.as_ref()
    }

    /// Keeps results: when this returns they are on the disk.
    ///
    /// # Errors
    /// When the disk does not play along.
    pub fn keep(&mut self, results: &[ItemResult]) -> Result<(), ResultsError> {
        self.items.append(results)?;
        self.done.extend(results.iter().map(|result| result.id.clone()));
        Ok(())
    }

    /// Notes the time so far: the evaluation goes on another day.
    ///
    /// # Errors
    /// When the disk does not play along.
    pub fn pause(mut self) -> Result<(), ResultsError> {
        self.note_time();
        self.write_manifest()
    }

    /// All items have a result: puts them into the suite's order, and notes the end.
    ///
    /// # Errors
    /// When the disk does not play along.
    pub fn finish(mut self, suite: &Suite) -> Result<Evaluation, ResultsError> {
        let items = suite.items().iter().enumerate();
        let order: HashMap<&str, usize> = items.map(|(i, item)| (item.id.as_str(), i)).collect();
        let path = self.folder.join(ITEMS);
        items::sort(&path, &order)?;
        if self.manifest.finished.is_none() {
            self.note_time();
            self.manifest.finished = Some(now());
            self.write_manifest()?;
        }
        let stored = items::read(&path)?;
        match stored.damage {
            Some(damage) => Err(damage),
            None => Ok(Evaluation { manifest: self.manifest, results: stored.results }),
        }
    }

    fn note_time(&mut self) {
        self.manifest.seconds += self.start.elapsed().as_secs_f64();
        self.start = Instant::now();
    }

    fn write_manifest(&self) -> Result<(), ResultsError> {
        let path = self.folder.join(MANIFEST);
        let mut bytes = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|source| ResultsError::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        replace_file(&path, &bytes)
    }
}

/// Seconds since 1970, by the machine's clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
