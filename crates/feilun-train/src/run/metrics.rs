//! `metrics.jsonl`: one line for each thing that happened, appended as it happens.
//!
//! A crash may tear the last line, and a resumed run does steps again; both are cut off when the
//! file is opened for a run that goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::guard::Outlier;
use crate::objective::Sums;
use crate::planner::{Plan, Score};

/// No line of ours is near this; a longer one is damage.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// One line. `step` counts steps done when it was written, so the first step is number 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A process began, or went on from a checkpoint.
    Start {
        /// Steps done before.
        step: u64,
        /// The process.
        pid: u32,
        /// Seconds since 1970.
        unix_seconds: u64,
        /// Steps of the whole run.
        num_steps: u64,
        /// What was predicted for this process.
        plan: Option<Plan>,
    },
    /// A step was computed.
    Step(StepRecord),
    /// The held-out rows were measured.
    Evaluation {
        /// Steps done.
        step: u64,
        /// Their loss.
        loss: f64,
        /// Mean −log p of their learned tokens, in nats.
        nats_per_token: Option<f64>,
        /// The same for each byte of their text, where it is known; it can be compared between
        /// vocabularies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bits_per_byte: Option<f64>,
        /// How long it took.
        seconds: f64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Bytes of tensors.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A guard stopped the run.
    Refused {
        /// The number of the step that was not done.
        step: u64,
        /// In words.
        reason: String,
    },
    /// A process ended in good order.
    End {
        /// Steps done.
        step: u64,
        /// Whether that was all of them.
        is_finished: bool,
        /// How the prediction did.
        score: Option<Score>,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number; the first is 1.
    pub step: u64,
    /// The loss of all its rows.
    pub loss: f64,
    /// Of the whole gradient, before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Tokens computed.
    pub num_tokens: u64,
    /// How long it took.
    pub seconds: f64,
    /// What made it an outlier, if it was not applied.
    pub skipped: Option<Outlier>,
    /// What the objective counted.
    pub sums: Sums,
}

impl Record {
    /// The step that it belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Record::Step(record) => record.step,
            Record::Start { step, .. }
            | Record::Evaluation { step, .. }
            | Record::Checkpoint { step, .. }
            | Record::Refused { step, .. }
            | Record::End { step, .. } => *step,
        }
    }
}

/// Why metrics cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot write or read `{path}`")]
pub struct MetricsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file for a run that goes on after `step`: later records and torn lines are cut.
    pub(super) fn open(path: PathBuf, step: u64) -> Result<Metrics, MetricsError> {
        let open = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let end = end_of_records(&file, step)?;
            file.set_len(end)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Metrics { path, file }),
            Err(source) => Err(MetricsError { path, source }),
        }
    }

    /// Appends a line. One write, so that readers see whole lines while a run goes on.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), MetricsError> {
        let write = |file: &mut File| {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            file.write_all(&line)
        };
        write(&mut self.file).map_err(|source| MetricsError { path: self.path.clone(), source })
    }

    /// Waits until all lines are on the disk.
    pub(super) fn sync(&self) -> Result<(), MetricsError> {
        self.file.sync_data().map_err(|source| MetricsError { path: self.path.clone(), source })
    }
}

/// The records of a file, for those who look at a run. Lines that are no records (a torn last
/// one while the run goes on) are left out; a file that is not there has none.
///
/// # Errors
/// When the file cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>, MetricsError> {
    let read = || {
        let mut records = Vec::new();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            other => other?,
        };
        for_each_line(&file, |_, record| {
            records.extend(record);
            true
        })?;
        Ok(records)
    };
    read().map_err(|source| MetricsError { path: path.to_owned(), source })
}

/// Follows the records of a run that goes on.
#[derive(Debug)]
pub struct MetricsTail {
    path: PathBuf,
    offset: u64,
}

/// Records that are given at once, at most: what a follower does with them takes time.
const MAX_TAIL_RECORDS: usize = 1000;

impl MetricsTail {
    /// Begins at the beginning.
    pub fn new(path: PathBuf) -> MetricsTail {
        MetricsTail { path, offset: 0 }
    }

    /// The records since the last call, up to a thousand; none while the file is not there. A
    /// file that has become shorter, because its run went on from a checkpoint, is read again
    /// from its beginning, so a record may come twice.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_new(&mut self) -> Result<Vec<Record>, MetricsError> {
        self.read().map_err(|source| MetricsError { path: self.path.clone(), source })
    }

    fn read(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            other => other?,
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let start = self.offset;
        let mut whole = 0;
        for_each_line(&file, |end, record| {
            // A torn line at the end is not passed over: the rest of it comes.
            if record.is_some() {
                whole = end;
            }
            records.extend(record);
            records.len() < MAX_TAIL_RECORDS
        })?;
        self.offset = start + whole;
        Ok(records)
    }
}

/// Where the last record lies that belongs to a step up to `step`.
fn end_of_records(file: &File, step: u64) -> io::Result<u64> {
    let mut end = 0;
    for_each_line(file, |line_end, record| match record {
        Some(record) if record.step() > step => false,
        Some(_) => {
            end = line_end;
            true
        }
        None => true,
    })?;
    Ok(end)
}

/// Calls `visit(end of the line, its record)` until it returns false.
fn for_each_line(
    file: &File,
    mut visit: impl FnMut(u64, Option<Record>) -> bool,
) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut end = 0;
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        end += read as u64;
        // A line without its end is torn, even if what is there happens to be JSON.
        let record = if line.ends_with(b"\n") { serde_json::from_slice(&line).ok() } else { None };
        if !visit(end, record) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        Record::Step(StepRecord {
            step,
            loss: 0.1 + step as f64,
            gradient_norm: 1.0 / 3.0,
            learning_rate: 1e-3,
            num_tokens: 100,
            seconds: 0.25,
            skipped: (step == 2).then_some(Outlier::GradientNorm),
            sums: Sums::default(),
        })
    }

    fn folder_with(records: &[Record]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(path.clone(), 0).unwrap();
        records.iter().for_each(|record| metrics.append(record).unwrap());
        metrics.sync().unwrap();
        (folder, path)
    }

    #[test]
    fn records_come_back() {
        let evaluation = |bits_per_byte| Record::Evaluation {
            step: 2,
            loss: 0.1,
            nats_per_token: Some(0.3),
            bits_per_byte,
            seconds: 2.0,
        };
        let records = [step(1), step(2), evaluation(None), evaluation(Some(1.5))];
        let (_folder, path) = folder_with(&records);
        assert_eq!(read_metrics(&path).unwrap(), records);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"kind":"step","step":1,"loss":1.1,"#), "{text}");
    }

    #[test]
    fn records_after_the_checkpoint_and_a_torn_line_are_cut() {
        let records: Vec<Record> = (1..=9).map(step).collect();
        let (_folder, path) = folder_with(&records);
        let whole = std::fs::read(&path).unwrap();
        for torn in [whole.len(), whole.len() - 1, whole.len() - 9] {
            std::fs::write(&path, &whole[..torn]).unwrap();
            let mut metrics = Metrics::open(path.clone(), 6).unwrap();
            assert_eq!(read_metrics(&path).unwrap(), records[..6]);
            metrics.append(&step(7)).unwrap();
            assert_eq!(read_metrics(&path).unwrap(), records[..7]);
        }
        // Also when the torn line is of a step that is kept.
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        Metrics::open(path.clone(), 9).unwrap().append(&step(9)).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), records);
    }

    #[test]
    fn a_follower_gets_each_record_once_and_all_again_after_a_cut() {
        let records: Vec<Record> = (1..=5).map(step).collect();
        let (_folder, path) = folder_with(&records);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut tail = MetricsTail::new(path.clone());
        assert_eq!(tail.read_new().unwrap(), records[..4]);
        assert_eq!(tail.read_new().unwrap(), []);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(tail.read_new().unwrap(), records[4..]);
        Metrics::open(path.clone(), 2).unwrap();
        assert_eq!(tail.read_new().unwrap(), records[..2]);
        assert_eq!(MetricsTail::new(path.with_extension("none")).read_new().unwrap(), []);
        let many: Vec<Record> = (1..=1500).map(step).collect();
        let (_folder, path) = folder_with(&many);
        let mut tail = MetricsTail::new(path);
        assert_eq!(tail.read_new().unwrap(), many[..1000]);
        assert_eq!(tail.read_new().unwrap(), many[1000..]);
    }

    #[test]
    fn damage_in_the_middle_loses_its_line_only() {
        let records: Vec<Record> = (1..=4).map(step).collect();
        let (_folder, path) = folder_with(&records);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] = 0xff;
        std::fs::write(&path, &bytes).unwrap();
        Metrics::open(path.clone(), 3).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), records[1..3]);
    }

    #[test]
    fn a_file_without_line_ends_takes_little_memory() {
        let (_folder, path) = folder_with(&[]);
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), []);
        Metrics::open(path.clone(), 5).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
