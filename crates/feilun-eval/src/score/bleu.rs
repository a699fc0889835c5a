//! BLEU (Papineni et al. 2002) as sacrebleu 2 computes it, with its smoothing `exp`.
//!
//! For a corpus, with `c` answer tokens and `r` reference tokens (of each item the reference whose
//! length is closest), and `p_n` the share of n-grams that a reference has:
//!
//! `BLEU = 100 * exp(min(0, 1 - r / c)) * (p_1 * p_2 * p_3 * p_4)^(1/4)`
//!
//! The k-th order without any match counts as `1 / (2^k * num_ngrams)`; no match at all is 0. For a
//! single answer, orders that are longer than the answer are left out ("effective order").

use serde::{Deserialize, Serialize};

use super::limits::{ANSWER_BYTES_MAX, check_answer};
use super::ngrams::{Ngrams, WordNumbers, num_ngrams};
use super::python_text::{is_space, split};
use super::tokenize::{tokenize_13a, tokenize_zh};
use super::{Reference, Score, ScoreError};
use crate::stats::Aggregate;

/// Longest n-grams.
const ORDER: usize = 4;
/// Length of answer and reference, then matches and n-grams of each order.
const WIDTH: usize = 2 + 2 * ORDER;
/// A word's number has all 32 bits: four of them are one key.
const WORD_BITS: u32 = 32;

/// BLEU with up to 4-grams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bleu {
    /// What a token is.
    pub tokenize: BleuTokenizer,
    /// Compare in lower case.
    pub lowercase: bool,
}

/// What a token is; the names are sacrebleu's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BleuTokenizer {
    /// Words and punctuation of Western languages.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// Chinese characters, and the rest as in `13a`.
    #[serde(rename = "zh")]
    Chinese,
    /// Characters without white space.
    #[serde(rename = "char")]
    Characters,
    /// What white space separates.
    #[serde(rename = "none")]
    Whitespace,
}

impl Bleu {
    pub(super) fn check(&self, reference: &Reference) -> Result<(), ScoreError> {
        reference.check_texts(|text| split(&self.tokenized(text)).next().is_none())
    }

    pub(super) fn score(&self, reference: &Reference, answer: &str) -> Result<Score, ScoreError> {
        check_answer(answer, ANSWER_BYTES_MAX)?;
        let sums = self.sums(reference.texts()?, answer);
        Ok(Score { value: bleu(&sums, true), sums: sums.to_vec(), note: None })
    }

    /// What an answer contributes to the corpus: its length, that of the closest reference, then
    /// the matches and the n-grams of orders 1 to 4. References may be empty here, as they may in
    /// sacrebleu.
    pub fn sums(&self, references: &[String], answer: &str) -> [f64; WIDTH] {
        let references: Vec<String> = references.iter().map(|text| self.tokenized(text)).collect();
        let mut numbers = WordNumbers::default();
        let mut ngrams: Option<Ngrams> = None;
        let mut lengths = Vec::with_capacity(references.len());
        for reference in &references {
            let symbols = numbers.add(split(reference));
            lengths.push(symbols.len());
            let of_this = Ngrams::new(&symbols, ORDER, WORD_BITS);
            match &mut ngrams {
                Some(ngrams) => ngrams.merge_largest(of_this),
                None => ngrams = Some(of_this),
            }
        }
        let answer = numbers.find(split(&self.tokenized(answer)));
        let matches = ngrams.map_or_else(Vec::new, |ngrams| ngrams.num_matches(&answer));
        // Of two that are equally close, the shorter.
        let closest = lengths.into_iter().min_by_key(|&len| (len.abs_diff(answer.len()), len));
        let mut sums = [0.0; WIDTH];
        sums[0] = answer.len() as f64;
        sums[1] = closest.unwrap_or(0) as f64;
        for (index, matches) in matches.into_iter().enumerate() {
            sums[2 + index] = matches as f64;
            sums[2 + ORDER + index] = num_ngrams(answer.len(), index + 1) as f64;
        }
        sums
    }

    /// Tokens with white space between them.
    fn tokenized(&self, text: &str) -> String {
        let lower = self.lowercase.then(|| text.to_lowercase());
        let text = lower.as_deref().unwrap_or(text).trim_end_matches(is_space);
        match self.tokenize {
            BleuTokenizer::Mteval13a => tokenize_13a(text),
            BleuTokenizer::Chinese => tokenize_zh(text),
            BleuTokenizer::Characters => {
                text.chars().flat_map(|character| [character, ' ']).collect()
            }
            BleuTokenizer::Whitespace => text.to_owned(),
        }
    }
}

/// BLEU of a corpus, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorpusBleu;

impl Aggregate for CorpusBleu {
    fn value(&self, sums: &[f64]) -> f64 {
        bleu(sums, false)
    }

    fn width(&self) -> usize {
        WIDTH
    }
}

/// The formula at the top. NaN where there are not as many sums as there should be.
fn bleu(sums: &[f64], effective_order: bool) -> f64 {
    let (Some(&[answer_len, reference_len]), Some(matches), Some(totals)) =
        (sums.first_chunk::<2>(), sums.get(2..2 + ORDER), sums.get(2 + ORDER..WIDTH))
    else {
        return f64::NAN;
    };
    if matches.iter().all(|&num| num == 0.0) {
        return 0.0;
    }
    let brevity = if answer_len < reference_len { 1.0 - reference_len / answer_len } else { 0.0 };
    let mut log_sum = 0.0;
    let mut num_orders = 0;
    let mut unmatched_factor = 1.0;
    for (&matched, &total) in matches.iter().zip(totals) {
        if total == 0.0 {
            break;
        }
        num_orders += 1;
        log_sum += if matched == 0.0 {
            unmatched_factor *= 2.0;
            (100.0 / (unmatched_factor * total)).ln()
        } else {
            (100.0 * matched / total).ln()
        };
    }
    if num_orders < ORDER && !effective_order {
        // A corpus without any 4-gram: the precision of 4-grams is 0, and so is the product.
        return 0.0;
    }
    (brevity + log_sum / f64::from(num_orders as u32)).exp()
}
