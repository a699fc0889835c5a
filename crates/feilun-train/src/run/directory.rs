//! The directory of a run, and the lock that keeps a second process out of it.
//!
//! ```text
//! RUN/config.json     the resolved configuration; fixed for the life of the run
//! RUN/metrics.jsonl   what happened, a line each
//! RUN/checkpoints/    see `checkpoint`
//! RUN/lock            locked while a process works here; holds its number
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checkpoint::Checkpoints;
use super::durable::{read_small, replace_file, sync_directory};
use super::settings::{differences, digest};

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = "lock";
/// A configuration is written by hand or by a command line.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// A process number with its line end, and some room.
const MAX_PID_BYTES: u64 = 32;

/// Why a run's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DirectoryError {
    #[error("cannot use `{path}`")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "`{path}` is in use by process {}: wait for it or stop it", .pid.as_deref().unwrap_or("?")
    )]
    Locked { path: PathBuf, pid: Option<String> },
    #[error("`{path}` is no run: it has no config.json, but found `{found}`")]
    NotARun { path: PathBuf, found: String },
    #[error("`{path}` is not a configuration that this version knows")]
    Config { path: PathBuf, source: serde_json::Error },
    #[error(
        "`{path}` was begun with another configuration; stored and asked for: {}. Resume it \
         as it was begun, or take a new directory", .differences.join("; ")
    )]
    OtherConfig { path: PathBuf, differences: Vec<String> },
}

/// A run's directory, locked for as long as this lives.
#[derive(Debug)]
pub struct RunDirectory {
    root: PathBuf,
    config_digest: String,
    /// The operating system unlocks it when it is closed, also after a crash.
    _lock: File,
}

impl RunDirectory {
    /// Begins a run, or goes on with one that was begun with the same configuration.
    ///
    /// # Errors
    /// When it is in use, is something else, or has another configuration.
    pub fn begin<C: Serialize>(root: &Path, config: &C) -> Result<RunDirectory, DirectoryError> {
        let io = |source| DirectoryError::Io { path: root.to_owned(), source };
        let path = root.join(CONFIG);
        let json = |source| DirectoryError::Config { path: path.clone(), source };
        let wanted = serde_json::to_value(config).map_err(json)?;
        fs::create_dir_all(root).map_err(io)?;
        let is_begun = path.try_exists().map_err(io)?;
        if !is_begun {
            refuse_foreign_files(root)?;
        }
        let lock = lock(root)?;
        if is_begun {
            let stored: serde_json::Value = read_config(&path)?;
            let differences = differences(&stored, &wanted);
            if !differences.is_empty() {
                return Err(DirectoryError::OtherConfig { path: root.to_owned(), differences });
            }
        } else {
            let mut text = serde_json::to_vec_pretty(&wanted).map_err(json)?;
            text.push(b'\n');
            replace_file(&path, &text).map_err(io)?;
            // The directory itself must last too, with the name under which it was made.
            let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new("."))).map_err(io)?;
        }
        let config_digest = digest(&wanted).map_err(json)?;
        Ok(RunDirectory { root: root.to_owned(), config_digest, _lock: lock })
    }

    /// Goes on with a run as it was begun.
    ///
    /// # Errors
    /// As [`RunDirectory::begin`], and when there is no run.
    pub fn resume<C: Serialize + DeserializeOwned>(
        root: &Path,
    ) -> Result<(RunDirectory, C), DirectoryError> {
        let config = RunFiles::new(root).config()?;
        Ok((RunDirectory::begin(root, &config)?, config))
    }

    /// Its files.
    pub fn files(&self) -> RunFiles {
        RunFiles::new(&self.root)
    }

    /// Names the configuration.
    pub fn config_digest(&self) -> &str {
        &self.config_digest
    }
}

/// The files of a run, for anyone who looks at it; takes no lock.
#[derive(Clone, Debug)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// The files under a directory.
    pub fn new(root: &Path) -> RunFiles {
        RunFiles { root: root.to_owned() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration with which it was begun.
    ///
    /// # Errors
    /// When there is none, or it has unknown keys.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, DirectoryError> {
        read_config(&self.root.join(CONFIG))
    }

    /// Where the metrics are.
    pub fn metrics(&self) -> PathBuf {
        self.root.join(METRICS)
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.root.join(CHECKPOINTS))
    }

    /// The process that works on it now, if one does.
    pub fn running_pid(&self) -> Option<String> {
        let file = File::open(self.root.join(LOCK)).ok()?;
        // A shared lock is refused while a run holds its own, and is given back at once.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_pid(file),
            _ => None,
        }
    }
}

fn read_config<C: DeserializeOwned>(path: &Path) -> Result<C, DirectoryError> {
    let io = |source| DirectoryError::Io { path: path.to_owned(), source };
    let bytes = read_small(path, MAX_CONFIG_BYTES).map_err(io)?;
    serde_json::from_slice(&bytes)
        .map_err(|source| DirectoryError::Config { path: path.to_owned(), source })
}

/// A directory without a configuration may hold what a crash before it leaves, and no more.
fn refuse_foreign_files(root: &Path) -> Result<(), DirectoryError> {
    let io = |source| DirectoryError::Io { path: root.to_owned(), source };
    for entry in fs::read_dir(root).map_err(io)? {
        let found = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if found != LOCK && found != "config.writing" {
            return Err(DirectoryError::NotARun { path: root.to_owned(), found });
        }
    }
    Ok(())
}

fn lock(root: &Path) -> Result<File, DirectoryError> {
    let io = |source| DirectoryError::Io { path: root.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(root.join(LOCK)).map_err(io)?;
    let mut num_tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // Whoever looks at the run (`running_pid`) holds the lock for an instant.
            Err(TryLockError::WouldBlock) if num_tries < MAX_LOCK_TRIES => num_tries += 1,
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::Locked { path: root.to_owned(), pid: read_pid(file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(io)?;
    Ok(file)
}

fn read_pid(file: File) -> Option<String> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then(|| pid.to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        base: String,
        learning_rate: f64,
    }

    fn config() -> Config {
        Config { base: "tiny".into(), learning_rate: 0.1 + 0.2 }
    }

    #[test]
    fn a_second_process_is_told_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let directory = RunDirectory::begin(&root, &config()).unwrap();
        let error = RunDirectory::begin(&root, &config()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.ends_with(&format!("is in use by process {pid}: wait for it or stop it")));
        assert_eq!(directory.files().running_pid(), Some(pid.to_string()));
        drop(directory);
        assert_eq!(RunFiles::new(&root).running_pid(), None);
        RunDirectory::begin(&root, &config()).unwrap();
    }

    #[test]
    fn a_run_goes_on_only_as_it_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let digest = RunDirectory::begin(&root, &config()).unwrap().config_digest().to_owned();
        let (directory, found) = RunDirectory::resume::<Config>(&root).unwrap();
        assert_eq!((found, directory.config_digest()), (config(), &*digest));
        drop(directory);
        let other = Config { learning_rate: 0.5, ..config() };
        let error = RunDirectory::begin(&root, &other).unwrap_err().to_string();
        assert!(error.contains("learning_rate: 0.30000000000000004, found 0.5"), "{error}");
    }

    #[test]
    fn unknown_keys_and_other_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = RunDirectory::resume::<Config>(folder.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        fs::write(folder.path().join("thesis.txt"), "").unwrap();
        let error = RunDirectory::begin(folder.path(), &config()).unwrap_err().to_string();
        assert!(error.ends_with("is no run: it has no config.json, but found `thesis.txt`"));
        let text = r#"{"base":"b","learning_rate":1,"momentum":2}"#;
        fs::write(folder.path().join(CONFIG), text).unwrap();
        let error = RunDirectory::resume::<Config>(folder.path()).unwrap_err();
        let DirectoryError::Config { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().starts_with("unknown field `momentum`"), "{source}");
    }
}
