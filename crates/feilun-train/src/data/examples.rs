//! Files of examples: read once from end to end, then at random.
//!
//! The first pass checks every line, renders it, and keeps a few dozen bytes of each: where it
//! is, how many tokens it has, and a hash by which a later change is noticed. So a run refuses
//! bad data before its first step, and memory does not grow with the length of examples.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::error::{DataError, LineProblem};
use super::example::{Example, Shape, first_u64};
use super::lines::{Line, Lines};
use super::render::{Document, Renderer};

/// Files stay open during a run.
const NUM_FILES_MAX: usize = 256;
/// How many bad lines are remembered one by one; the others are counted.
const NUM_SKIPPED_KEPT: usize = 100;
/// Lines in memory at once in the first pass, and the bytes after which no further is read.
const BATCH_LINES: usize = 512;
const BATCH_BYTES: usize = 8 << 20;
/// What some editors write before the first line.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What to do with a line that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLines {
    /// Refuse the file.
    #[default]
    Refuse,
    /// Go on without it; [`ReadReport`] says which they were.
    Skip,
}

/// How to read files of examples.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    /// What each line holds.
    pub shape: Shape,
    /// What to do with a bad one.
    pub bad_lines: BadLines,
    /// The longest line; a longer one is bad, and is never in memory as a whole.
    pub line_bytes_max: usize,
}

impl ReadOptions {
    /// Lines of at most 8 MiB, and no bad ones. (A conversation holds at most 2 MiB of text.)
    pub fn new(shape: Shape) -> ReadOptions {
        ReadOptions { shape, bad_lines: BadLines::Refuse, line_bytes_max: 8 << 20 }
    }
}

/// What the first pass saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReadReport {
    /// Lines, of all kinds.
    pub num_lines: u64,
    /// Lines with nothing but white space, which are no examples.
    pub num_blank: u64,
    /// Bad lines that were skipped.
    pub num_skipped: u64,
    /// The first of them.
    pub skipped: Vec<SkippedLine>,
}

/// A bad line that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SkippedLine {
    /// Its file.
    pub path: PathBuf,
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// Examples in files, at random.
#[derive(Debug)]
pub struct Examples {
    options: ReadOptions,
    renderer: Renderer,
    files: Vec<ExampleFile>,
    records: Vec<Record>,
    report: ReadReport,
}

#[derive(Debug)]
struct ExampleFile {
    path: PathBuf,
    file: File,
    digest: blake3::Hash,
    num_skipped: u64,
}

/// What is kept of an example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub file: u32,
    num_bytes: u32,
    line: u64,
    offset: u64,
    /// Of the line.
    hash: u64,
    /// Of the prompt; see [`Example::prompt_hash`].
    pub prompt: u64,
    /// Tokens of each document. The second is 0 where there is one.
    pub lens: [u32; 2],
    /// How many of them are learned.
    pub learned: [u32; 2],
}

impl Examples {
    /// Reads, checks and renders every line of some files. `progress` is told after each line how
    /// many bytes of how many are done.
    ///
    /// # Errors
    /// If a file cannot be read, a line is bad and bad lines are refused, or nothing is left.
    pub fn open(
        paths: &[PathBuf],
        renderer: Renderer,
        options: ReadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Examples, DataError> {
        if paths.len() > NUM_FILES_MAX {
            return Err(DataError::TooManyFiles { found: paths.len(), limit: NUM_FILES_MAX });
        }
        if options.line_bytes_max == 0 || u32::try_from(options.line_bytes_max).is_err() {
            let found = options.line_bytes_max.to_string();
            let (name, expected) = ("the longest line", "1 byte to 4 GiB");
            return Err(DataError::Setting { name, found, expected });
        }
        let files = paths.iter().map(|path| open_file(path)).collect::<Result<Vec<_>, _>>()?;
        let total = files.iter().map(|(_, num_bytes)| num_bytes).sum();
        let mut examples = Examples {
            options,
            renderer,
            files: Vec::new(),
            records: Vec::new(),
            report: ReadReport::default(),
        };
        let mut done = 0;
        for (path, (file, _)) in paths.iter().zip(files) {
            done += examples.read_file(path, file, &mut |bytes| progress(done + bytes, total))?;
        }
        if examples.records.is_empty() {
            let names: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
            return Err(DataError::Empty {
                files: if names.is_empty() { "no files".into() } else { names.join(", ") },
                num_blank: examples.report.num_blank,
                num_skipped: examples.report.num_skipped,
                expected: options.shape.describe(),
            });
        }
        Ok(examples)
    }

    fn read_file(
        &mut self,
        path: &Path,
        file: File,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, DataError> {
        let error = |source| DataError::Read { path: path.to_owned(), source };
        let limit = self.options.line_bytes_max;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 18, &file), limit);
        let mut num_skipped = 0;
        loop {
            let batch = read_batch(&mut lines).map_err(error)?;
            if batch.is_empty() {
                break;
            }
            let checked = self.check_all(&batch);
            for ((line, _), checked) in batch.iter().zip(checked) {
                self.report.num_lines += 1;
                match checked {
                    Ok(Some(record)) => self.records.push(record),
                    Ok(None) => self.report.num_blank += 1,
                    Err(problem) => {
                        let (path, line) = (path.to_owned(), line.number);
                        if self.options.bad_lines == BadLines::Refuse {
                            return Err(DataError::Line { path, line, problem });
                        }
                        num_skipped += 1;
                        if self.report.skipped.len() < NUM_SKIPPED_KEPT {
                            let problem = problem.to_string();
                            self.report.skipped.push(SkippedLine { path, line, problem });
                        }
                    }
                }
                progress(line.offset + line.num_bytes);
            }
        }
        self.report.num_skipped += num_skipped;
        let (num_bytes, digest) = (lines.offset(), lines.digest());
        self.files.push(ExampleFile { path: path.to_owned(), file, digest, num_skipped });
        Ok(num_bytes)
    }

    /// Checks lines, on all cores: rendering is most of the work of the first pass.
    fn check_all(&self, batch: &[(Line, Vec<u8>)]) -> Vec<Result<Option<Record>, LineProblem>> {
        let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = batch.len().div_ceil(num_threads).max(1);
        let check = |part: &[(Line, Vec<u8>)]| -> Vec<_> {
            part.iter().map(|(line, bytes)| self.read_line(*line, bytes)).collect()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                batch.chunks(share).map(|part| scope.spawn(move || check(part))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().flat_map(join).collect()
        })
    }

    /// Checks one line. `None` for a blank one.
    fn read_line(&self, line: Line, buffer: &[u8]) -> Result<Option<Record>, LineProblem> {
        if line.num_bytes > buffer.len() as u64 {
            let limit = self.options.line_bytes_max;
            return Err(LineProblem::TooLong { found: line.num_bytes, limit });
        }
        let (mut bytes, mut offset) = (buffer, line.offset);
        if let Some(rest) = bytes.strip_prefix(BYTE_ORDER_MARK).filter(|_| line.number == 1) {
            offset += (bytes.len() - rest.len()) as u64;
            bytes = rest;
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let example = Example::parse(bytes, self.options.shape)?;
        let documents = self.renderer.render(&example)?;
        let mut record = Record {
            file: self.files.len() as u32,
            num_bytes: bytes.len() as u32,
            line: line.number,
            offset,
            hash: first_u64(&blake3::hash(bytes)),
            prompt: example.prompt_hash(),
            lens: [0; 2],
            learned: [0; 2],
        };
        for (index, document) in documents.iter().enumerate() {
            record.lens[index] = document.tokens.len() as u32;
            record.learned[index] = document.num_learned() as u32;
        }
        Ok(Some(record))
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: examples without any are refused.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Mean number of tokens of an example, both documents of a pair together; at least 1.
    pub fn mean_tokens(&self) -> usize {
        let tokens = |record: &Record| u64::from(record.lens[0]) + u64::from(record.lens[1]);
        let sum: u64 = self.records.iter().map(tokens).sum();
        (sum / self.records.len().max(1) as u64).max(1) as usize
    }

    /// What each line holds.
    pub fn shape(&self) -> Shape {
        self.options.shape
    }

    /// What the first pass saw.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// The file and the line of an example.
    pub fn location(&self, example: usize) -> (&Path, u64) {
        let record = &self.records[example];
        (&self.files[record.file as usize].path, record.line)
    }

    /// The tokens of an example: one document, or two for a pair.
    ///
    /// # Errors
    /// If the file has changed since it was opened.
    pub fn render(&self, example: usize) -> Result<Vec<Document>, DataError> {
        let parsed = self.read(example)?;
        self.renderer.render(&parsed).map_err(|problem| self.problem(example, problem))
    }

    /// The prompt of an example with the answer of another.
    ///
    /// # Errors
    /// If the file has changed, or the template refuses the two together.
    pub(crate) fn render_mismatched(
        &self,
        example: usize,
        other: usize,
    ) -> Result<Vec<Document>, DataError> {
        let (prompt, answer) = (self.read(example)?, self.read(other)?);
        let rendered = self.renderer.render_mismatched(&prompt, &answer);
        rendered.map_err(|problem| self.problem(example, problem))
    }

    /// Names the contents of all files, in their order, and how they are rendered.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(file.digest.as_bytes());
        }
        hasher.update(self.renderer.digest().as_bytes());
        hasher.update(format!("{:?}", self.options).as_bytes());
        hasher.finalize()
    }

    /// Each file: its name, the digest of its contents, and how many bad lines were skipped.
    pub fn files(&self) -> impl Iterator<Item = (&Path, blake3::Hash, u64)> {
        self.files.iter().map(|file| (&*file.path, file.digest, file.num_skipped))
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    fn read(&self, example: usize) -> Result<Example, DataError> {
        let record = &self.records[example];
        let file = &self.files[record.file as usize];
        let changed = || DataError::Changed { path: file.path.clone(), line: record.line };
        let mut bytes = vec![0; record.num_bytes as usize];
        match file.file.read_exact_at(&mut bytes, record.offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
            Err(source) => return Err(DataError::Read { path: file.path.clone(), source }),
        }
        if first_u64(&blake3::hash(&bytes)) != record.hash {
            return Err(changed());
        }
        let parsed = Example::parse(&bytes, self.options.shape);
        parsed.map_err(|problem| self.problem(example, problem))
    }

    fn problem(&self, example: usize, problem: LineProblem) -> DataError {
        let (path, line) = self.location(example);
        DataError::Line { path: path.to_owned(), line, problem }
    }
}

/// The next lines, as many as are checked together.
fn read_batch(lines: &mut Lines<impl BufRead>) -> io::Result<Vec<(Line, Vec<u8>)>> {
    let mut batch = Vec::new();
    let mut num_bytes = 0;
    while batch.len() < BATCH_LINES && num_bytes < BATCH_BYTES {
        let mut bytes = Vec::new();
        let Some(line) = lines.next(&mut bytes)? else { break };
        num_bytes += bytes.len();
        batch.push((line, bytes));
    }
    Ok(batch)
}

/// A regular file (a pipe could not be read again) and its length.
fn open_file(path: &Path) -> Result<(File, u64), DataError> {
    let open = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((file, metadata.len()))
    };
    open().map_err(|source| DataError::Read { path: path.to_owned(), source })
}
