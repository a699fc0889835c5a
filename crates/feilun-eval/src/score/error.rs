//! Why something could not be scored.

/// Why a scorer, a reference or an answer cannot be used. Never raised for an answer that is
/// merely wrong.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A setting has a value that it cannot have.
    #[error("`{setting}`: found {found}, expected {expected}")]
    Setting {
        /// Its name in the file.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A regular expression cannot be compiled, or only into something too large.
    #[error("regular expression `{pattern}`")]
    Pattern {
        /// As it stands in the file.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// The scorer needs another kind of reference.
    #[error("reference: found {found}, expected {expected}")]
    ReferenceKind {
        /// What the item has.
        found: &'static str,
        /// What the scorer needs.
        expected: &'static str,
    },
    /// A reference has no content, so that no answer, or every answer, would be right.
    #[error("reference {index} is empty")]
    EmptyReference {
        /// Which of the item's references, from 0.
        index: usize,
    },
    /// Too many references, or too long ones.
    #[error("references: found {found} {unit}, at most {max} are allowed")]
    ReferenceTooLarge {
        /// How many.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// The bound.
        max: usize,
    },
    /// The answer is longer than this scorer reads.
    #[error("the answer has {found} bytes, at most {max} are scored")]
    AnswerTooLong {
        /// Its length in bytes.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// The pattern matches too often to look for the last match.
    #[error("the pattern matches more than {max} times in the answer")]
    TooManyMatches {
        /// The bound.
        max: usize,
    },
}
