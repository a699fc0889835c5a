//! chrF (Popović 2015) and chrF++ (Popović 2017) as sacrebleu 2 computes them.
//!
//! Precision `P` and recall `R` of character n-grams (and for chrF++ of word n-grams) are averaged
//! over the orders that both texts have n-grams of, and combined:
//!
//! `chrF = 100 * (1 + beta^2) * P * R / (beta^2 * P + R)`
//!
//! For a corpus n-grams are counted over all items first; of several references of an item the one
//! with the highest chrF counts.

use serde::{Deserialize, Serialize};

use super::limits::{ANSWER_BYTES_MAX, check_answer};
use super::ngrams::{Ngrams, WordNumbers, num_ngrams};
use super::python_text::{is_space, split};
use super::{Reference, Score, ScoreError};
use crate::stats::Aggregate;

/// A character, plus one so that none is 0, has 21 bits; six of them are one key.
const CHAR_BITS: u32 = 21;
/// Longest character n-grams, by the bits of a key.
const CHAR_ORDER_MAX: usize = 6;
const WORD_BITS: u32 = 32;
const WORD_ORDER_MAX: usize = 4;
/// More would be recall alone.
const BETA_MAX: u32 = 100;

/// chrF; with `word_order` 2 it is chrF++.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chrf {
    /// Longest n-grams of characters, 1 to 6.
    pub char_order: usize,
    /// Longest n-grams of words, 0 to 4.
    pub word_order: usize,
    /// How much more recall counts than precision.
    pub beta: u32,
    /// Compare in lower case.
    pub lowercase: bool,
    /// White space is a character like others.
    pub whitespace: bool,
}

impl Default for Chrf {
    fn default() -> Chrf {
        Chrf { char_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false }
    }
}

/// N-grams of answer, reference and both, for each order of characters, then of words.
type Counts = Vec<[usize; 3]>;

impl Chrf {
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        self.check_settings()?;
        reference.check_texts(|text| split(text).next().is_none())
    }

    fn check_settings(&self) -> Result<(), ScoreError> {
        let within = |setting, found: usize, min: usize, max: usize| {
            if (min..=max).contains(&found) {
                return Ok(());
            }
            let expected = format!("{min} to {max}");
            Err(ScoreError::Setting { setting, found: found.to_string(), expected })
        };
        within("char_order", self.char_order, 1, CHAR_ORDER_MAX)?;
        within("word_order", self.word_order, 0, WORD_ORDER_MAX)?;
        within("beta", self.beta as usize, 1, BETA_MAX as usize)
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        self.check_settings()?;
        let references = reference.texts()?;
        // The answer is compared with each of them.
        check_answer(answer, ANSWER_BYTES_MAX / references.len())?;
        let sums = self.sums(references, answer);
        Ok(Score { value: CorpusChrf::new(self).value(&sums), sums, note: None })
    }

    /// What an answer contributes to the corpus: for each order, n-grams of the answer, of the
    /// reference, and of both. References may be empty here, as they may in sacrebleu; the
    /// settings have to be within their bounds.
    pub fn sums(&self, references: &[String], answer: &str) -> Vec<f64> {
        let corpus = CorpusChrf::new(self);
        let answer = self.cased(answer);
        let answer_chars = self.chars(&answer);
        let mut best = vec![0.0; corpus.width()];
        let mut best_value = -1.0;
        for reference in references {
            let counts = self.count(&answer, &answer_chars, &self.cased(reference));
            let sums: Vec<f64> = counts.into_iter().flatten().map(|count| count as f64).collect();
            let value = corpus.value(&sums);
            if value > best_value {
                (best, best_value) = (sums, value);
            }
        }
        best
    }

    fn count(&self, answer: &str, answer_chars: &[u32], reference: &str) -> Counts {
        let chars = self.chars(reference);
        let mut counts = count_orders(answer_chars, &chars, self.char_order, CHAR_BITS);
        if self.word_order > 0 {
            let mut numbers = WordNumbers::default();
            let reference_words = numbers.add(words(reference));
            let answer_words = numbers.find(words(answer));
            counts.extend(count_orders(
                &answer_words,
                &reference_words,
                self.word_order,
                WORD_BITS,
            ));
        }
        counts
    }

    fn cased(&self, text: &str) -> String {
        if self.lowercase { text.to_lowercase() } else { text.to_owned() }
    }

    fn chars(&self, text: &str) -> Vec<u32> {
        let is_kept = |character: &char| self.whitespace || !is_space(*character);
        text.chars().filter(is_kept).map(|character| u32::from(character) + 1).collect()
    }
}

fn count_orders(answer: &[u32], reference: &[u32], order: usize, symbol_bits: u32) -> Counts {
    let matches = Ngrams::new(reference, order, symbol_bits).num_matches(answer);
    (1..=order)
        .zip(matches)
        .map(|(n, matches)| {
            let in_reference = num_ngrams(reference.len(), n);
            // An order that the reference does not have is not held against the answer.
            let in_answer = if in_reference == 0 { 0 } else { num_ngrams(answer.len(), n) };
            [in_answer, in_reference, matches]
        })
        .collect()
}

/// Words, with one mark of ASCII punctuation separated from the end of each, or else from its
/// beginning.
fn words(text: &str) -> impl Iterator<Item = &str> {
    split(text).flat_map(|word| {
        let is_mark = |character: &char| character.is_ascii_punctuation();
        let (first, last) = (word.chars().next(), word.chars().next_back());
        let (head, tail) = match (first.filter(is_mark), last.filter(is_mark)) {
            (_, Some(mark)) => word.split_at(word.len() - mark.len_utf8()),
            (Some(mark), None) => word.split_at(mark.len_utf8()),
            (None, None) => (word, ""),
        };
        // A word that is a single mark has an empty half.
        [head, tail].into_iter().filter(|part| !part.is_empty())
    })
}

/// chrF of a corpus, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorpusChrf {
    num_orders: usize,
    beta: u32,
}

impl CorpusChrf {
    /// For these settings.
    pub fn new(chrf: &Chrf) -> CorpusChrf {
        CorpusChrf { num_orders: chrf.char_order + chrf.word_order, beta: chrf.beta }
    }
}

impl Aggregate for CorpusChrf {
    fn value(&self, sums: &[f64]) -> f64 {
        if sums.len() != self.width() {
            return f64::NAN;
        }
        let (mut precision, mut recall, mut num_orders) = (0.0, 0.0, 0.0);
        for order in sums.chunks_exact(3) {
            let [in_answer, in_reference, matched] = [order[0], order[1], order[2]];
            if in_answer > 0.0 && in_reference > 0.0 {
                precision += matched / in_answer;
                recall += matched / in_reference;
                num_orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        (precision, recall) = (precision / num_orders, recall / num_orders);
        let factor = f64::from(self.beta).powi(2);
        100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall))
    }

    fn width(&self) -> usize {
        3 * self.num_orders
    }
}
