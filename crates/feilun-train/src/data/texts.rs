//! Texts to token shards, for pretraining.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::Value;

use feilun_model::mapped_file::MappedFile;
use feilun_text::{EncodeOptions, Tokenizer, TokenizerError};

use super::error::{DataError, LineProblem};
use super::examples::{BYTE_ORDER_MARK, BadLines, SkippedLine};
use super::json;
use super::lines::Lines;
use super::shard::{ShardWriter, tokenizer_digest};

/// How many bad texts are remembered one by one.
const NUM_SKIPPED_KEPT: usize = 100;
/// The longest line of a file with one text a line.
const LINE_BYTES_MAX: usize = 16 << 20;
/// The shape of a line, for messages.
const TEXT_LINE: &str = r#"{"text":".."}"#;

/// How to read texts.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// What to do with a text that is not UTF-8, or a line that is not as expected.
    pub bad_lines: BadLines,
    /// A longer text becomes several documents, cut after a line break where there is one.
    /// Smaller documents make a finer choice of what is held out.
    pub document_bytes_max: usize,
}

impl Default for TextOptions {
    /// Documents of at most 1 MiB.
    fn default() -> TextOptions {
        TextOptions { bad_lines: BadLines::Refuse, document_bytes_max: 1 << 20 }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TextReport {
    /// Bytes of text.
    pub num_bytes: u64,
    /// Documents.
    pub num_documents: u64,
    /// Tokens, with those that begin and end documents.
    pub num_tokens: u64,
    /// Bad files or lines that were skipped.
    pub num_skipped: u64,
    /// The first of them.
    pub skipped: Vec<SkippedLine>,
}

/// Encodes texts and writes them into a token shard. A file whose name ends in `.jsonl` has one
/// document a line, `{"text": ".."}`; any other file is one text.
///
/// A text begins with BOS if the model wants one and ends with EOS if the vocabulary has one, so
/// that the model learns where texts end. `progress` is told how many bytes are done.
///
/// # Errors
/// If a file cannot be read, a text is bad and bad ones are refused, there is no text at all, or
/// the shard cannot be written.
pub fn write_shard(
    paths: &[PathBuf],
    tokenizer: &Tokenizer,
    out: &Path,
    options: TextOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<TextReport, DataError> {
    let digest = tokenizer_digest(tokenizer);
    let writer = ShardWriter::create(out, tokenizer.vocab_size() as u32, digest)?;
    // A piece has to be encoded at once, and has to hold a whole character.
    let pieces = 4..=feilun_text::tokenizer::TEXT_BYTES_MAX / 2;
    if !pieces.contains(&options.document_bytes_max) {
        let (name, expected) = ("the longest document", "4 bytes to 2 MiB");
        let found = options.document_bytes_max.to_string();
        return Err(DataError::Setting { name, found, expected });
    }
    let mut texts = Texts { tokenizer, writer, options, report: TextReport::default(), progress };
    for path in paths {
        match has_lines(path) {
            true => texts.add_lines(path)?,
            false => texts.add_file(path)?,
        }
    }
    let Texts { writer, mut report, .. } = texts;
    if report.num_documents == 0 {
        let names: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(DataError::Empty {
            files: if names.is_empty() { "no files".into() } else { names.join(", ") },
            num_blank: 0,
            num_skipped: report.num_skipped,
            expected: "text",
        });
    }
    report.num_tokens = writer.num_tokens();
    writer.finish()?;
    Ok(report)
}

/// Names what [`write_shard`] makes of these files: their contents in their order, the tokenizer
/// and the options, not the names.
///
/// # Errors
/// If a file cannot be read.
pub fn texts_digest(
    paths: &[PathBuf],
    tokenizer: &Tokenizer,
    options: TextOptions,
) -> Result<blake3::Hash, DataError> {
    let mut all = blake3::Hasher::new();
    all.update(b"feilun texts 1");
    all.update(tokenizer_digest(tokenizer).as_bytes());
    all.update(format!("{options:?}").as_bytes());
    for path in paths {
        let read = |source| DataError::Read { path: path.clone(), source };
        let file = File::open(path).map_err(read)?;
        let mut one = blake3::Hasher::new();
        one.update_reader(file).map_err(read)?;
        all.update(&[u8::from(has_lines(path))]);
        all.update(one.finalize().as_bytes());
    }
    Ok(all.finalize())
}

/// Whether a file has one text a line.
fn has_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

struct Texts<'a> {
    tokenizer: &'a Tokenizer,
    writer: ShardWriter,
    options: TextOptions,
    report: TextReport,
    progress: &'a mut dyn FnMut(u64),
}

impl Texts<'_> {
    /// The one text of a file.
    fn add_file(&mut self, path: &Path) -> Result<(), DataError> {
        let map = MappedFile::open(path)
            .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        let bytes = map.as_ref();
        // All of it first: of a bad file nothing is used.
        if let Err(error) = std::str::from_utf8(bytes) {
            let offset = error.valid_up_to();
            let line = bytes[..offset].iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
            let line_start = bytes[..offset].iter().rposition(|&byte| byte == b'\n');
            let offset = (offset - line_start.map_or(0, |at| at + 1)) as u64;
            return self.bad(path, line, LineProblem::NotUtf8 { offset });
        }
        let before = self.report.num_documents;
        self.add_text(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes), path, 1)?;
        if self.report.num_documents == before {
            let reason = "the file is empty";
            return self.bad(path, 1, LineProblem::NothingLearned { reason });
        }
        (self.progress)(bytes.len() as u64);
        Ok(())
    }

    /// One text from each line.
    fn add_lines(&mut self, path: &Path) -> Result<(), DataError> {
        let error = |source| DataError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 18, file), LINE_BYTES_MAX);
        let mut buffer = Vec::new();
        let mut done = 0;
        while let Some(line) = lines.next(&mut buffer).map_err(error)? {
            let text = match line.num_bytes > buffer.len() as u64 {
                true => Err(LineProblem::TooLong { found: line.num_bytes, limit: LINE_BYTES_MAX }),
                false => text_of(&buffer),
            };
            match text {
                Ok(None) => {}
                Ok(Some(text)) => self.add_text(text.as_bytes(), path, line.number)?,
                Err(problem) => self.bad(path, line.number, problem)?,
            }
            (self.progress)(lines.offset() - done);
            done = lines.offset();
        }
        Ok(())
    }

    /// Encodes a text, as several documents if it is long.
    fn add_text(&mut self, mut rest: &[u8], path: &Path, line: u64) -> Result<(), DataError> {
        let mut is_first = true;
        let limit = self.options.document_bytes_max;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(place_to_cut(rest, limit));
            // A copy: the bytes of a mapped file may change, those of a string must not.
            let text = String::from_utf8(piece.to_vec())
                .map_err(|_| DataError::Changed { path: path.to_owned(), line })?;
            let tokens = self.encode(&text, is_first, after.is_empty());
            let tokens = tokens.map_err(|problem| DataError::Line {
                path: path.to_owned(),
                line,
                problem: problem.into(),
            })?;
            self.writer.add(&tokens)?;
            self.report.num_documents += 1;
            self.report.num_bytes += piece.len() as u64;
            (is_first, rest) = (false, after);
        }
        Ok(())
    }

    fn encode(
        &self,
        text: &str,
        is_first: bool,
        is_last: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let add_bos = is_first && self.tokenizer.adds_bos();
        let options = EncodeOptions { add_bos, parse_special: false };
        let mut tokens = self.tokenizer.encode(text, options)?;
        tokens.extend(self.tokenizer.eos().filter(|_| is_last));
        Ok(tokens)
    }

    fn bad(&mut self, path: &Path, line: u64, problem: LineProblem) -> Result<(), DataError> {
        let path = path.to_owned();
        if self.options.bad_lines == BadLines::Refuse {
            return Err(DataError::Line { path, line, problem });
        }
        self.report.num_skipped += 1;
        if self.report.skipped.len() < NUM_SKIPPED_KEPT {
            self.report.skipped.push(SkippedLine { path, line, problem: problem.to_string() });
        }
        Ok(())
    }
}

/// The text of a line; `None` for a blank line, or one with an empty text.
fn text_of(line: &[u8]) -> Result<Option<String>, LineProblem> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    match json::parse(line, TEXT_LINE)? {
        Value::Object(mut object) => match object.remove("text") {
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            found => Err(json::wrong_type("text", &found.unwrap_or_default(), "a string")),
        },
        found => Err(json::wrong_type("the line", &found, TEXT_LINE)),
    }
}

/// Where the first piece of a text ends: behind its last line break within the limit, or else
/// before a character. `limit` has room for any character.
fn place_to_cut(text: &[u8], limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    let line_break = text[..limit].iter().rposition(|&byte| byte == b'\n');
    line_break.map_or_else(
        || (1..=limit).rfind(|&at| !is_continuation(text[at])).unwrap_or(limit),
        |at| at + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_behind_line_breaks_or_before_characters() {
        assert_eq!(place_to_cut(b"abc", 3), 3);
        assert_eq!(place_to_cut(b"a\nb\nc", 4), 4);
        assert_eq!(place_to_cut(b"a\nbcd", 4), 2);
        assert_eq!(place_to_cut("aäöü".as_bytes(), 4), 3);
        assert_eq!(place_to_cut("🦀🦀".as_bytes(), 4), 4);
        assert_eq!(place_to_cut("🦀🦀".as_bytes(), 7), 4);
    }

    #[test]
    fn lines_of_text() {
        assert_eq!(text_of(b"  ").unwrap(), None);
        assert_eq!(text_of(br#"{"text":"a","id":1}"#).unwrap().unwrap(), "a");
        let error = text_of(br#"{"texts":"a"}"#).unwrap_err().to_string();
        assert_eq!(error, "text is null, expected a string");
    }
}
