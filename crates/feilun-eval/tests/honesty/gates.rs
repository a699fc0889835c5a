//! How often gates are wrong.

use feilun_eval::gate::{
    Comparison, Decision, Direction, GateOptions, Guardrail, Outcome, Unit, decide,
};
use feilun_eval::stats::{Mean, PairedItem};

use crate::check_rate;
use crate::draws::Draws;
use crate::scenarios::{PAIRS, made_equal, paired_mean, right_or_wrong};

fn comparison<'a>(name: &'a str, items: &'a [PairedItem]) -> Comparison<'a> {
    let (direction, unit) = (Direction::HigherIsBetter, Unit::Share);
    Comparison { name, items, aggregate: &Mean, direction, unit }
}

fn options(minimum_effect: f64, seed: u64) -> GateOptions {
    GateOptions { seed, num_resamples: 399, ..GateOptions::new(minimum_effect) }
}

/// How many of these gates promote a candidate that is the incumbent.
fn promotions_of_equals(scenario: usize, num_items: usize, num: u64) -> usize {
    let scenario = &PAIRS[scenario];
    let is_promoted = |seed: u64| {
        let items = made_equal(&mut Draws::new(8_000_000 + seed), scenario, num_items);
        let target = Comparison { aggregate: scenario.aggregate, ..comparison("target", &items) };
        // So small that it never stands in the way.
        let verdict = decide(&target, &[], &options(1e-9, seed)).unwrap();
        verdict.decision == Decision::Promote
    };
    (0..num).filter(|&seed| is_promoted(seed)).count()
}

#[test]
fn equals_are_promoted_at_most_at_the_stated_rate() {
    for (index, scenario) in PAIRS.iter().enumerate() {
        for num_items in [20, 60] {
            let num = promotions_of_equals(index, num_items, 400);
            check_rate(scenario.name, num, 400, 0.0, 0.025);
        }
    }
}

/// A suite on which the candidate wins and loses such shares of items.
fn suite(seed: u64, num_items: usize, wins: f64, losses: f64) -> Vec<PairedItem> {
    let draws = &mut Draws::new(9_000_000 + seed);
    paired_mean(num_items, || right_or_wrong(draws, wins, losses))
}

/// Promotions, rejections and gates that wait, for a target and guardrails, each with its shares
/// of wins and losses.
fn decisions(
    num: u64,
    num_items: usize,
    target: (f64, f64),
    guardrails: &[(f64, f64)],
) -> [usize; 3] {
    let mut counts = [0; 3];
    for seed in 0..num {
        let wanted = suite(100 * seed, num_items, target.0, target.1);
        let suites: Vec<Vec<PairedItem>> = (1..)
            .zip(guardrails)
            .map(|(index, &(wins, losses))| suite(100 * seed + index, num_items, wins, losses))
            .collect();
        let guardrails: Vec<Guardrail<'_>> = suites
            .iter()
            .map(|items| Guardrail { comparison: comparison("guardrail", items), margin: 0.05 })
            .collect();
        let verdict = decide(&comparison("target", &wanted), &guardrails, &options(0.05, seed));
        let index = match verdict.unwrap().decision {
            Decision::Promote => 0,
            Decision::Reject => 1,
            Decision::NotEnough { .. } => 2,
        };
        counts[index] += 1;
    }
    counts
}

#[test]
fn guardrails_keep_their_rates() {
    // Far better on the target, and one of three guardrails worse by exactly its margin: only
    // with a probability of α may that one hold.
    let guardrails = [(0.1, 0.1), (0.1, 0.1), (0.075, 0.125)];
    let [promoted, ..] = decisions(500, 400, (0.4, 0.1), &guardrails);
    check_rate("a guardrail at its margin", promoted, 500, 0.0, 0.025);
    // All five guardrails exactly at their margins: at most α of these gates may call one broken.
    let [_, rejected, _] = decisions(300, 400, (0.4, 0.1), &[(0.075, 0.125); 5]);
    check_rate("five guardrails at their margins", rejected, 300, 0.0, 0.025);
    // A candidate that is better and breaks nothing.
    let [promoted, ..] = decisions(100, 1_000, (0.3, 0.1), &[(0.05, 0.05); 3]);
    assert!(promoted >= 95, "{promoted} of 100");
    // One that is better and ruins something.
    let [_, rejected, _] = decisions(100, 400, (0.3, 0.1), &[(0.1, 0.1), (0.05, 0.3)]);
    assert!(rejected >= 95, "{rejected} of 100");
}

#[test]
fn as_many_further_items_as_were_asked_for_decide() {
    let (mut open, mut decided) = (0, 0);
    for seed in 0..60 {
        let items = suite(seed, 150, 0.15, 0.12);
        let verdict = decide(&comparison("target", &items), &[], &options(0.05, seed)).unwrap();
        let Outcome::Open { further_items } = verdict.target.outcome else { continue };
        open += 1;
        assert!((1..20_000).contains(&further_items), "{further_items}");
        let more = suite(seed, 150 + further_items as usize, 0.15, 0.12);
        let verdict = decide(&comparison("target", &more), &[], &options(0.05, seed)).unwrap();
        decided += usize::from(!matches!(verdict.decision, Decision::NotEnough { .. }));
    }
    assert!(open >= 40 && decided * 10 >= open * 9, "{decided} of {open}");
}

#[test]
#[ignore = "prints the table of the lab book; minutes"]
fn table_of_gates() {
    println!("| equal models, target | 20 items | 50 | 200 | (promoted of 100, at most 2.5) |");
    println!("|---|---|---|---|---|");
    for (index, scenario) in PAIRS.iter().enumerate() {
        let rate = |num_items, num: u64| {
            100.0 * promotions_of_equals(index, num_items, num) as f64 / num as f64
        };
        let (name, few, some, many) =
            (scenario.name, rate(20, 4_000), rate(50, 4_000), rate(200, 1_000));
        println!("| {name} | {few:.2} | {some:.2} | {many:.2} | |");
    }
    println!("| target, guardrails (wins, losses) | items | promote | reject | not enough |");
    println!("|---|---|---|---|---|");
    let same = (0.1, 0.1);
    for (name, num_items, target, guardrails) in [
        ("the same model, three guardrails", 140, same, vec![same; 3]),
        ("the same model, three guardrails", 1_000, same, vec![same; 3]),
        ("12 points better, all held", 140, (0.2, 0.08), vec![same; 3]),
        ("12 points better, all held", 400, (0.2, 0.08), vec![same; 3]),
        ("12 points better, one 15 points worse", 140, (0.2, 0.08), vec![same, same, (0.05, 0.2)]),
        ("12 points better, one at its margin", 400, (0.2, 0.08), vec![same, same, (0.075, 0.125)]),
        ("10 points worse", 140, (0.08, 0.18), vec![same; 3]),
    ] {
        let [promoted, rejected, open] =
            decisions(1_000, num_items, target, &guardrails).map(|count| count as f64 / 10.0);
        println!("| {name} | {num_items} | {promoted:.1} | {rejected:.1} | {open:.1} |");
    }
}
