//! What the records of a run say about it as a whole.

use std::time::{Duration, UNIX_EPOCH};

use feilun_train::planner::{Plan, Score};
use feilun_train::run::Record;
use feilun_train::run::checkpoint::Best;
use serde::Serialize;

/// Steps whose losses are averaged for "the loss now": one step alone is noise.
const NUM_LAST: usize = 10;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// A process works on it.
    Running,
    /// All steps are done.
    Finished,
    /// It was asked to stop, and saved.
    Interrupted,
    /// A guard stopped it.
    Refused,
    /// Its process was killed or failed.
    BrokenOff,
    /// Nothing has happened.
    Begun,
}

impl State {
    pub(super) fn label(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Finished => "finished",
            State::Interrupted => "interrupted",
            State::Refused => "refused",
            State::BrokenOff => "broken off",
            State::Begun => "begun",
        }
    }
}

/// A run in numbers; also its form in `--json`.
#[derive(Debug, Serialize)]
pub(super) struct History {
    pub(super) name: String,
    pub(super) state: State,
    /// The process that works on it.
    pub(super) pid: Option<String>,
    /// Why a guard stopped it.
    pub(super) reason: Option<String>,
    pub(super) step: u64,
    pub(super) num_steps: Option<u64>,
    pub(super) num_skipped: usize,
    /// Mean over the last steps.
    pub(super) loss: Option<f64>,
    pub(super) held_out_loss: Option<f64>,
    /// Of the last evaluation, where the bytes of the text are known.
    pub(super) bits_per_byte: Option<f64>,
    pub(super) best: Option<Best>,
    pub(super) num_tokens: u64,
    /// Of training, without evaluations and checkpoints.
    pub(super) tokens_per_second: Option<f64>,
    /// In steps, evaluations and checkpoints.
    pub(super) seconds: f64,
    pub(super) started: Option<String>,
    #[serde(skip)]
    pub(super) started_unix_seconds: Option<u64>,
    /// What was predicted for its last process.
    pub(super) plan: Option<Plan>,
    pub(super) score: Option<Score>,
    /// After how many steps there are checkpoints.
    pub(super) checkpoints: Vec<u64>,
}

impl History {
    pub(super) fn of(
        name: &str,
        records: &[Record],
        pid: Option<String>,
        checkpoints: Vec<u64>,
    ) -> History {
        let mut history = History {
            name: name.to_owned(),
            state: State::Begun,
            pid,
            reason: None,
            step: 0,
            num_steps: None,
            num_skipped: 0,
            loss: None,
            held_out_loss: None,
            bits_per_byte: None,
            best: None,
            num_tokens: 0,
            tokens_per_second: None,
            seconds: 0.0,
            started: None,
            started_unix_seconds: None,
            plan: None,
            score: None,
            checkpoints,
        };
        let mut step_seconds = 0.0;
        for record in records {
            history.add(record, &mut step_seconds);
        }
        if history.pid.is_some() {
            history.state = State::Running;
        }
        let losses = losses(records);
        let last = &losses[losses.len().saturating_sub(NUM_LAST)..];
        let sum: f64 = last.iter().map(|&(_, loss)| loss).sum();
        history.loss = (!last.is_empty()).then(|| sum / last.len() as f64);
        history.tokens_per_second =
            (step_seconds > 0.0).then(|| history.num_tokens as f64 / step_seconds);
        history
    }

    fn add(&mut self, record: &Record, step_seconds: &mut f64) {
        // Unless a later record says better.
        self.state = State::BrokenOff;
        match record {
            Record::Start { unix_seconds, num_steps, plan, .. } => {
                self.started_unix_seconds.get_or_insert(*unix_seconds);
                // No year has more than 12 digits of seconds; a damaged file may.
                let time =
                    UNIX_EPOCH.checked_add(Duration::from_secs((*unix_seconds).min(1 << 37)));
                let text = |time| humantime::format_rfc3339_seconds(time).to_string();
                self.started = self.started.take().or_else(|| time.map(text));
                self.num_steps = Some(*num_steps);
                self.plan = *plan;
                (self.reason, self.score) = (None, None);
            }
            Record::Step(step) => {
                self.step = step.step;
                self.num_tokens += step.num_tokens;
                self.num_skipped += usize::from(step.skipped.is_some());
                self.seconds += step.seconds;
                *step_seconds += step.seconds;
            }
            Record::Evaluation { step, loss, bits_per_byte, seconds, .. } => {
                self.held_out_loss = Some(*loss);
                self.bits_per_byte = *bits_per_byte;
                if self.best.is_none_or(|best| *loss < best.loss) {
                    self.best = Some(Best { step: *step, loss: *loss });
                }
                self.seconds += seconds;
            }
            Record::Checkpoint { seconds, .. } => self.seconds += seconds,
            Record::Refused { reason, .. } => {
                self.state = State::Refused;
                self.reason = Some(reason.clone());
            }
            Record::End { is_finished, score, .. } => {
                self.state = if *is_finished { State::Finished } else { State::Interrupted };
                self.score = *score;
            }
        }
    }

    pub(super) fn state_in_words(&self) -> String {
        let label = self.state.label();
        match (self.state, &self.pid) {
            (State::Running, Some(pid)) => format!("{label}, process {pid}"),
            (State::BrokenOff, _) => {
                format!("{label}: the process was killed or failed; it can be resumed")
            }
            _ => label.to_owned(),
        }
    }
}

/// (step, loss) of each step.
pub(super) fn losses(records: &[Record]) -> Vec<(f64, f64)> {
    let point = |record: &Record| match record {
        Record::Step(step) => Some((step.step as f64, step.loss)),
        _ => None,
    };
    records.iter().filter_map(point).collect()
}

/// (step, held-out loss) of each evaluation.
pub(super) fn held_out(records: &[Record]) -> Vec<(f64, f64)> {
    let point = |record: &Record| match record {
        Record::Evaluation { step, loss, .. } => Some((*step as f64, *loss)),
        _ => None,
    };
    records.iter().filter_map(point).collect()
}
