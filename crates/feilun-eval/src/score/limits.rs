//! How large what is compared may be. Everything is measured before it is worked on.

use super::ScoreError;

/// An answer; beyond that, scoring it is an error.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// An answer that is read into a tree of JSON values, which take up to 40 times its length.
pub const JSON_ANSWER_BYTES_MAX: usize = 1 << 20;
/// An answer of whose matches the last is wanted: finding all matches may take time in the square
/// of the length.
pub const MATCHES_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Matches that are looked at to find the last one.
pub const MATCHES_MAX: usize = 10_000;
/// References of one item.
pub const REFERENCES_MAX: usize = 64;
/// All references of one item together.
pub const REFERENCE_BYTES_MAX: usize = 4 << 20;
/// A regular expression.
pub const PATTERN_BYTES_MAX: usize = 4 << 10;
/// A compiled regular expression, in bytes.
pub const COMPILED_PATTERN_BYTES_MAX: usize = 1 << 20;
/// Calls of one answer, and of one reference.
pub const CALLS_MAX: usize = 128;
/// A note beside a score, in characters.
pub const NOTE_CHARS_MAX: usize = 300;

pub(super) fn check_answer(answer: &str, max: usize) -> Result<(), ScoreError> {
    if answer.len() > max {
        return Err(ScoreError::AnswerTooLong { found: answer.len(), max });
    }
    Ok(())
}

/// A note that fits into a line, whatever the answer was.
pub(super) fn cut_note(note: String) -> String {
    match note.char_indices().nth(NOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &note[..end]),
        None => note,
    }
}
