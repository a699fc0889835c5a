//! What is made equal before two texts are compared.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// What is done to both texts, in the order of the fields. By default only white space at both
/// ends is removed.
///
/// ```
/// use feilun_eval::score::{Normalise, Spaces};
///
/// let normalise = Normalise {
///     nfkc: true,
///     lowercase: true,
///     drop_punctuation: true,
///     spaces: Spaces::Collapse,
/// };
/// assert_eq!(normalise.apply(" Ｔhe  “Answer”:\n42. "), "the answer 42");
/// assert_eq!(Normalise::default().apply(" The Answer \n"), "The Answer");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalise {
    /// Unicode's compatibility composition: full-width forms become the usual ones, a letter and
    /// its combining accent become one character.
    pub nfkc: bool,
    /// Unicode's lower case.
    pub lowercase: bool,
    /// Leaves out what is no letter, digit, combining mark or white space.
    pub drop_punctuation: bool,
    /// What becomes of white space.
    pub spaces: Spaces,
}

/// What becomes of white space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spaces {
    /// It is compared like everything else.
    Keep,
    /// It is removed at both ends.
    #[default]
    Trim,
    /// It is removed at both ends, and within becomes one space.
    Collapse,
    /// It is removed everywhere.
    Remove,
}

impl Normalise {
    /// The text as it is compared.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if self.nfkc {
            text = text.nfkc().collect::<String>().into();
        }
        if self.lowercase {
            text = text.to_lowercase().into();
        }
        if self.drop_punctuation {
            text = text.chars().filter(|&c| is_kept(c)).collect::<String>().into();
        }
        match (self.spaces, text) {
            (Spaces::Keep, text) => text,
            (Spaces::Trim, Cow::Borrowed(text)) => text.trim().into(),
            (Spaces::Trim, Cow::Owned(text)) => text.trim().to_owned().into(),
            (Spaces::Collapse, text) => joined(&text, " ").into(),
            (Spaces::Remove, text) => joined(&text, "").into(),
        }
    }
}

/// Letters, digits, combining marks, white space.
fn is_kept(character: char) -> bool {
    character.is_alphanumeric()
        || character.is_whitespace()
        || unicode_normalization::char::is_combining_mark(character)
}

fn joined(text: &str, between: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !joined.is_empty() {
            joined += between;
        }
        joined += word;
    }
    joined
}
