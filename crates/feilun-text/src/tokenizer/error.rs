//! Why a tokenizer could not be built, or a text not encoded.

/// An error of [`Tokenizer`](super::Tokenizer): what was looked at, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Something is larger than this crate is willing to handle.
    #[error("{what}: {found} is more than the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size accepted.
        limit: usize,
    },
    /// Two arrays that describe the same tokens differ in length.
    #[error("{what}: found {found} elements, expected {expected}, one per token")]
    WrongLength {
        /// The array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// A part that the tokenizer cannot do without is absent.
    #[error("{what} is missing")]
    Missing {
        /// The absent part.
        what: &'static str,
    },
    /// Two tokens, or two merges, have the same text.
    #[error("{what} {text:?} appears twice, at {first} and at {second}")]
    Duplicate {
        /// `token`, `byte token` or `merge`.
        what: &'static str,
        /// The repeated text, shortened.
        text: Box<str>,
        /// Where it came first.
        first: usize,
        /// Where it came again.
        second: usize,
    },
    /// An id that no token has.
    #[error("{what}: id {id} is outside the vocabulary of {vocab_size} tokens")]
    IdOutOfRange {
        /// What named the id.
        what: &'static str,
        /// The id.
        id: u64,
        /// The number of tokens.
        vocab_size: usize,
    },
    /// A token that contradicts its type or score.
    #[error("token {id} {text:?}: {reason}")]
    BadToken {
        /// The token's id.
        id: usize,
        /// Its text, shortened.
        text: Box<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A merge that does not join two tokens into a third.
    #[error("merge {index} {text:?}: {reason}")]
    BadMerge {
        /// Its place in the list.
        index: usize,
        /// Its text, shortened.
        text: Box<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A kind of tokenizer, or a part of one, that this crate does not know.
    #[error("{what} {found:?} is not supported (supported: {supported})")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value, shortened.
        found: Box<str>,
        /// The values that work.
        supported: &'static str,
    },
    /// `tokenizer.json` is not the JSON that was expected.
    #[error("{file} cannot be read")]
    Json {
        /// The file's usual name.
        file: &'static str,
        /// The parser's complaint.
        source: serde_json::Error,
    },
    /// A regular expression does not compile, or gave up on a text.
    #[error("regular expression {pattern:?}: {reason}")]
    Regex {
        /// The expression, shortened.
        pattern: Box<str>,
        /// The engine's complaint.
        reason: Box<str>,
    },
    /// A table of character replacements (`precompiled_charsmap`) that points outside itself.
    #[error("precompiled_charsmap: {reason}")]
    BadCharsmap {
        /// What is wrong.
        reason: &'static str,
    },
    /// A character that the vocabulary has no token for, and no fallback.
    #[error(
        "no token for {character:?}, and the vocabulary has neither bytes nor an unknown token"
    )]
    NoToken {
        /// The character.
        character: char,
    },
}

/// A text short enough for a message, whatever a hostile file holds.
pub(super) fn short(text: &str) -> Box<str> {
    const LIMIT_CHARS: usize = 60;
    match text.char_indices().nth(LIMIT_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]).into(),
        None => text.into(),
    }
}
