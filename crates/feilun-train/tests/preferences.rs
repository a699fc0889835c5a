//! DPO and KTO against an implementation of their papers in PyTorch, from given log-probabilities.
//!
//! `scripts/goldens` made them; its README says what the fields are.

#![allow(clippy::unwrap_used, reason = "a test")]

use feilun_train::data::{Origin, PackedRow, Part};
use feilun_train::objective::{Dpo, Kto, Objective, StepTotals};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(tag = "objective", rename_all = "snake_case")]
enum Case {
    Dpo {
        beta: f64,
        pairs: Vec<GoldenPair>,
        loss: f64,
    },
    Kto {
        beta: f64,
        desirable_weight: f64,
        undesirable_weight: f64,
        mismatched: Vec<LogProbs>,
        reference_point: f64,
        answers: Vec<GoldenAnswer>,
        loss: f64,
    },
}

#[derive(Deserialize)]
struct GoldenPair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    of_chosen: Found,
    of_rejected: Found,
}

#[derive(Deserialize)]
struct GoldenAnswer {
    prompt: Vec<u32>,
    answer: Vec<u32>,
    liked: bool,
    of_answer: Found,
}

#[derive(Clone, Copy, Deserialize)]
struct LogProbs {
    logprob: f64,
    reference_logprob: f64,
}

#[derive(Clone, Copy, Deserialize)]
struct Found {
    #[serde(flatten)]
    log_probs: LogProbs,
    reward: f64,
    slope: f64,
}

fn cases() -> Vec<Case> {
    let goldens: Goldens = serde_json::from_str(include_str!("goldens/preferences.json")).unwrap();
    goldens.cases
}

/// A row of prompts with answers, and what is known of each answer.
#[derive(Default)]
struct Answers {
    row: PackedRow,
    log_probs: Vec<f32>,
    references: Vec<f64>,
    slopes: Vec<f64>,
}

impl Answers {
    /// An answer's log-probability is spread evenly over its tokens, whose sum alone counts.
    fn push(&mut self, example: usize, part: Part, prompt: &[u32], answer: &[u32], found: Found) {
        let learn = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
        self.row.push(&[prompt, answer].concat(), &learn, Origin { example, part });
        let log_prob = (found.log_probs.logprob / answer.len() as f64) as f32;
        // A prompt's log-probabilities must have no effect.
        self.log_probs.extend(prompt.iter().map(|_| -7.0));
        self.log_probs.extend(answer.iter().map(|_| log_prob));
        self.references.push(found.log_probs.reference_logprob);
        self.slopes.push(found.slope);
    }

    #[track_caller]
    fn check(&self, objective: Objective, reference_point: f64, loss: f64, rewards: [f64; 2]) {
        let totals = StepTotals { reference_point, ..StepTotals::of([&self.row]) };
        let mut coefficients = vec![f32::NAN; self.row.tokens.len()];
        let found = objective
            .evaluate(&self.row, &self.log_probs, &totals, &self.references, &mut coefficients)
            .unwrap();
        assert_close(found.loss, loss);
        // Rewards are differences of hundreds of nats that went through f32.
        assert!((found.reward_chosen - rewards[0]).abs() <= 1e-5, "{}", found.reward_chosen);
        assert!((found.reward_rejected - rewards[1]).abs() <= 1e-5, "{}", found.reward_rejected);
        for ((_, range), &slope) in self.row.sequences().zip(&self.slopes) {
            for token in range {
                let expected = if self.row.learn[token] { slope } else { 0.0 };
                assert_close(f64::from(coefficients[token]), expected);
            }
        }
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{found}, not {expected}");
}

#[test]
fn dpo_is_as_published() {
    let mut num_cases = 0;
    for case in cases() {
        let Case::Dpo { beta, pairs, loss } = case else { continue };
        let mut answers = Answers::default();
        let mut rewards = [0.0; 2];
        for (example, pair) in pairs.iter().enumerate() {
            answers.push(example, Part::Chosen, &pair.prompt, &pair.chosen, pair.of_chosen);
            answers.push(example, Part::Rejected, &pair.prompt, &pair.rejected, pair.of_rejected);
            rewards[0] += pair.of_chosen.reward;
            rewards[1] += pair.of_rejected.reward;
        }
        answers.check(Objective::Dpo(Dpo { beta }), 0.0, loss, rewards);
        num_cases += 1;
    }
    assert_eq!(num_cases, 3);
}

#[test]
fn kto_is_as_published() {
    let mut num_cases = 0;
    for case in cases() {
        let Case::Kto {
            beta,
            desirable_weight,
            undesirable_weight,
            mismatched,
            reference_point,
            answers: goldens,
            loss,
        } = case
        else {
            continue;
        };
        let policy: Vec<f64> = mismatched.iter().map(|pair| pair.logprob).collect();
        let reference: Vec<f64> = mismatched.iter().map(|pair| pair.reference_logprob).collect();
        assert_close(Kto::reference_point(&policy, &reference), reference_point);

        let mut answers = Answers::default();
        let mut rewards = [0.0; 2];
        for (example, golden) in goldens.iter().enumerate() {
            let part = if golden.liked { Part::Desirable } else { Part::Undesirable };
            answers.push(example, part, &golden.prompt, &golden.answer, golden.of_answer);
            rewards[usize::from(!golden.liked)] += golden.of_answer.reward;
        }
        let kto = Kto { beta, desirable_weight, undesirable_weight };
        answers.check(Objective::Kto(kto), reference_point, loss, rewards);
        num_cases += 1;
    }
    assert_eq!(num_cases, 3);
}
