//! Names that are safe to build a path from.

use std::fmt;
use std::str::FromStr;

/// The name of an installed model: lower-case letters, digits, `-`, `_` and `.`, at most 64,
/// a letter or digit first. It is one path component whatever it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModelName(String);

/// Why a text is no model name.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{found}` is no model name: expected 1 to {MAX_LEN} of a-z, 0-9, `-`, `_` and `.`, \
     a letter or digit first"
)]
pub(crate) struct BadModelName {
    found: String,
}

const MAX_LEN: usize = 64;

impl ModelName {
    /// The name that lies nearest to some text, such as a repository's or a file's name.
    pub(crate) fn from_text(text: &str) -> Result<ModelName, BadModelName> {
        let plain = |c: char| if is_allowed(c) { c } else { '-' };
        let name: String = text.to_lowercase().chars().map(plain).take(MAX_LEN).collect();
        name.trim_start_matches(['-', '_', '.']).parse()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.')
}

impl FromStr for ModelName {
    type Err = BadModelName;

    fn from_str(text: &str) -> Result<ModelName, BadModelName> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= MAX_LEN && text.chars().all(is_allowed) {
            return Ok(ModelName(text.to_owned()));
        }
        Err(BadModelName { found: text.chars().take(100).collect() })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ModelName;

    #[test]
    fn names_never_leave_their_folder() {
        for text in ["", ".", "..", "../x", "a/b", "a\\b", "-x", ".partial", "A", "a b", "ä", "a\0"]
        {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
        assert!("a".repeat(65).parse::<ModelName>().is_err());
        assert!("smollm2-135m_q4.1".parse::<ModelName>().is_ok());
    }

    #[test]
    fn text_becomes_the_nearest_name() {
        let name = |text| ModelName::from_text(text).unwrap().0;
        assert_eq!(name("SmolLM2-135M Instruct"), "smollm2-135m-instruct");
        assert_eq!(name("../../etc/passwd"), "etc-passwd");
        assert!(ModelName::from_text("模型").is_err());
    }
}
