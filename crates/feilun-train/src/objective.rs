//! Objectives: functions from the log-probabilities of tokens to the loss and its derivatives.
//!
//! The engine has one backward pass. It computes log p(token | what came before it) for each
//! token of a row, asks the objective for d loss / d log p, and carries that into the weights.
//!
//! | objective | loss of a step | needs of a frozen reference |
//! |---|---|---|
//! | [`Objective::Tokens`] | mean of −log p over the learned tokens of the step | nothing |
//! | [`Objective::Dpo`] | mean over pairs, [`Dpo`] | log p of each answer |
//! | [`Objective::Kto`] | mean over answers, [`Kto`] | log p of each answer, also mismatched |
//!
//! Pretraining and supervised fine-tuning are the same: only the mask differs, and the row has it.
//!
//! A step is several rows, computed one after the other, and its loss is a mean over all of them.
//! So the divisors, [`StepTotals`], are counted over the whole step before its first row: a step
//! gives the same gradient in whichever way its documents are spread over rows.
//!
//! ```
//! use feilun_train::data::{Origin, PackedRow, Part};
//! use feilun_train::objective::{Objective, StepTotals};
//!
//! let mut row = PackedRow::default();
//! row.push(&[5, 6, 7], &[false, true, true], Origin { example: 0, part: Part::Whole });
//! let totals = StepTotals::of([&row]);
//! let mut coefficients = [0.0; 3];
//! let sums = Objective::Tokens
//!     .evaluate(&row, &[0.0, -1.0, -3.0], &totals, &[], &mut coefficients)
//!     .unwrap();
//! assert_eq!(sums.loss, 2.0); // nats for each token
//! assert_eq!(coefficients, [0.0, -0.5, -0.5]);
//! ```

mod dpo;
mod kto;
mod metrics;
mod tokens;

pub use self::dpo::Dpo;
pub use self::kto::Kto;
pub use self::metrics::{Sums, mean};

use crate::data::{PackedRow, Part};

/// What a run minimises.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// Cross-entropy of the learned tokens: pretraining and supervised fine-tuning.
    ///
    /// Label smoothing is the engine's: one that smooths gives for each token
    /// (1 − ε) log p(token) + ε · mean of log p over the vocabulary, and spreads the coefficient
    /// likewise. Nothing changes here.
    Tokens,
    /// Direct preference optimization.
    Dpo(Dpo),
    /// Kahneman-Tversky optimization.
    Kto(Kto),
}

/// Why a row does not fit an objective; an error of the caller.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ObjectiveError {
    #[error("a row of {expected} tokens with {found} {what}")]
    Length { what: &'static str, found: usize, expected: usize },
    #[error("a row of {expected} documents with {found} reference log-probabilities")]
    References { found: usize, expected: usize },
    #[error("document {index} of the row is {found:?}, expected {expected}")]
    Part { index: usize, found: Part, expected: &'static str },
    #[error("document {index} of the row, chosen in a pair, has no rejected partner behind it")]
    NoPartner { index: usize },
    #[error("{name} is {found}, expected {expected}")]
    Setting { name: &'static str, found: f64, expected: &'static str },
}

/// What the loss of a step is divided by, counted over all its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTotals {
    /// Tokens that are learned.
    pub num_tokens: usize,
    /// Preference pairs.
    pub num_pairs: usize,
    /// Answers that were liked or not.
    pub num_answers: usize,
    /// z₀ of KTO, in nats: [`Kto::reference_point`]. 0 for other objectives.
    pub reference_point: f64,
}

impl StepTotals {
    /// Counts over the rows of a step.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a PackedRow>) -> StepTotals {
        let mut totals = StepTotals::default();
        for row in rows {
            totals.num_tokens += row.num_learned();
            for origin in &row.origins {
                match origin.part {
                    Part::Chosen => totals.num_pairs += 1,
                    Part::Desirable | Part::Undesirable => totals.num_answers += 1,
                    Part::Whole | Part::Rejected | Part::Mismatched => {}
                }
            }
        }
        totals
    }
}

impl Objective {
    /// Whether a frozen reference model is needed.
    pub fn needs_reference(&self) -> bool {
        !matches!(self, Objective::Tokens)
    }

    /// What a row adds to the divisor of its step's loss: its tokens, pairs or answers.
    ///
    /// [`StepTotals::default`] divides by nothing, so a step can also be summed up first and be
    /// divided by the sum of its rows' weights afterwards.
    pub fn weight(&self, row: &PackedRow) -> usize {
        let totals = StepTotals::of([row]);
        match self {
            Objective::Tokens => totals.num_tokens,
            Objective::Dpo(_) => totals.num_pairs,
            Objective::Kto(_) => totals.num_answers,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Naming the setting that is out of its range.
    pub fn check(&self) -> Result<(), ObjectiveError> {
        match self {
            Objective::Tokens => Ok(()),
            Objective::Dpo(dpo) => dpo.check(),
            Objective::Kto(kto) => kto.check(),
        }
    }

    /// The part of a row in the loss of its step, and the derivative of the step's loss with
    /// respect to each log-probability of the row.
    ///
    /// - `log_probs`: one per token of the row
    /// - `references`: one per document of the row, the frozen model's
    ///   [`PackedRow::document_log_probs`]; empty where no reference is needed
    /// - `coefficients`: written, one per token of the row
    ///
    /// # Errors
    /// If the lengths or the parts of the row are not those of the objective.
    pub fn evaluate(
        &self,
        row: &PackedRow,
        log_probs: &[f32],
        totals: &StepTotals,
        references: &[f64],
        coefficients: &mut [f32],
    ) -> Result<Sums, ObjectiveError> {
        let expected = row.tokens.len();
        let lengths = [
            ("log-probabilities", log_probs.len()),
            ("coefficients", coefficients.len()),
            ("marks of what is learned", row.learn.len()),
        ];
        for (what, found) in lengths {
            if found != expected {
                return Err(ObjectiveError::Length { what, found, expected });
            }
        }
        let expected = row.documents.len();
        if self.needs_reference() && references.len() != expected {
            return Err(ObjectiveError::References { found: references.len(), expected });
        }
        coefficients.fill(0.0);
        let mut sums = match self {
            Objective::Tokens => tokens::evaluate(row, totals, log_probs, coefficients),
            Objective::Dpo(dpo) => {
                let log_ratios = log_ratios(row, log_probs, references);
                dpo.evaluate(row, totals, &log_ratios, coefficients)?
            }
            Objective::Kto(kto) => {
                let log_ratios = log_ratios(row, log_probs, references);
                kto.evaluate(row, totals, &log_ratios, coefficients)?
            }
        };
        sums.count_tokens(row, log_probs);
        Ok(sums)
    }
}

/// log π(answer) − log π_ref(answer) of each document, in nats.
fn log_ratios(row: &PackedRow, log_probs: &[f32], references: &[f64]) -> Vec<f64> {
    let log_probs = row.document_log_probs(log_probs);
    log_probs.iter().zip(references).map(|(policy, reference)| policy - reference).collect()
}

/// Gives every learned token of a document the same coefficient: each counts once in the sum.
fn spread(row: &PackedRow, range: std::ops::Range<usize>, coefficient: f64, out: &mut [f32]) {
    for token in range {
        if row.learn[token] {
            out[token] = coefficient as f32;
        }
    }
}

/// 1 / (1 + e⁻ˣ), without overflow.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// −log sigmoid(x) = log(1 + e⁻ˣ), without overflow.
fn minus_log_sigmoid(x: f64) -> f64 {
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

/// A number of things as a divisor: a step without any has no loss, not an infinite one.
fn divisor(count: usize) -> f64 {
    count.max(1) as f64
}

#[cfg(test)]
mod tests;
