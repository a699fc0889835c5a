//! The trainer of `feilun up`: this same program, started as `feilun tune` for each job, at idle
//! priority and with a bound on its memory. Killing it never hurts the server; and it ends,
//! with its state saved, when the server does, however that ends.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use feilun_model::{Adapter, ModelFiles};
use feilun_server::room::{Shelf as _, Stored};
use feilun_server::training::{Ending, News, Objective, Trained, Trainer, Training, TrainingOrder};
use feilun_train::data::{Shape, inspect};
use feilun_train::run::{MetricsTail, Record, RunFiles};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::commands::tune::config::usual_rate;
use crate::data_dir::DataDir;
use crate::interrupt;
use crate::shelf::{DataShelf, file_bytes};

/// How long a process of a server before this one may take to let go of its run.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// What is kept of what the process says: the end of its talk, and its report.
const TALK_BYTES_MAX: usize = 16 << 10;
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// Starts `feilun tune`.
#[derive(Debug)]
pub(crate) struct TuneTrainer {
    pub(crate) data: DataDir,
    pub(crate) shelf: DataShelf,
    /// Threads to train with; none for all.
    pub(crate) threads: Option<u16>,
    /// Most memory of a process, in GiB; none for no bound but the machine's.
    pub(crate) memory: Option<f64>,
}

impl Trainer for TuneTrainer {
    fn check(&self, examples: File, objective: Option<Objective>) -> Result<u64, String> {
        let shape = objective.map(|objective| match objective {
            Objective::Supervised => Shape::Chat,
            Objective::Preference => Shape::Pairs,
        });
        let inspected = inspect(examples, shape).map_err(|error| error.to_string())?;
        Ok(inspected.num_examples)
    }

    fn start(&self, order: &TrainingOrder) -> Result<Box<dyn Training>, String> {
        let name = order.name.parse().map_err(|_| "the run's name is no name".to_owned())?;
        let root = self.data.run(&name);
        let base = self.base(order).ok_or_else(|| format!("the base `{}` has gone", order.base))?;
        let files = RunFiles::new(&root);
        let deadline = Instant::now() + PATIENCE;
        // A server that was killed leaves a process that saves its state and ends.
        while let Some(pid) = files.running_pid() {
            if Instant::now() > deadline {
                return Err(format!("process {pid} still works on the run"));
            }
            std::thread::sleep(PAUSE);
        }
        let mut command = self.command(order, &base).map_err(|error| error.to_string())?;
        let child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
        Ok(Box::new(TuneProcess::new(child, base, order.examples.clone(), &files)))
    }
}

impl TuneTrainer {
    /// Where the base is now.
    fn base(&self, order: &TrainingOrder) -> Option<PathBuf> {
        let items = self.shelf.items();
        let by_digest = items
            .iter()
            .find(|item| order.base_digest.is_some() && item.digest == order.base_digest);
        let item = items.iter().find(|item| item.name == order.base).or(by_digest)?;
        match &item.what {
            Stored::Model { path } => Some(path.clone()),
            Stored::Adapter { .. } => None,
        }
    }

    fn command(&self, order: &TrainingOrder, base: &Path) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let of_pairs = order.objective == Objective::Preference;
        command.args(["tune", "--json", "--background", "--attached"]);
        command.arg("--data-dir").arg(std::path::absolute(self.data.path())?);
        command.arg("--base").arg(std::path::absolute(base)?);
        command.arg("--data").arg(std::path::absolute(&order.examples)?);
        command.args(["--objective", if of_pairs { "dpo" } else { "sft" }]);
        command.args(["--out", &order.name, "--epochs", &order.num_epochs.to_string()]);
        command.args(["--seed", &order.seed.to_string()]);
        let rate = usual_rate(true, of_pairs) * order.rate_multiplier;
        command.args(["--learning-rate", &rate.to_string()]);
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.args([name, &value]);
            }
        };
        option("--batch-examples", order.batch_size.map(|size| size.to_string()));
        option("--beta", order.beta.map(|beta| beta.to_string()));
        option("--threads", self.threads.map(|threads| threads.to_string()));
        option("--memory", self.memory.map(|gibibytes| gibibytes.to_string()));
        // A group of its own: Ctrl-C at the server's terminal is for the server.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// `feilun tune` at work.
struct TuneProcess {
    child: Child,
    base: PathBuf,
    examples: PathBuf,
    metrics: MetricsTail,
    /// The end of what it says.
    talk: Arc<Mutex<Vec<u8>>>,
    report: Option<JoinHandle<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    was_killed: bool,
}

/// The part of its report that matters here.
#[derive(Deserialize)]
struct Report {
    path: PathBuf,
    tokens: u64,
}

impl TuneProcess {
    fn new(mut child: Child, base: PathBuf, examples: PathBuf, files: &RunFiles) -> TuneProcess {
        let talk = Arc::<Mutex<Vec<u8>>>::default();
        let reader = child.stderr.take().map(|mut stderr| {
            let talk = Arc::clone(&talk);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                // Always read on, so that it is never held up by a full pipe.
                while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                    let mut talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
                    talk.extend(&buffer[..length]);
                    let surplus = talk.len().saturating_sub(TALK_BYTES_MAX);
                    talk.drain(..surplus);
                }
            })
        });
        let report = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut report = Vec::new();
                let _ = stdout.by_ref().take(REPORT_BYTES_MAX).read_to_end(&mut report);
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
                report
            })
        });
        TuneProcess {
            child,
            base,
            examples,
            metrics: MetricsTail::new(files.metrics()),
            talk,
            report,
            reader,
            was_killed: false,
        }
    }

    fn ended(&mut self, status: ExitStatus) -> Ending {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if status.success() {
            return match self.trained() {
                Ok(trained) => Ending::Trained(trained),
                Err(reason) => Ending::Failed { reason },
            };
        }
        match (status.code(), status.signal()) {
            (Some(code), _) if code == i32::from(interrupt::EXIT_CODE) => {
                Ending::BrokenOff { reason: "the trainer was interrupted".to_owned() }
            }
            (Some(_), _) => Ending::Failed { reason: self.said() },
            // The allocator's way to say that there is no more.
            (None, Some(signal)) if signal == Signal::ABORT.as_raw() => {
                Ending::Failed { reason: self.said() }
            }
            (None, signal) => {
                let by = if self.was_killed { ", by the server" } else { "" };
                let signal = signal.unwrap_or_default();
                Ending::BrokenOff { reason: format!("the trainer died of signal {signal}{by}") }
            }
        }
    }

    fn trained(&mut self) -> Result<Trained, String> {
        let report = self.report.take().and_then(|report| report.join().ok()).unwrap_or_default();
        let told = |error: &dyn std::error::Error| format!("the trainer's result: {error}");
        let report: Report = serde_json::from_slice(&report).map_err(|error| told(&error))?;
        let base = ModelFiles::open(&self.base).map_err(|error| told(&error))?;
        let adapter = Adapter::open(&report.path, base.config()).map_err(|error| told(&error))?;
        let base_digest = base.digest().map_err(|error| told(&error))?;
        Ok(Trained {
            digest: feilun_store::digest::ModelDigest::from_bytes(*adapter.digest.as_bytes()),
            base: feilun_store::digest::ModelDigest::from_bytes(*base_digest.as_bytes()),
            size_bytes: file_bytes(&report.path),
            num_tokens: report.tokens,
        })
    }

    /// Its last failure, without the names of files, which are nobody's business outside.
    fn said(&self) -> String {
        let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let talk = String::from_utf8_lossy(&talk);
        tracing::warn!(%talk, "a training process failed");
        let is_failure = |line: &&str| {
            ["error: ", "refused: ", "usage error: "].iter().any(|label| line.starts_with(label))
        };
        let lines: Vec<&str> = talk.lines().collect();
        let last = lines.iter().rposition(is_failure);
        let failure = match last {
            Some(at) => {
                let causes = lines[at + 1..].iter().filter(|line| line.starts_with("  cause: "));
                let all = std::iter::once(&lines[at]).chain(causes);
                all.map(|line| line.trim()).collect::<Vec<_>>().join("; ")
            }
            None => lines.last().map_or_else(
                || "the trainer failed without a word".to_owned(),
                |line| format!("the trainer failed: {line}"),
            ),
        };
        [(&self.examples, "the training file"), (&self.base, "the base")]
            .into_iter()
            .fold(failure, |text, (path, name)| text.replace(&path.display().to_string(), name))
    }
}

impl Training for TuneProcess {
    fn news(&mut self) -> Vec<News> {
        let records = self.metrics.read_new().unwrap_or_else(|error| {
            tracing::warn!(%error, "the metrics of a run");
            Vec::new()
        });
        records.into_iter().filter_map(news_of).collect()
    }

    fn ending(&mut self) -> Option<Ending> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.ended(status)),
            Err(error) => Some(Ending::Failed { reason: format!("the trainer is lost: {error}") }),
        }
    }

    fn interrupt(&mut self) {
        // One that has ended, but was not waited for, still has its number.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
    }

    fn kill(&mut self) {
        self.was_killed = true;
        let _ = self.child.kill();
    }
}

impl Drop for TuneProcess {
    fn drop(&mut self) {
        // It has been waited for already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn news_of(record: Record) -> Option<News> {
    Some(match record {
        Record::Start { step, num_steps, .. } => News::Started { step, num_steps },
        Record::Step(step) => {
            let (loss, learning_rate) = (step.loss, step.learning_rate);
            News::Step { step: step.step, loss, learning_rate }
        }
        Record::Evaluation { step, loss, .. } => News::Evaluation { step, loss },
        Record::Checkpoint { step, .. } => News::Saved { step },
        Record::Refused { .. } | Record::End { .. } => return None,
    })
}
