//! chrF and BLEU compared with sacrebleu's, by files that `scripts/goldens/translations.py` made.
//!
//! The deep run, over thousands of pairs:
//!
//! ```text
//! python scripts/goldens/make.py translations-many 5000 PAIRS
//! SACREBLEU_PAIRS=PAIRS cargo test -p feilun-eval --test sacrebleu -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use feilun_eval::score::{Reference, Scorer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    scorers: Vec<Scorer>,
    corpus: Vec<f64>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    answer: String,
    references: Vec<String>,
    scores: Vec<f64>,
}

/// "Equal to four decimals", with a margin: what is rounded to four decimals may be 0.00005 apart.
const TOLERANCE: f64 = 5e-6;

/// The largest difference of all.
fn compare(text: &str) -> f64 {
    let golden: Golden = serde_json::from_str(text).unwrap();
    let mut largest = 0.0f64;
    for (index, scorer) in golden.scorers.iter().enumerate() {
        let aggregate = scorer.aggregate();
        let mut sums = vec![0.0; aggregate.width()];
        for pair in &golden.pairs {
            let reference = Reference::Texts(pair.references.clone());
            let score = scorer.score(&reference, &pair.answer).unwrap();
            let difference = (score.value - pair.scores[index]).abs();
            assert!(
                difference < TOLERANCE,
                "{scorer:?}: {} for {:?} and {:?}, sacrebleu {}",
                score.value,
                pair.answer,
                pair.references,
                pair.scores[index]
            );
            largest = largest.max(difference);
            sums.iter_mut().zip(&score.sums).for_each(|(sum, value)| *sum += value);
        }
        let (ours, theirs) = (aggregate.value(&sums), golden.corpus[index]);
        assert!((ours - theirs).abs() < TOLERANCE, "{scorer:?}: {ours}, sacrebleu {theirs}");
        largest = largest.max((ours - theirs).abs());
    }
    largest
}

#[test]
fn scores_are_sacrebleus() {
    compare(include_str!("goldens/translations.json"));
}

#[test]
#[ignore = "reads a file that is too large for the tree"]
fn scores_of_many_pairs_are_sacrebleus() {
    let path = std::env::var("SACREBLEU_PAIRS").expect("SACREBLEU_PAIRS names a file");
    let largest = compare(&std::fs::read_to_string(path).unwrap());
    println!("largest difference {largest:.1e} (sacrebleu's scores have six decimals)");
}
