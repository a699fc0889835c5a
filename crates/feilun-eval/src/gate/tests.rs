//! Single gates; `tests/honesty` has thousands of them.

use crate::gate::{
    Comparison, Decision, Direction, GateError, GateOptions, Guardrail, Outcome, Unit, Verdict,
    decide,
};
use crate::stats::{Mean, PairedItem, StatsError};

fn items(pairs: impl IntoIterator<Item = (f64, f64)>) -> Vec<PairedItem> {
    (0..)
        .zip(pairs)
        .map(|(cluster, (candidate, incumbent))| PairedItem {
            cluster,
            candidate: vec![candidate, 1.0],
            incumbent: vec![incumbent, 1.0],
        })
        .collect()
}

/// Graded answers: the candidate is better by `gain` on average.
fn graded(num: usize, gain: f64) -> Vec<PairedItem> {
    items((0..num).map(|item| {
        let incumbent = 0.2 + 0.01 * (item * 37 % 40) as f64;
        (incumbent + gain + 0.002 * (item * 53 % 41) as f64 - 0.04, incumbent)
    }))
}

fn comparison<'a>(name: &'a str, items: &'a [PairedItem]) -> Comparison<'a> {
    let (direction, unit) = (Direction::HigherIsBetter, Unit::Plain);
    Comparison { name, items, aggregate: &Mean, direction, unit }
}

fn ask(target: &[PairedItem], guardrails: &[&[PairedItem]]) -> Verdict {
    let guardrails: Vec<Guardrail<'_>> = guardrails
        .iter()
        .map(|items| Guardrail { comparison: comparison("guardrail", items), margin: 0.02 })
        .collect();
    decide(&comparison("target", target), &guardrails, &GateOptions::new(0.02)).unwrap()
}

#[test]
fn each_outcome_has_its_cause() {
    let target = |gain| ask(&graded(60, gain), &[]);
    assert_eq!(target(0.05).decision, Decision::Promote);
    assert_eq!(target(0.05).target.outcome, Outcome::Better);
    assert_eq!(target(-0.05).decision, Decision::Reject);
    assert_eq!(target(-0.05).target.outcome, Outcome::Worse);
    assert_eq!(target(0.005).decision, Decision::Reject);
    assert_eq!(target(0.005).target.outcome, Outcome::TooSmall);
    let unclear = ask(&graded(6, 0.01), &[]);
    assert!(matches!(unclear.decision, Decision::NotEnough { .. }), "{unclear:?}");
}

#[test]
fn a_guardrail_can_hold_break_or_wait() {
    let better = graded(60, 0.05);
    let same = ask(&better, &[&graded(60, 0.0)]);
    assert_eq!((same.decision, same.guardrails[0].outcome), (Decision::Promote, Outcome::Held));
    let worse = ask(&better, &[&graded(60, 0.0), &graded(60, -0.05)]);
    assert_eq!(worse.decision, Decision::Reject);
    assert_eq!(worse.guardrails[1].outcome, Outcome::Broken);
    let unclear = ask(&better, &[&graded(60, 0.0), &graded(5, -0.015)]);
    let Decision::NotEnough { further_items } = unclear.decision else { panic!("{unclear:?}") };
    assert_eq!(unclear.guardrails[1].outcome, Outcome::Open { further_items });
    // A proven loss outweighs a doubt.
    let both = ask(&better, &[&graded(5, -0.015), &graded(60, -0.05)]);
    assert_eq!(both.decision, Decision::Reject);
}

#[test]
fn lower_can_be_better() {
    let items = graded(60, -0.05);
    let bits = Comparison { direction: Direction::LowerIsBetter, ..comparison("bits", &items) };
    let verdict = decide(&bits, &[], &GateOptions::new(0.02)).unwrap();
    assert_eq!(verdict.decision, Decision::Promote);
    assert!(verdict.target.gain > 0.0 && verdict.target.low > 0.0);
    assert!(verdict.target.candidate < verdict.target.incumbent);
    // The mirror image of the same comparison has the same numbers.
    let turned = items_turned(&items);
    let mirrored = decide(&comparison("bits", &turned), &[], &GateOptions::new(0.02)).unwrap();
    assert!((mirrored.target.gain - verdict.target.gain).abs() < 1e-12);
    assert!((mirrored.target.p_value - verdict.target.p_value).abs() < 1e-12);
    let guardrail = Guardrail { comparison: bits, margin: 0.02 };
    let better = graded(60, 0.05);
    let verdict =
        decide(&comparison("target", &better), &[guardrail], &GateOptions::new(0.02)).unwrap();
    assert_eq!(verdict.guardrails[0].outcome, Outcome::Held);
    let worse = graded(60, 0.05);
    let bits = Comparison { direction: Direction::LowerIsBetter, ..comparison("bits", &worse) };
    let guardrail = Guardrail { comparison: bits, margin: 0.02 };
    let verdict =
        decide(&comparison("target", &better), &[guardrail], &GateOptions::new(0.02)).unwrap();
    assert_eq!(verdict.guardrails[0].outcome, Outcome::Broken);
}

fn items_turned(items: &[PairedItem]) -> Vec<PairedItem> {
    items
        .iter()
        .map(|PairedItem { cluster, candidate, incumbent }| PairedItem {
            cluster: *cluster,
            candidate: incumbent.clone(),
            incumbent: candidate.clone(),
        })
        .collect()
}

#[test]
fn the_same_answers_are_no_evidence_of_anything_but_of_no_harm() {
    let graded_same =
        items((0..200).map(|item| (0.01 * f64::from(item % 50), 0.01 * f64::from(item % 50))));
    let right_same = items((0..200).map(|_| (1.0, 1.0)));
    for same in [&graded_same, &right_same] {
        let verdict = ask(same, &[]);
        assert_ne!(verdict.decision, Decision::Promote, "{verdict:?}");
        assert_eq!(verdict.target.p_value, 1.0);
        let verdict = ask(&graded(60, 0.05), &[same]);
        assert_eq!(verdict.guardrails[0].outcome, Outcome::Held, "{verdict:?}");
        // A handful of equal answers proves little.
        let verdict = ask(&graded(60, 0.05), &[&same[196..]]);
        assert!(matches!(verdict.decision, Decision::NotEnough { .. }), "{verdict:?}");
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    let (target, guardrail) = (graded(40, 0.01), graded(30, 0.0));
    let first = ask(&target, &[&guardrail]);
    assert_eq!(first, ask(&target, &[&guardrail]));
    // The order of items does not matter, only which cluster each is in.
    let turned: Vec<PairedItem> = target.iter().rev().cloned().collect();
    assert_eq!(first, ask(&turned, &[&guardrail]));
}

#[test]
fn what_cannot_be_asked_is_named() {
    let one = graded(1, 0.0);
    let options = GateOptions::new(0.02);
    let error = decide(&comparison("target", &one), &[], &options).unwrap_err();
    let GateError::Comparison { name, source } = &error else { panic!("{error}") };
    assert_eq!(name, "target");
    assert_eq!(*source, StatsError::TooFewClusters { found: 1, expected: 2 });
    let items = graded(10, 0.0);
    let guardrail = Guardrail { comparison: comparison("safe", &items), margin: -0.1 };
    let error = decide(&comparison("target", &items), &[guardrail], &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "guardrail `safe`: its margin is -0.1, expected a finite number above 0"
    );
    for wrong in [
        GateOptions::new(0.0),
        GateOptions::new(f64::NAN),
        GateOptions { alpha: 0.5, ..options },
        GateOptions { power: 1.0, ..options },
        GateOptions { num_resamples: 1, ..options },
    ] {
        assert!(decide(&comparison("target", &items), &[], &wrong).is_err(), "{wrong:?}");
    }
}
