//! What a person sees of a run: a line that moves on a terminal, a line now and then in a log.

use std::time::{Duration, Instant};

use feilun_model::train::PassFlops;
use feilun_train::planner::{Plan, Score};
use feilun_train::run::{Record, StepRecord};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Time between two lines of a log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The most that the machine can do, and what a token costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roof {
    pub(super) flops_per_second: f64,
    pub(super) flops: PassFlops,
}

impl Roof {
    /// What a step makes of it.
    fn share(&self, step: &StepRecord) -> f64 {
        let PassFlops { per_token, per_learned_token } = self.flops;
        let work =
            per_token * step.num_tokens as f64 + per_learned_token * step.sums.num_tokens as f64;
        work / step.seconds.max(1e-9) / self.flops_per_second
    }
}

/// The progress of a run.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    num_steps: u64,
    roof: Option<Roof>,
    seconds: f64,
    steps_seen: u64,
    last_line: Option<Instant>,
}

impl Progress {
    pub(super) fn new(num_steps: u64, roof: Option<Roof>) -> Progress {
        let bar = output::is_interactive().then(|| {
            let bar = ProgressBar::new(num_steps);
            if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {pos}/{len} {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress { bar, num_steps, roof, seconds: 0.0, steps_seen: 0, last_line: None }
    }

    pub(super) fn see(&mut self, record: &Record) {
        match record {
            Record::Step(step) => {
                self.seconds += step.seconds;
                self.steps_seen += 1;
                let left = self.num_steps.saturating_sub(step.step) as f64;
                let left = duration(left * self.seconds / self.steps_seen as f64);
                let speed = step.num_tokens as f64 / step.seconds.max(1e-9);
                let skipped = if step.skipped.is_some() { ", skipped: an outlier" } else { "" };
                let share = self.roof.map_or_else(String::new, |roof| {
                    format!(" ({:.0} % of peak)", 100.0 * roof.share(step))
                });
                let line = format!(
                    "loss {:.4}, gradient {:.2}, rate {:.1e}, {speed:.0} tokens/s{share}, {left} \
                     left{skipped}",
                    step.loss, step.gradient_norm, step.learning_rate
                );
                self.say(step.step, line, step.skipped.is_some() || step.step == self.num_steps);
            }
            Record::Evaluation { step, loss, bits_per_byte, .. } => {
                let bits = bits_per_byte
                    .map_or_else(String::new, |bits| format!(", {bits:.4} bits per byte"));
                self.print(format!("step {step}: held-out loss {loss:.4}{bits}"));
            }
            _ => {}
        }
    }

    fn say(&mut self, step: u64, line: String, always: bool) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(line);
        } else if always || self.last_line.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            self.last_line = Some(Instant::now());
            output::talk(format!("step {step} of {}: {line}", self.num_steps));
        }
    }

    fn print(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => output::talk(line),
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// The progress of reading the data.
pub(crate) struct Reading {
    bar: Option<ProgressBar>,
}

impl Reading {
    pub(crate) fn new() -> Reading {
        Reading { bar: output::is_interactive().then(|| ProgressBar::new(0)) }
    }

    pub(crate) fn see(&mut self, done: u64, all: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The prediction, before the first step.
pub(super) fn print_plan(plan: &Plan, num_steps: u64) {
    let memory = plan
        .peak_bytes
        .map_or_else(String::new, |bytes| format!(", {} of memory", output::bytes(bytes)));
    output::talk(format!(
        "predicted: {num_steps} steps in {} at {:.0} tokens/s{memory}",
        duration(plan.seconds),
        plan.tokens_per_second
    ));
}

/// How far off it was.
pub(super) fn print_score(score: &Score) {
    let off = |found: f64, predicted: f64| 100.0 * (found - predicted) / predicted.max(1e-9);
    let memory = match (score.plan.peak_bytes, score.peak_bytes) {
        (Some(predicted), Some(found)) => format!(
            ", {} of memory ({:+.0} %)",
            output::bytes(found),
            off(found as f64, predicted as f64)
        ),
        _ => String::new(),
    };
    output::talk(format!(
        "took {} ({:+.0} % of the prediction) at {:.0} tokens/s{memory}",
        duration(score.seconds),
        off(score.seconds, score.plan.seconds),
        score.tokens_per_second
    ));
}

/// `3 h 25 min`, `4 min 10 s`, `9 s`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(9.4, "9 s"), (250.0, "4 min 10 s"), (12_300.0, "3 h 25 min")] {
            assert_eq!(super::duration(seconds), text);
        }
    }
}
