//! How far a transfer is: a bar for a person, two plain lines for a log.

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Outcome;
use crate::output;

/// The progress of one transfer.
pub(crate) struct Progress {
    /// `None` where nobody watches.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Announces `what`, of `total` bytes.
    pub(crate) fn start(what: &str, total: u64) -> Outcome<Progress> {
        if !output::is_interactive() {
            output::talk(format!("{what} ({})", output::bytes(total)));
            return Ok(Progress { bar: None });
        }
        // The name comes last and gives way, so that no bar wraps on a narrow terminal.
        let style = ProgressStyle::with_template(
            "[{bar:20}] {binary_bytes:>10} of {binary_total_bytes} {binary_bytes_per_sec} {wide_msg}",
        )?;
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
        bar.set_message(what.to_owned());
        Ok(Progress { bar: Some(bar) })
    }

    pub(crate) fn add(&self, num_bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(num_bytes);
        }
    }

    /// Sets the bytes that are there already.
    pub(crate) fn set(&self, num_bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(num_bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
