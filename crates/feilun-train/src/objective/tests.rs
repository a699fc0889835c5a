//! Coefficients against finite differences, losses against the formulas of the papers.

use super::*;
use crate::data::{Origin, Part};

/// Documents of (part, mask); tokens do not matter here.
fn row(documents: &[(Part, &[bool])]) -> PackedRow {
    let mut row = PackedRow::default();
    for (index, (part, learn)) in documents.iter().enumerate() {
        let origin = Origin { example: index / 2, part: *part };
        row.push(&vec![1; learn.len()], learn, origin);
    }
    row
}

const ANSWER: &[bool] = &[false, false, true, true, true];
const SHORT: &[bool] = &[false, true];

fn pairs() -> Vec<PackedRow> {
    vec![
        row(&[
            (Part::Chosen, ANSWER),
            (Part::Rejected, SHORT),
            (Part::Chosen, SHORT),
            (Part::Rejected, ANSWER),
        ]),
        row(&[(Part::Chosen, ANSWER), (Part::Rejected, ANSWER)]),
    ]
}

fn answers() -> Vec<PackedRow> {
    vec![
        row(&[(Part::Desirable, ANSWER), (Part::Undesirable, ANSWER)]),
        row(&[(Part::Desirable, SHORT)]),
    ]
}

fn texts() -> Vec<PackedRow> {
    vec![row(&[(Part::Whole, ANSWER), (Part::Whole, &[true; 6])]), row(&[(Part::Whole, SHORT)])]
}

/// Numbers that are no pattern, in (-3, 0).
fn log_probs(rows: &[PackedRow], seed: f32) -> Vec<Vec<f32>> {
    let value = |i: usize| -((i as f32 * 0.37 + seed).sin().abs() * 3.0);
    let mut start = 0;
    let mut next = |len: usize| {
        start += len;
        (start - len..start).map(value).collect()
    };
    rows.iter().map(|row| next(row.tokens.len())).collect()
}

fn references(rows: &[PackedRow]) -> Vec<Vec<f64>> {
    let log_probs = log_probs(rows, 0.9);
    rows.iter().zip(&log_probs).map(|(row, values)| row.document_log_probs(values)).collect()
}

fn totals(rows: &[PackedRow]) -> StepTotals {
    StepTotals { reference_point: 0.25, ..StepTotals::of(rows) }
}

fn step(objective: Objective, rows: &[PackedRow], log_probs: &[Vec<f32>]) -> (Sums, Vec<Vec<f32>>) {
    let references = references(rows);
    let mut sums = Sums::default();
    let mut all = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut coefficients = vec![f32::NAN; row.tokens.len()];
        sums += objective
            .evaluate(row, &log_probs[index], &totals(rows), &references[index], &mut coefficients)
            .unwrap();
        all.push(coefficients);
    }
    (sums, all)
}

fn objectives() -> [(Objective, Vec<PackedRow>); 3] {
    let kto = Kto { beta: 0.3, desirable_weight: 1.5, undesirable_weight: 0.75 };
    [
        (Objective::Tokens, texts()),
        (Objective::Dpo(Dpo { beta: 0.3 }), pairs()),
        (Objective::Kto(kto), answers()),
    ]
}

#[test]
fn coefficients_are_the_derivatives_of_the_loss() {
    for (objective, rows) in objectives() {
        let log_probs = log_probs(&rows, 0.1);
        let (_, coefficients) = step(objective, &rows, &log_probs);
        for (index, row) in rows.iter().enumerate() {
            for token in 0..row.tokens.len() {
                // A power of two, so that adding it to these numbers loses little.
                let h = 1.0 / 64.0;
                let loss = |difference: f32| {
                    let mut changed = log_probs.clone();
                    changed[index][token] += difference;
                    step(objective, &rows, &changed).0.loss
                };
                let expected = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
                let found = f64::from(coefficients[index][token]);
                assert!(
                    (found - expected).abs() < 1e-5 + 1e-4 * expected.abs(),
                    "{objective:?}: row {index}, token {token}: {found} and {expected}"
                );
                assert_eq!(found != 0.0, row.learn[token], "only what is learned has a slope");
            }
        }
    }
}

#[test]
fn the_loss_of_tokens_is_their_mean_over_the_whole_step() {
    let rows = texts();
    let log_probs = log_probs(&rows, 0.1);
    let (sums, coefficients) = step(Objective::Tokens, &rows, &log_probs);
    let learned: Vec<f64> = rows
        .iter()
        .zip(&log_probs)
        .flat_map(|(row, values)| row.learn.iter().zip(values))
        .filter(|(learn, _)| **learn)
        .map(|(_, &value)| f64::from(value))
        .collect();
    assert_eq!(learned.len(), 3 + 5 + 1, "a document's first token has no target");
    let mean = -learned.iter().sum::<f64>() / learned.len() as f64;
    assert!((sums.loss - mean).abs() < 1e-12);
    assert_eq!(sums.nats_per_token(), Some(sums.nats / 9.0));
    assert!((sums.nats_per_token().unwrap() - mean).abs() < 1e-12);
    let total: f32 = coefficients.iter().flatten().sum();
    assert!((total + 1.0).abs() < 1e-6, "the coefficients of a mean sum up to one");
}

/// Sums of the learned log-probabilities, written without the row's own helpers.
fn answer_sums(rows: &[PackedRow], values: &[Vec<f32>]) -> Vec<f64> {
    let mut sums = Vec::new();
    for (row, values) in rows.iter().zip(values) {
        let mut token = 0;
        for &len in &row.documents {
            let mut sum = 0.0;
            for _ in 0..len {
                sum += f64::from(u8::from(row.learn[token])) * f64::from(values[token]);
                token += 1;
            }
            sums.push(sum);
        }
    }
    sums
}

#[test]
fn dpo_is_the_papers() {
    let (rows, beta) = (pairs(), 0.3);
    let values = log_probs(&rows, 1.2);
    let policy = answer_sums(&rows, &values);
    let frozen = answer_sums(&rows, &log_probs(&rows, 0.9));
    // Equation 7: -E[log sigma(beta log(pi(w)/ref(w)) - beta log(pi(l)/ref(l)))].
    let mut expected = 0.0;
    let mut correct = 0;
    for pair in 0..3 {
        let (w, l) = (2 * pair, 2 * pair + 1);
        let odds = ((policy[w] - frozen[w]) * beta).exp() / ((policy[l] - frozen[l]) * beta).exp();
        expected -= (odds / (1.0 + odds)).ln() / 3.0;
        correct += usize::from(odds > 1.0);
    }
    let (sums, _) = step(Objective::Dpo(Dpo { beta }), &rows, &values);
    assert!((sums.loss - expected).abs() < 1e-9, "{} and {expected}", sums.loss);
    assert_eq!((sums.num_pairs, sums.num_correct), (3, correct));
    assert!(correct > 0 && correct < 3, "the test has pairs of both kinds");
    let chosen: f64 = [0, 2, 4].map(|w| beta * (policy[w] - frozen[w])).iter().sum();
    assert!((sums.mean_reward_chosen().unwrap() - chosen / 3.0).abs() < 1e-9);
}

#[test]
fn dpo_begins_at_the_logarithm_of_two() {
    let rows = pairs();
    // The policy is the reference.
    let (sums, _) = step(Objective::Dpo(Dpo::default()), &rows, &log_probs(&rows, 0.9));
    assert!((sums.loss - std::f64::consts::LN_2).abs() < 1e-12);
    assert_eq!(sums.num_correct, 0, "equal is not correct");
}

#[test]
fn kto_is_the_papers() {
    let kto = Kto { beta: 0.3, desirable_weight: 1.5, undesirable_weight: 0.75 };
    let rows = answers();
    let values = log_probs(&rows, 0.1);
    let policy = answer_sums(&rows, &values);
    let frozen = answer_sums(&rows, &log_probs(&rows, 0.9));
    // Equation 8, with the value function 1 / (1 + exp(-x)): lambda - v, averaged.
    let z = 0.25;
    let value = |weight: f64, x: f64| weight / (1.0 + (-x).exp());
    let r = |i: usize| policy[i] - frozen[i];
    let losses = [
        1.5 - value(1.5, 0.3 * (r(0) - z)),
        0.75 - value(0.75, 0.3 * (z - r(1))),
        1.5 - value(1.5, 0.3 * (r(2) - z)),
    ];
    let expected = losses.iter().sum::<f64>() / 3.0;
    let (sums, _) = step(Objective::Kto(kto), &rows, &values);
    assert!((sums.loss - expected).abs() < 1e-9, "{} and {expected}", sums.loss);
    assert_eq!((sums.num_desirable, sums.num_undesirable), (2, 1));
    assert!((sums.mean_reward_rejected().unwrap() - 0.3 * r(1)).abs() < 1e-9);
    assert_eq!(sums.reference_point, z);
}

#[test]
fn extreme_margins_stay_finite() {
    let rows = pairs();
    for value in [-1e6_f32, -1e-6] {
        let mut values = log_probs(&rows, 0.1);
        for (row, values) in rows.iter().zip(&mut values) {
            for (origin, range) in row.sequences() {
                if origin.part == Part::Chosen {
                    values[range].fill(value);
                }
            }
        }
        let (sums, coefficients) = step(Objective::Dpo(Dpo { beta: 5.0 }), &rows, &values);
        assert!(sums.loss.is_finite());
        assert!(coefficients.iter().flatten().all(|c| c.is_finite()));
    }
}

#[test]
fn rows_of_another_objective_are_refused() {
    let mut out = vec![0.0; 12];
    let whole = row(&[(Part::Whole, ANSWER)]);
    let half = row(&[(Part::Chosen, ANSWER)]);
    let zeros = vec![0.0; 5];
    let totals = StepTotals::default();
    let dpo = Objective::Dpo(Dpo::default());
    let error = dpo.evaluate(&whole, &zeros, &totals, &[0.0], &mut out[..5]).unwrap_err();
    assert!(matches!(error, ObjectiveError::Part { index: 0, found: Part::Whole, .. }));
    let error = dpo.evaluate(&half, &zeros, &totals, &[0.0], &mut out[..5]).unwrap_err();
    assert_eq!(error, ObjectiveError::NoPartner { index: 0 });
    let error = dpo.evaluate(&half, &zeros, &totals, &[], &mut out[..5]).unwrap_err();
    assert_eq!(error, ObjectiveError::References { found: 0, expected: 1 });
    let error = dpo.evaluate(&half, &zeros, &totals, &[0.0], &mut out).unwrap_err();
    assert!(matches!(error, ObjectiveError::Length { found: 12, expected: 5, .. }));
    let error = Objective::Dpo(Dpo { beta: -0.1 }).check().unwrap_err();
    assert!(error.to_string().contains("beta is -0.1"), "{error}");
}
