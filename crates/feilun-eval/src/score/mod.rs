//! Scorers: what an answer is worth, compared with a reference.
//!
//! A [`Scorer`] is data, as it stands in a suite's file. It says two things of an answer: the
//! [`value`](Score::value) of this answer alone, and the [`sums`](Score::sums) that it contributes
//! to the metric of all answers ([`Scorer::aggregate`]); for corpus BLEU and chrF these are not
//! the same. [`Scorer::check`] finds what is wrong with a scorer or a reference before anything is
//! generated.
//!
//! An answer may be anything, megabytes of it: the work is bounded and about linear in its length
//! ([`limits`]), and what is beyond a bound is an error that names it, never a zero.

mod bleu;
mod chrf;
mod error;
mod exact;
mod json;
mod json_fields;
pub mod limits;
mod ngrams;
mod normalise;
mod pattern;
mod python_text;
mod reference;
mod tokenize;
mod tool_call;

use serde::{Deserialize, Serialize};

pub use bleu::{Bleu, BleuTokenizer, CorpusBleu};
pub use chrf::{Chrf, CorpusChrf};
pub use error::ScoreError;
pub use exact::{Contains, Exact};
pub use json::JsonValid;
pub use json_fields::JsonFields;
pub use normalise::{Normalise, Spaces};
pub use pattern::{Extract, Pattern, Which};
pub use reference::Reference;
pub use tool_call::{CompareArguments, ToolCall};

use crate::stats::{Aggregate, Mean};

/// How answers are compared with references. In a file: `{"kind": "exact", ...}`.
///
/// ```
/// use feilun_eval::score::{Reference, Scorer};
///
/// let scorer: Scorer = serde_json::from_str(r#"{"kind": "chrf"}"#)?;
/// let reference = Reference::Texts(vec!["The cat sat.".to_owned()]);
/// scorer.check(&reference)?;
/// assert_eq!(scorer.score(&reference, "The cat sat.")?.value, 100.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scorer {
    /// The answer is one of the references.
    Exact(Exact),
    /// A regular expression matches, or what it finds is one of the references.
    Regex(Pattern),
    /// The references are in the answer.
    Contains(Contains),
    /// chrF and chrF++ as sacrebleu computes them.
    Chrf(Chrf),
    /// BLEU as sacrebleu computes it.
    Bleu(Bleu),
    /// The answer is JSON.
    JsonValid(JsonValid),
    /// The answer is JSON with the fields of the reference.
    JsonFields(JsonFields),
    /// The answer calls the functions that the reference calls.
    ToolCall(ToolCall),
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// This answer alone: 0 to 1; for chrF and BLEU the sentence-level metric, 0 to 100.
    pub value: f64,
    /// What the answer contributes to [`Scorer::aggregate`].
    pub sums: Vec<f64>,
    /// Why it is not worth more, where that can be said in a line.
    pub note: Option<String>,
}

impl Score {
    /// One value of a mean over items.
    fn item(value: f64, note: Option<String>) -> Score {
        Score { value, sums: vec![value, 1.0], note: note.map(limits::cut_note) }
    }

    /// Right, or wrong for a reason.
    fn verdict(verdict: Result<(), String>) -> Score {
        match verdict {
            Ok(()) => Score::item(1.0, None),
            Err(why) => Score::item(0.0, Some(why)),
        }
    }
}

impl Scorer {
    /// Finds what is wrong with the scorer's settings or with a reference.
    ///
    /// # Errors
    ///
    /// [`ScoreError`] names the setting or what the reference lacks.
    pub fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        match self {
            Scorer::Exact(exact) => exact.check(reference),
            Scorer::Regex(pattern) => pattern.check(reference),
            Scorer::Contains(contains) => contains.check(reference),
            Scorer::Chrf(chrf) => chrf.check(reference),
            Scorer::Bleu(bleu) => bleu.check(reference),
            Scorer::JsonValid(_) => Ok(()),
            Scorer::JsonFields(fields) => fields.check(reference),
            Scorer::ToolCall(call) => call.check(reference),
        }
    }

    /// Scores one answer.
    ///
    /// # Errors
    ///
    /// What [`check`](Scorer::check) finds, and answers beyond a bound of [`limits`]. An error
    /// concerns this answer alone; whoever counts has to count it as one that was not scored.
    pub fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        limits::check_answer(answer, limits::ANSWER_BYTES_MAX)?;
        match self {
            Scorer::Exact(exact) => exact.score(reference, answer),
            Scorer::Regex(pattern) => pattern.score(reference, answer),
            Scorer::Contains(contains) => contains.score(reference, answer),
            Scorer::Chrf(chrf) => chrf.score(reference, answer),
            Scorer::Bleu(bleu) => bleu.score(reference, answer),
            Scorer::JsonValid(valid) => Ok(valid.score(answer)),
            Scorer::JsonFields(fields) => fields.score(reference, answer),
            Scorer::ToolCall(call) => call.score(reference, answer),
        }
    }

    /// The metric of many answers, from the sums of what each contributes.
    pub fn aggregate(&self) -> Box<dyn Aggregate> {
        match self {
            Scorer::Chrf(chrf) => Box::new(CorpusChrf::new(chrf)),
            Scorer::Bleu(_) => Box::new(CorpusBleu),
            _ => Box::new(Mean),
        }
    }
}

#[cfg(test)]
mod tests;
