//! Regular expressions.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::limits::{
    COMPILED_PATTERN_BYTES_MAX, MATCHES_ANSWER_BYTES_MAX, MATCHES_MAX, PATTERN_BYTES_MAX,
    check_answer,
};
use super::{Normalise, Reference, Score, ScoreError};

/// A regular expression in the syntax of the `regex` crate, which takes linear time.
///
/// Without `extract` the answer is right where the pattern matches somewhere in it (write `^...$`
/// for all of it); where there is no `pattern`, the item's references are patterns, of which any
/// will do. With `extract` the pattern finds a part of the answer, and that is compared with the
/// references.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pattern {
    /// The same pattern for all items.
    pub pattern: Option<String>,
    /// What is found is compared.
    pub extract: Option<Extract>,
}

/// Which match is compared, and how. Of a pattern with groups the first group counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extract {
    /// Which of several matches.
    pub which: Which,
    /// What is made equal before the comparison.
    pub normalise: Normalise,
}

/// Which of several matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The first one.
    #[default]
    First,
    /// The last one: where a model thinks aloud before it answers.
    Last,
}

impl Pattern {
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        match (&self.pattern, &self.extract) {
            (None, Some(_)) => Err(ScoreError::Setting {
                setting: "pattern",
                found: "none".to_owned(),
                expected: "a regular expression that says what to extract".to_owned(),
            }),
            (None, None) => {
                reference.check_texts(str::is_empty)?;
                reference.texts()?.iter().try_for_each(|text| compile(text).map(drop))
            }
            (Some(pattern), extract) => {
                compile(pattern)?;
                if extract.is_some() { reference.check_texts(|_| false) } else { Ok(()) }
            }
        }
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        let verdict = match (&self.pattern, &self.extract) {
            (Some(pattern), Some(extract)) => {
                let found = extract.find(&compile(pattern)?, answer)?;
                extract.compare(found, reference.texts()?)
            }
            (Some(pattern), None) => matches_any(std::slice::from_ref(pattern), answer)?,
            (None, _) => matches_any(reference.texts()?, answer)?,
        };
        Ok(Score::verdict(verdict))
    }
}

fn matches_any(patterns: &[String], answer: &str) -> Result<Result<(), String>, ScoreError> {
    for pattern in patterns {
        if compile(pattern)?.is_match(answer) {
            return Ok(Ok(()));
        }
    }
    Ok(Err("no match".to_owned()))
}

impl Extract {
    fn find<'a>(&self, regex: &Regex, answer: &'a str) -> Result<Option<&'a str>, ScoreError> {
        let captures = match self.which {
            Which::First => regex.captures(answer),
            Which::Last => {
                check_answer(answer, MATCHES_ANSWER_BYTES_MAX)?;
                let mut last = None;
                for (index, captures) in regex.captures_iter(answer).enumerate() {
                    if index == MATCHES_MAX {
                        return Err(ScoreError::TooManyMatches { max: MATCHES_MAX });
                    }
                    last = Some(captures);
                }
                last
            }
        };
        // A group that took no part in the match has found nothing.
        let group = usize::from(regex.captures_len() > 1);
        Ok(captures.and_then(|captures| captures.get(group)).map(|found| found.as_str()))
    }

    fn compare(&self, found: Option<&str>, references: &[String]) -> Result<(), String> {
        let found = found.ok_or("no match")?;
        let normalised = self.normalise.apply(found);
        if references.iter().any(|text| self.normalise.apply(text) == normalised) {
            return Ok(());
        }
        Err(format!("found {found:?}"))
    }
}

fn compile(pattern: &str) -> Result<Regex, ScoreError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(ScoreError::Setting {
            setting: "pattern",
            found: format!("{} bytes", pattern.len()),
            expected: format!("at most {PATTERN_BYTES_MAX} bytes"),
        });
    }
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_PATTERN_BYTES_MAX)
        .dfa_size_limit(COMPILED_PATTERN_BYTES_MAX)
        .build()
        .map_err(|source| ScoreError::Pattern {
            pattern: pattern.to_owned(),
            source: Box::new(source),
        })
}
