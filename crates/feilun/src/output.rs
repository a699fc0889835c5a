//! The two streams: data goes to stdout, talk to stderr. Colours only where a person looks.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::LazyLock;

use serde::Serialize;

use crate::failure::Outcome;

/// Writes a line of data to stdout.
pub(crate) fn data(line: impl Display) -> Outcome {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Writes one JSON value to stdout, on lines of its own.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    data(serde_json::to_string_pretty(value)?)
}

/// Says a line to the person at the terminal.
pub(crate) fn talk(line: impl Display) {
    // Where nobody listens there is nothing to be done about it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether a person watches stderr: progress bars and questions make sense.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal()
}

pub(crate) fn red(text: &str) -> String {
    painted(text, "31")
}

pub(crate) fn yellow(text: &str) -> String {
    painted(text, "33")
}

pub(crate) fn green(text: &str) -> String {
    painted(text, "32")
}

/// One rule for both streams: what is painted on one looks the same on the other.
static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    crate::environment::allows_colours()
        && std::io::stderr().is_terminal()
        && std::io::stdout().is_terminal()
});

fn painted(text: &str, code: &str) -> String {
    if *COLOURS { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `1536` as `1.5 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_read_by_people() {
        assert_eq!(super::bytes(0), "0 B");
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1536), "1.5 KiB");
        assert_eq!(super::bytes(98_362_432), "93.8 MiB");
        assert_eq!(super::bytes(u64::MAX), "16777216.0 TiB");
    }
}
