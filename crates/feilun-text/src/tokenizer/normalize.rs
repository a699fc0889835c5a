//! Changes to a text before it is cut into words, as `tokenizer.json` lists them.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::charsmap::Charsmap;
use super::error::TokenizerError;
use super::pattern::Pattern;
use super::vocab::check_size;

/// A changed text may be longer than the original, but not longer than this.
const NORMALIZED_BYTES_MAX: usize = 1 << 28;

/// Where a piece of text lies; some changes are for beginnings only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the start of the whole text.
    Start,
    /// Right after a control token.
    AfterControl,
    /// Right after other text that was encoded on its own.
    AfterText,
}

/// One change.
#[derive(Debug)]
pub(super) enum Normalize {
    /// Unicode normalization forms.
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    Replace {
        from: String,
        to: String,
    },
    ReplacePattern {
        from: Pattern,
        to: String,
    },
    /// Put before a text that is not empty and does not continue another.
    Prepend(String),
    Strip {
        left: bool,
        right: bool,
    },
    Charsmap(Box<Charsmap>),
}

impl Normalize {
    fn apply<'t>(&self, text: Cow<'t, str>, place: Place) -> Result<Cow<'t, str>, TokenizerError> {
        Ok(match self {
            Normalize::Nfc => text.nfc().collect::<String>().into(),
            Normalize::Nfd => text.nfd().collect::<String>().into(),
            Normalize::Nfkc => text.nfkc().collect::<String>().into(),
            Normalize::Nfkd => text.nfkd().collect::<String>().into(),
            Normalize::Lowercase => text.to_lowercase().into(),
            Normalize::Replace { from, to } if text.contains(from.as_str()) => {
                text.replace(from.as_str(), to).into()
            }
            Normalize::ReplacePattern { from, to } => {
                let mut out = String::new();
                let mut done = 0;
                from.for_each(&text, |start, end| {
                    out.push_str(&text[done..start]);
                    out.push_str(to);
                    done = end;
                })?;
                out.push_str(&text[done..]);
                out.into()
            }
            Normalize::Prepend(prefix) if !text.is_empty() && place != Place::AfterText => {
                format!("{prefix}{text}").into()
            }
            Normalize::Strip { left, right } => {
                let stripped = if *left { text.trim_start() } else { &*text };
                let stripped = if *right { stripped.trim_end() } else { stripped };
                stripped.to_string().into()
            }
            Normalize::Charsmap(charsmap) => charsmap.apply(&text).into(),
            Normalize::Replace { .. } | Normalize::Prepend(_) => text,
        })
    }

    /// How many times longer this can make a text, at most, apart from a prefix.
    fn growth_max(&self) -> usize {
        match self {
            // UAX #15: 3 for NFC and NFD in UTF-8, 11 for NFKC and NFKD.
            Normalize::Nfc | Normalize::Nfd => 3,
            Normalize::Nfkc | Normalize::Nfkd => 11,
            Normalize::Lowercase => 3,
            Normalize::Replace { from, to } => to.len().div_ceil(from.len().max(1)).max(1),
            Normalize::ReplacePattern { to, .. } => to.len() * 2 + 1,
            Normalize::Prepend(_) | Normalize::Strip { .. } => 1,
            Normalize::Charsmap(charsmap) => charsmap.growth_max(),
        }
    }
}

/// Applies all changes in order.
pub(super) fn normalize<'t>(
    steps: &[Normalize],
    text: &'t str,
    place: Place,
) -> Result<Cow<'t, str>, TokenizerError> {
    // The real growth decides, step by step; what a step could do is checked before it is done.
    let mut text = Cow::Borrowed(text);
    for step in steps {
        let bytes_max = text.len().saturating_mul(step.growth_max());
        check_size("length of a normalized text", bytes_max, NORMALIZED_BYTES_MAX)?;
        text = step.apply(text, place)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_explode() {
        let double = || Normalize::Replace { from: "a".into(), to: "a".repeat(64) };
        let steps: Vec<_> = (0..8).map(|_| double()).collect();
        let error = normalize(&steps, "aaaa", Place::Start).unwrap_err();
        assert!(matches!(error, TokenizerError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_prefix_is_for_beginnings() {
        let steps = [Normalize::Prepend("▁".into())];
        let at = |place| normalize(&steps, "a", place).unwrap().into_owned();
        assert_eq!(at(Place::Start), "▁a");
        assert_eq!(at(Place::AfterControl), "▁a");
        assert_eq!(at(Place::AfterText), "a");
        assert_eq!(normalize(&steps, "", Place::Start).unwrap(), "");
    }
}
