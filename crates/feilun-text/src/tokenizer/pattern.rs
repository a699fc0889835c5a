//! Regular expressions that cut a text into words.
//!
//! The published expressions end in `\s+(?!\S)|\s+`: of white space before a word, the last
//! character goes to the word. Looking ahead needs a backtracking engine, which is slow, and gives
//! up on some inputs. For the expressions known here the same cut is made by a linear-time engine
//! without the look-ahead, and the last white space is given back afterwards. Other expressions
//! run on the linear-time engine if they can, and else on the backtracking one within limits.

use super::error::{TokenizerError, short};
use super::vocab::check_size;

/// GPT-2's.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's and 3's.
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral Nemo's.
pub(super) const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const LOOK_AHEAD: &str = r"|\s+(?!\S)|\s+";
const PATTERN_BYTES_MAX: usize = 1 << 12;
const COMPILED_BYTES_MAX: usize = 1 << 23;
const BACKTRACKS_MAX: usize = 20_000;
/// The backtracking engine may need `BACKTRACKS_MAX` steps at each place.
const BACKTRACKING_TEXT_BYTES_MAX: usize = 1 << 18;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Pattern {
    source: Box<str>,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Linear(regex::Regex),
    /// Without its look-ahead. White space that ends in a line break stays whole if the
    /// expression has a case of its own for it.
    WhiteSpaceGivenBack {
        regex: regex::Regex,
        line_breaks_stay: bool,
    },
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    pub(super) fn new(source: &str) -> Result<Pattern, TokenizerError> {
        check_size("length of a regular expression", source.len(), PATTERN_BYTES_MAX)?;
        let failed = |reason: String| TokenizerError::Regex {
            pattern: short(source),
            reason: short(&reason),
        };
        let linear =
            |source: &str| regex::RegexBuilder::new(source).size_limit(COMPILED_BYTES_MAX).build();
        let engine = if [GPT2, LLAMA3, QWEN2, TEKKEN].contains(&source) {
            let start = source.strip_suffix(LOOK_AHEAD).unwrap_or(source);
            let regex =
                linear(&format!(r"{start}|\s+")).map_err(|error| failed(error.to_string()))?;
            Engine::WhiteSpaceGivenBack { regex, line_breaks_stay: source != GPT2 }
        } else if let Ok(regex) = linear(source) {
            Engine::Linear(regex)
        } else {
            let regex = fancy_regex::RegexBuilder::new(source)
                .backtrack_limit(BACKTRACKS_MAX)
                .delegate_size_limit(COMPILED_BYTES_MAX)
                .build()
                .map_err(|error| failed(error.to_string()))?;
            Engine::Backtracking(Box::new(regex))
        };
        Ok(Pattern { source: source.into(), engine })
    }

    /// The expression as it was given.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Calls `each` with the bounds of every match, from left to right.
    pub(super) fn for_each(
        &self,
        text: &str,
        mut each: impl FnMut(usize, usize),
    ) -> Result<(), TokenizerError> {
        match &self.engine {
            Engine::Linear(regex) => {
                regex.find_iter(text).for_each(|found| each(found.start(), found.end()));
            }
            Engine::WhiteSpaceGivenBack { regex, line_breaks_stay } => {
                let mut at = 0;
                while let Some(found) = regex.find_at(text, at) {
                    let end = match given_back(text, found.range(), *line_breaks_stay) {
                        Some(shorter) => shorter,
                        None => found.end(),
                    };
                    each(found.start(), end);
                    // None of the known expressions matches nothing.
                    at = end;
                }
            }
            Engine::Backtracking(regex) => {
                let what = "length of a text for a regular expression with look-around";
                check_size(what, text.len(), BACKTRACKING_TEXT_BYTES_MAX)?;
                for found in regex.find_iter(text) {
                    let found = found.map_err(|error| TokenizerError::Regex {
                        pattern: short(&self.source),
                        reason: short(&error.to_string()),
                    })?;
                    each(found.start(), found.end());
                }
            }
        }
        Ok(())
    }
}

/// Where a run of white space ends after giving its last character to the word behind it.
fn given_back(text: &str, run: std::ops::Range<usize>, line_breaks_stay: bool) -> Option<usize> {
    let next = text[run.end..].chars().next()?;
    if next.is_whitespace() {
        return None;
    }
    let last = text[run.clone()].chars().next_back()?;
    if line_breaks_stay && matches!(last, '\r' | '\n') {
        return None;
    }
    let end = run.end - last.len_utf8();
    (end > run.start && text[run].chars().all(char::is_whitespace)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        Pattern::new(source)
            .unwrap()
            .for_each(text, |start, end| words.push(text[start..end].to_string()))
            .unwrap();
        words
    }

    /// What the expression itself says, by the backtracking engine.
    fn expected(source: &str, text: &str) -> Vec<String> {
        let regex = fancy_regex::Regex::new(source).unwrap();
        regex.find_iter(text).map(|found| found.unwrap().as_str().to_string()).collect()
    }

    proptest::proptest! {
        #[test]
        fn known_expressions_cut_as_they_say(text in r"([ \t\r\n\u{a0}\u{2003}]{0,5}|[a-zäÄ字 ́]{1,3}|[0-9Ⅷ]{1,4}|'[a-zS]{1,2}|[!-/]{1,3}|\PC)*") {
            for source in [GPT2, LLAMA3, QWEN2, TEKKEN] {
                proptest::prop_assert_eq!(words(source, &text), expected(source, &text));
            }
        }
    }

    #[test]
    fn a_hostile_expression_is_an_error() {
        for source in ["(", "(a{1000}){1000}{1000}", &"a".repeat(PATTERN_BYTES_MAX + 1)] {
            Pattern::new(source).unwrap_err();
        }
        let evil = Pattern::new(r"(a|aa)+\1$").unwrap();
        let error = evil.for_each(&format!("{}b", "a".repeat(60)), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("regular expression"), "{error}");
    }
}
