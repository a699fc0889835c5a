//! The results of items on disk: a line each, in the order in which they came, and once all are
//! there in the order of the suite.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use super::error::ResultsError;
use crate::lines::read_line;
use crate::run::ItemResult;
use crate::suite::ITEMS_MAX;

/// Longest line: an answer of [`crate::suite::MAX_TOKENS_MAX`] long tokens, written in escapes.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Results as they lie in a file.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) results: Vec<ItemResult>,
    /// Bytes of whole lines that are results.
    pub(super) good_bytes: u64,
    /// What ended them, if not the end of the file.
    pub(super) damage: Option<ResultsError>,
}

/// Reads results up to the end or the first line that is none: one that was being written when
/// the process was killed, or what a disk made of it.
pub(super) fn read(path: &Path) -> Result<Stored, ResultsError> {
    let io = |source| ResultsError::Io { path: path.to_owned(), source };
    let mut stored = Stored::default();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stored),
        file => file.map_err(io)?,
    };
    let mut reader = BufReader::new(file);
    let (mut buffer, mut line) = (Vec::new(), 0);
    loop {
        let num_bytes = read_line(&mut reader, &mut buffer, LINE_BYTES_MAX).map_err(io)?;
        if num_bytes == 0 {
            return Ok(stored);
        }
        line += 1;
        let result = serde_json::from_slice::<ItemResult>(&buffer);
        match result {
            Ok(result) if buffer.ends_with(b"\n") => stored.results.push(result),
            Ok(_) => {
                // Whole by chance, but a line without its end was not finished.
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                stored.damage = Some(io(source));
                return Ok(stored);
            }
            Err(source) => {
                stored.damage = Some(ResultsError::Item { path: path.to_owned(), line, source });
                return Ok(stored);
            }
        }
        stored.good_bytes += num_bytes as u64;
        if stored.results.len() > ITEMS_MAX {
            let path = path.to_owned();
            return Err(ResultsError::TooMuch { path, what: "results", max: ITEMS_MAX });
        }
    }
}

/// A file of results that is being added to.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Goes on after so many bytes; what is behind them is cut off.
    pub(super) fn open(path: &Path, good_bytes: u64) -> Result<Appender, ResultsError> {
        let io = |source| ResultsError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() > good_bytes {
            file.set_len(good_bytes).map_err(io)?;
        }
        Ok(Appender { path: path.to_owned(), file })
    }

    /// Adds results, to last: when this returns they are on the disk.
    pub(super) fn append(&mut self, results: &[ItemResult]) -> Result<(), ResultsError> {
        let bytes = lines(results.iter(), &self.path)?;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|source| ResultsError::Io { path: self.path.clone(), source })
    }
}

/// Puts results into the order of the suite, in one instant. Lines are taken as they are: what
/// was read and written again could differ in a last digit.
pub(super) fn sort(path: &Path, order: &HashMap<&str, usize>) -> Result<(), ResultsError> {
    let io = |source| ResultsError::Io { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(io)?;
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for (line, text) in text.split_inclusive('\n').enumerate() {
        let result: ItemResult = serde_json::from_str(text).map_err(|source| {
            ResultsError::Item { path: path.to_owned(), line: line as u64 + 1, source }
        })?;
        lines.push((order.get(result.id.as_str()).copied().unwrap_or(usize::MAX), text));
    }
    if lines.is_sorted_by_key(|(place, _)| *place) {
        return Ok(());
    }
    lines.sort_by_key(|(place, _)| *place);
    let sorted: String = lines.into_iter().map(|(_, text)| text).collect();
    replace_file(path, sorted.as_bytes())
}

fn lines<'r>(
    results: impl Iterator<Item = &'r ItemResult>,
    path: &Path,
) -> Result<Vec<u8>, ResultsError> {
    let mut bytes = Vec::new();
    for result in results {
        serde_json::to_writer(&mut bytes, result)
            .map_err(|source| ResultsError::Json { path: path.to_owned(), source })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Creates or replaces a file in one instant, to last.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), ResultsError> {
    let writing = path.with_extension("writing");
    let write = || {
        let mut file = File::create(&writing)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&writing, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| ResultsError::Io { path: path.to_owned(), source })
}
