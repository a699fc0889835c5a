//! What a person sees of an evaluation: a line that moves on a terminal, a line now and then in
//! a log.

use std::time::{Duration, Instant};

use feilun_eval::run::ItemResult;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Time between two lines of a log.
const LOG_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    model: String,
    start: Instant,
    last_line: Instant,
    /// Items that were there before.
    num_before: usize,
    num_done: usize,
    num_items: usize,
    num_problems: usize,
}

impl Progress {
    pub(super) fn new(model: &str, num_before: usize, num_items: usize) -> Progress {
        let bar = output::is_interactive().then(|| {
            let bar = ProgressBar::new(num_items as u64);
            if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {pos}/{len} {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(model.to_owned());
            bar
        });
        let now = Instant::now();
        Progress {
            bar,
            model: model.to_owned(),
            start: now,
            last_line: now,
            num_before,
            num_done: num_before,
            num_items,
            num_problems: 0,
        }
    }

    pub(super) fn see(&mut self, results: &[ItemResult]) {
        self.num_done += results.len();
        self.num_problems += results.iter().filter(|result| result.problem.is_some()).count();
        let line = self.line();
        if let Some(bar) = &self.bar {
            bar.set_position(self.num_done as u64);
            bar.set_message(line);
        } else if self.last_line.elapsed() >= LOG_EVERY {
            self.last_line = Instant::now();
            output::talk(format!("item {} of {}: {line}", self.num_done, self.num_items));
        }
    }

    fn line(&self) -> String {
        let elapsed = self.start.elapsed().as_secs_f64();
        let num_now = self.num_done - self.num_before;
        let per_second = num_now as f64 / elapsed.max(1e-9);
        let left = (self.num_items - self.num_done) as f64 / per_second.max(1e-9);
        let left = humantime::format_duration(Duration::from_secs(left.min(1e9).ceil() as u64));
        let problems = match self.num_problems {
            0 => String::new(),
            num => format!(", {num} without a result"),
        };
        format!("{}, {per_second:.1} items/s, {left} left{problems}", self.model)
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
