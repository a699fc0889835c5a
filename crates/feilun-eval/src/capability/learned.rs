//! Who has seen many other seeds, and learned what right choices look like without understanding
//! the text: how well does it do?
//!
//! The deep run prints each kind of question:
//!
//! ```text
//! cargo test -p feilun-eval --lib capability::learned -- --ignored --nocapture
//! ```

use std::collections::HashMap;
use std::ops::Range;

use super::tests::{credits_of, suite};
use super::*;

/// A kind of question.
type Group = (Skill, usize);
/// Which choice is right, and the features of each.
type Example = (usize, Vec<Vec<f64>>);

fn group(question: &Question) -> Group {
    (question.skill, balance::kind_of(question.number, question.skill.kinds().len()))
}

fn suites(seeds: Range<u64>, per_skill: usize) -> Vec<Question> {
    seeds.flat_map(|seed| suite(seed, per_skill)).collect()
}

/// How often who likes choices so much is right; of several liked equally, any of them.
fn credit(likings: &[f64], answer: usize) -> f64 {
    let best = likings.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let is_best = |liking: f64| best - liking < 1e-9;
    let num_best = likings.iter().filter(|&&liking| is_best(liking)).count();
    if is_best(likings[answer]) { 1.0 / num_best as f64 } else { 0.0 }
}

/// The share of right guesses, told for each kind of question. It may be four standard deviations
/// above chance.
#[track_caller]
fn check(test: &[Question], liking: impl Fn(&Question, usize) -> f64) {
    let mut groups: HashMap<Group, Vec<f64>> = HashMap::new();
    for question in test {
        let likings: Vec<f64> = (0..NUM_CHOICES).map(|choice| liking(question, choice)).collect();
        groups.entry(group(question)).or_default().push(credit(&likings, question.answer));
    }
    let mut shares: Vec<String> = Vec::new();
    for ((skill, kind), credits) in &groups {
        let share = 100.0 * credits.iter().sum::<f64>() / credits.len() as f64;
        shares.push(format!("{} {kind}: {share:.1} % of {}", skill.name(), credits.len()));
    }
    shares.sort();
    let share = groups.values().flatten().sum::<f64>() / test.len() as f64;
    println!("{}\nall: {:.1} % of {}", shares.join("\n"), 100.0 * share, test.len());
    let deviation = (0.25 * 0.75 / test.len() as f64).sqrt();
    assert!(share < 0.25 + 4.0 * deviation, "{share} of {}", test.len());
}

/// Which words and pairs of words are in right choices: naive Bayes.
fn check_words(training: &[Question], test: &[Question]) {
    let words = |text: &str| -> Vec<String> {
        let words: Vec<String> = if text.is_ascii() {
            text.split(' ').map(str::to_owned).collect()
        } else {
            text.chars().map(String::from).collect()
        };
        let pairs: Vec<String> = words.windows(2).map(|pair| pair.join(" ")).collect();
        [vec![text.to_owned()], words, pairs].concat()
    };
    // Of each word, in how many choices it is, and in how many right ones.
    let mut seen: HashMap<(Group, String), (f64, f64)> = HashMap::new();
    for question in training {
        for (index, choice) in question.choices.iter().enumerate() {
            for word in words(choice) {
                let (num, num_right) = seen.entry((group(question), word)).or_default();
                *num += 1.0;
                *num_right += f64::from(u8::from(index == question.answer));
            }
        }
    }
    check(test, |question, choice| {
        let words = words(&question.choices[choice]);
        let log_odds = words.into_iter().map(|word| {
            let (num, num_right) = seen.get(&(group(question), word)).copied().unwrap_or_default();
            ((num_right + 1.0) / (num - num_right + 3.0) * 3.0).ln()
        });
        log_odds.sum()
    });
}

/// All tricks weighed against each other, for each kind of question: softmax regression.
fn check_tricks(training: &[Question], test: &[Question]) {
    let features = |question: &Question, choice: usize| -> Vec<f64> {
        credits_of(question, choice).iter().map(|&credit| credit as f64 / 12.0 - 0.25).collect()
    };
    let dot = |weights: &[f64], values: &[f64]| -> f64 {
        weights.iter().zip(values).map(|(weight, value)| weight * value).sum()
    };
    let mut groups: HashMap<Group, Vec<Example>> = HashMap::new();
    for question in training {
        let of_choices = (0..NUM_CHOICES).map(|choice| features(question, choice)).collect();
        groups.entry(group(question)).or_default().push((question.answer, of_choices));
    }
    let learn = |examples: Vec<Example>| {
        let mut weights = vec![0.0; tricks::NUM_TRICKS];
        for _ in 0..150 {
            let mut gradient = vec![0.0; tricks::NUM_TRICKS];
            for (answer, of_choices) in &examples {
                let odds: Vec<f64> =
                    of_choices.iter().map(|values| dot(&weights, values).exp()).collect();
                let total: f64 = odds.iter().sum();
                for (choice, values) in of_choices.iter().enumerate() {
                    let error = f64::from(u8::from(choice == *answer)) - odds[choice] / total;
                    gradient.iter_mut().zip(values).for_each(|(sum, value)| *sum += error * value);
                }
            }
            let rate = 2.0 / examples.len() as f64;
            weights.iter_mut().zip(&gradient).for_each(|(weight, slope)| *weight += rate * slope);
        }
        weights
    };
    let weights: HashMap<Group, Vec<f64>> =
        groups.into_iter().map(|(group, examples)| (group, learn(examples))).collect();
    check(test, |question, choice| dot(&weights[&group(question)], &features(question, choice)));
}

#[test]
fn neither_words_nor_tricks_can_be_learned() {
    let (training, test) = (suites(200..203, 30), suites(0..2, 30));
    check_words(&training, &test);
    check_tricks(&training, &test);
}

#[test]
#[ignore = "a minute; the figures are for the lab book"]
fn neither_can_be_learned_from_many_items() {
    let (training, test) = (suites(200..230, 60), suites(0..20, 30));
    check_words(&training, &test);
    check_tricks(&training, &test);
}
