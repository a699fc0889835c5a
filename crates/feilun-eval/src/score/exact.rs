//! Exact match and containment.

use serde::{Deserialize, Serialize};

use super::{Normalise, Reference, Score, ScoreError};

/// The answer equals one of the references, after both were normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exact {
    /// What is made equal before.
    pub normalise: Normalise,
}

impl Exact {
    /// An empty reference is allowed: the answer should then be empty.
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        reference.check_texts(|_| false)
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        let answer = self.normalise.apply(answer);
        let is_right = reference.texts()?.iter().any(|text| self.normalise.apply(text) == answer);
        Ok(Score::item(f64::from(u8::from(is_right)), None))
    }
}

/// One of the references, or with `all` each of them, is somewhere in the answer, after both were
/// normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contains {
    /// What is made equal before.
    pub normalise: Normalise,
    /// Each of the references must be there.
    pub all: bool,
}

impl Contains {
    /// A reference of which nothing is left would be in every answer.
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        reference.check_texts(|text| self.normalise.apply(text).is_empty())
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        let answer = self.normalise.apply(answer);
        let texts = reference.texts()?;
        let missing = |text: &&String| !answer.contains(&*self.normalise.apply(text));
        let num_missing = texts.iter().filter(missing).count();
        let is_right = if self.all { num_missing == 0 } else { num_missing < texts.len() };
        let note = || format!("{num_missing} of {} references are not there", texts.len());
        Ok(Score::verdict(if is_right { Ok(()) } else { Err(note()) }))
    }
}
