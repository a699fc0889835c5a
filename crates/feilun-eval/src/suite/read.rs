//! A suite from a file of JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::error::{ItemProblem, SuiteError};
use super::item::Item;
use super::line::ItemLine;
use super::{Header, Numbered, Suite};
use crate::lines::read_line;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 8 << 20;
/// Most items.
pub const ITEMS_MAX: usize = 1_000_000;
/// Longest suite, in bytes: it is in memory as a whole.
pub const SUITE_BYTES_MAX: usize = 1 << 30;

impl Suite {
    /// Reads a file. Without a header the suite is named after it.
    ///
    /// # Errors
    /// When it cannot be read, and the first thing that is wrong with it.
    pub fn open(path: &Path) -> Result<Suite, SuiteError> {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
        let read = File::open(path).and_then(|file| Suite::read(BufReader::new(file), &name));
        read.map_err(|source| SuiteError::Read { path: path.to_owned(), source })?
    }

    /// Reads lines: an item each, and if need be a header in the first. Empty lines are left
    /// out.
    ///
    /// # Errors
    /// When the source fails (outer), and the first thing that is wrong with it (inner).
    pub fn read(mut reader: impl BufRead, name: &str) -> io::Result<Result<Suite, SuiteError>> {
        let mut header = Header { suite: name.to_owned(), ..Header::default() };
        let mut items = Vec::new();
        let (mut line, mut num_bytes, mut is_first) = (0, 0, true);
        let mut buffer = Vec::new();
        loop {
            let found = read_line(&mut reader, &mut buffer, LINE_BYTES_MAX)?;
            if found == 0 {
                return Ok(Suite::of(header, items));
            }
            line += 1;
            num_bytes += found;
            if buffer.trim_ascii_end().len() > LINE_BYTES_MAX {
                let (found, max) = (found as u64, LINE_BYTES_MAX);
                return Ok(Err(SuiteError::LineTooLong { line, found, max }));
            }
            if num_bytes > SUITE_BYTES_MAX {
                return Ok(Err(SuiteError::TooMany { what: "bytes", max: SUITE_BYTES_MAX }));
            }
            if items.len() >= ITEMS_MAX {
                return Ok(Err(SuiteError::TooMany { what: "items", max: ITEMS_MAX }));
            }
            // A byte order mark is no JSON, but many editors write one.
            let text =
                buffer.strip_prefix(b"\xef\xbb\xbf").filter(|_| line == 1).unwrap_or(&buffer);
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match read_value(text, line, is_first) {
                Ok(Line::Header(found)) => header = *found,
                Ok(Line::Item(item)) => items.push(Numbered { line, item: *item }),
                Err(error) => return Ok(Err(error)),
            }
            is_first = false;
        }
    }
}

enum Line {
    Header(Box<Header>),
    Item(Box<Item>),
}

fn read_value(text: &[u8], line: u64, is_first: bool) -> Result<Line, SuiteError> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|source| SuiteError::Json { line, reason: source.to_string() })?;
    let shape = |source: serde_json::Error| ItemProblem::Shape { reason: source.to_string() };
    if is_first && value.get("suite").is_some() {
        return match serde_json::from_value(value) {
            Ok(header) => Ok(Line::Header(Box::new(header))),
            Err(source) => Err(SuiteError::Header { line, problem: shape(source) }),
        };
    }
    // In two steps, so that a problem keeps its cause.
    let item = serde_json::from_value::<ItemLine>(value).map_err(shape).and_then(Item::try_from);
    match item {
        Ok(item) => Ok(Line::Item(Box::new(item))),
        Err(problem) => Err(SuiteError::Item { line, problem }),
    }
}
