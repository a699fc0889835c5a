//! Rows of steps: every token once, in an order that depends on the seed and the step alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use std::collections::BTreeMap;

use common::{IM_END, chat_line, file, open};
use feilun_train::data::{
    DataError, LongExamples, PackedRow, Part, Plan, PlanOptions, Shape, TokenCounts,
};
use proptest::prelude::*;
use serde_json::json;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Conversations with answers of these lengths. The tokens around each answer are always as many.
fn chats(lens: &[usize]) -> String {
    let lines = lens.iter().enumerate();
    lines.map(|(i, &len)| chat_line(&format!("{i:04}"), &"a".repeat(len))).collect()
}

fn plan(contents: &str, shape: Shape, options: PlanOptions) -> Result<Plan, DataError> {
    let (_folder, path) = file(contents);
    Plan::of_examples(open(&path, shape), options)
}

/// All rows of the first pass; the last step may have some of the next.
fn epoch(plan: &Plan) -> Vec<PackedRow> {
    let mut rows: Vec<PackedRow> =
        (0..plan.num_steps(1)).flat_map(|step| plan.rows(step).unwrap()).collect();
    rows.truncate(plan.num_rows(1) as usize);
    rows
}

/// How often each example is in some rows.
fn examples_of(rows: &[PackedRow]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for origin in rows.iter().flat_map(|row| &row.origins) {
        *counts.entry(origin.example).or_default() += 1;
    }
    counts
}

fn num_tokens(rows: &[PackedRow]) -> (u64, u64) {
    let learned = rows.iter().map(PackedRow::num_learned).sum::<usize>() as u64;
    let all = rows.iter().map(|row| row.tokens.len()).sum::<usize>() as u64;
    (learned, all - learned)
}

/// Of a conversation with an empty answer: what surrounds every answer.
const AROUND: usize = 25;

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn every_token_is_accounted_for(
        lens in prop::collection::vec(1..120_usize, 1..60),
        seed: u64,
        long in prop::sample::select(&[LongExamples::Crop, LongExamples::Drop][..]),
        held_out in prop::sample::select(&[0.0, 0.3][..]),
    ) {
        let options = PlanOptions {
            seed, held_out, long_examples: long, tokens_per_step: 300, ..PlanOptions::new(100)
        };
        let plan = match plan(&chats(&lens), Shape::Chat, options) {
            Ok(plan) => plan,
            Err(DataError::NothingToTrain { .. }) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        let ledger = plan.ledger();
        ledger.check().unwrap();
        // What the ledger says against the rows themselves.
        let rows = epoch(&plan);
        let TokenCounts { trained, masked, .. } = ledger.tokens();
        prop_assert_eq!(num_tokens(&rows), (trained, masked));
        // Against the lengths that the examples were made with.
        let total = lens.iter().map(|len| (AROUND + len) as u64).sum::<u64>();
        prop_assert_eq!(ledger.tokens().total(), total);
        let examples = ledger.sources[0].examples;
        let counted = examples.trained + examples.dropped + examples.held_out;
        prop_assert_eq!(counted, lens.len() as u64);
        let long_ones = lens.iter().filter(|&&len| AROUND + len > 100).count() as u64;
        match long {
            LongExamples::Drop => prop_assert_eq!(examples.dropped, long_ones),
            _ => prop_assert_eq!(examples.dropped, 0),
        }
        // Every example is there once, whole or cut off at its end.
        let counts = examples_of(&rows);
        prop_assert_eq!(counts.len() as u64, examples.trained);
        prop_assert!(counts.values().all(|&count| count == 1));
        for row in &rows {
            prop_assert!(row.tokens.len() <= 100);
            prop_assert_eq!(row.documents.iter().sum::<usize>(), row.tokens.len());
            for (origin, range) in row.sequences() {
                let len = AROUND + lens[origin.example];
                prop_assert_eq!(range.len(), len.min(100));
                let document = &plan.examples().unwrap().render(origin.example).unwrap()[0];
                prop_assert_eq!(&row.tokens[range.clone()], &document.tokens[..range.len()]);
                prop_assert_eq!(&row.learn[range.clone()], &document.learn[..range.len()]);
            }
        }
        // What is held out is not trained.
        let held_out = examples_of(plan.held_out());
        prop_assert_eq!(held_out.len() as u64, examples.held_out);
        prop_assert!(held_out.keys().all(|example| !counts.contains_key(example)));
    }

    #[test]
    fn a_step_is_computed_without_those_before_it(
        lens in prop::collection::vec(1..60_usize, 1..40), seed: u64, step in 0..40_u64,
    ) {
        let options = PlanOptions { seed, tokens_per_step: 250, ..PlanOptions::new(101) };
        let contents = chats(&lens);
        let (_folder, path) = file(&contents);
        let undisturbed = Plan::of_examples(open(&path, Shape::Chat), options).unwrap();
        let mut expected = Vec::new();
        for earlier in 0..=step {
            expected = undisturbed.rows(earlier).unwrap();
        }
        let resumed = Plan::of_examples(open(&path, Shape::Chat), options).unwrap();
        prop_assert_eq!(resumed.digest(), undisturbed.digest());
        prop_assert_eq!(&resumed.rows(step).unwrap(), &expected);
        prop_assert_eq!(resumed.epoch(step), undisturbed.epoch(step));
        // Going back changes nothing either.
        undisturbed.rows(0).unwrap();
        prop_assert_eq!(&undisturbed.rows(step).unwrap(), &expected);
        prop_assert_eq!(expected.len() as u64, undisturbed.rows_per_step());
    }

    /// Three passes see everything three times.
    #[test]
    fn passes_follow_each_other_without_a_gap(
        lens in prop::collection::vec(1..60_usize, 1..40), seed: u64,
    ) {
        let options = PlanOptions { seed, tokens_per_step: 303, ..PlanOptions::new(101) };
        let plan = plan(&chats(&lens), Shape::Chat, options).unwrap();
        let mut rows: Vec<PackedRow> =
            (0..plan.num_steps(3)).flat_map(|step| plan.rows(step).unwrap()).collect();
        let num_rows = plan.num_rows(3) as usize;
        prop_assert!(rows.len() - num_rows < 3);
        rows.truncate(num_rows);
        let counts = examples_of(&rows);
        prop_assert!(counts.len() == lens.len() && counts.values().all(|&count| count == 3));
        let last = plan.num_steps(3) - 1;
        prop_assert!(plan.epoch(0) == 0 && plan.epoch(last) <= 2);
    }
}

#[test]
fn another_seed_or_pass_is_another_order() {
    let contents = chats(&[3; 64]);
    let order = |seed, num_steps: std::ops::Range<u64>| -> Vec<usize> {
        let options = PlanOptions { seed, ..PlanOptions::new(50) };
        let plan = plan(&contents, Shape::Chat, options).unwrap();
        assert_eq!(plan.num_rows(1), 64, "one example fits into a row");
        let rows = num_steps.flat_map(|step| plan.rows(step).unwrap());
        rows.flat_map(|row| row.origins).map(|origin| origin.example).collect()
    };
    let first = order(1, 0..16);
    assert_eq!(first, order(1, 0..16));
    for other in [order(2, 0..16), order(1, 16..32), (0..64).collect()] {
        let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(same < 8, "{same} of 64 places agree, 1 is expected");
    }
}

#[test]
fn long_examples_are_refused_with_their_number() {
    let error = plan(&chats(&[3, 200, 90, 3]), Shape::Chat, PlanOptions::new(100)).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("2 of 4 examples are longer than 100 tokens (the longest, 225, is `"));
    assert!(text.contains("data.jsonl` line 2)"), "{text}");

    // The model's context may be shorter than the row.
    let options = PlanOptions { document_tokens_max: 50, ..PlanOptions::new(100) };
    let error = plan(&chats(&[3, 30]), Shape::Chat, options).unwrap_err().to_string();
    assert!(error.starts_with("1 of 2 examples are longer than 50 tokens"), "{error}");
}

#[test]
fn an_example_cropped_to_its_prompt_is_dropped() {
    let contents = chats(&[3]) + &chat_line(&"p".repeat(90), "a");
    let options = PlanOptions { long_examples: LongExamples::Crop, ..PlanOptions::new(60) };
    let plan = plan(&contents, Shape::Chat, options).unwrap();
    let source = &plan.ledger().sources[0];
    assert_eq!((source.examples.trained, source.examples.dropped), (1, 1));
    assert!(source.tokens.dropped > 90);
    assert_eq!(source.tokens.cropped, 0);
}

#[test]
fn wrong_settings_are_refused() {
    for (options, expected) in [
        (PlanOptions::new(1), "the length of rows is 1, expected 2 to 16777216 tokens"),
        (PlanOptions::new(usize::MAX), "the length of rows is"),
        (PlanOptions { document_tokens_max: 1, ..PlanOptions::new(9) }, "the length of documents"),
        (PlanOptions { tokens_per_step: 0, ..PlanOptions::new(9) }, "tokens in a step is 0"),
        (PlanOptions { held_out: 1.0, ..PlanOptions::new(9) }, "held-out share is 1"),
        (PlanOptions { held_out: f64::NAN, ..PlanOptions::new(9) }, "held-out share is NaN"),
        (PlanOptions { held_out: -0.1, ..PlanOptions::new(9) }, "held-out share is -0.1"),
    ] {
        let error = plan(&chats(&[3]), Shape::Chat, options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_held_out_depends_on_the_prompt_alone() {
    // Ten answers to each of a hundred prompts.
    let contents: String = (0..1000)
        .map(|i| chat_line(&format!("{:03}", i % 100), &"a".repeat(1 + i / 100)))
        .collect();
    let held_out = |seed, share| -> Vec<usize> {
        let options =
            PlanOptions { seed, held_out: share, held_out_rows_max: 1000, ..PlanOptions::new(64) };
        let plan = plan(&contents, Shape::Chat, options).unwrap();
        examples_of(plan.held_out()).into_keys().collect()
    };
    let chosen = held_out(1, 0.2);
    assert_eq!(chosen, held_out(2, 0.2), "the seed does not matter");
    let prompts: std::collections::BTreeSet<usize> = chosen.iter().map(|i| i % 100).collect();
    assert_eq!(chosen.len(), prompts.len() * 10, "all answers to a prompt are on one side");
    assert!((8..=36).contains(&prompts.len()), "{} of 100 prompts", prompts.len());
    let more = held_out(1, 0.4);
    assert!(chosen.iter().all(|i| more.contains(i)), "a larger share contains a smaller one");

    let options = PlanOptions { held_out: 0.5, held_out_rows_max: 3, ..PlanOptions::new(64) };
    assert!(plan(&contents, Shape::Chat, options).unwrap().held_out().len() <= 3);
    let options = PlanOptions { held_out: 0.999_999, ..PlanOptions::new(64) };
    let error = plan(&contents, Shape::Chat, options).unwrap_err().to_string();
    assert!(error.contains("of 1000 examples 1000 are held out"), "{error}");
}

fn pairs(num: usize, extra: usize) -> String {
    let pair = |i: usize| {
        json!({
            "prompt": format!("{i:04}"),
            "chosen": "c".repeat(1 + i % 7 + extra),
            "rejected": "r".repeat(1 + i % 5),
        })
    };
    (0..num).map(|i| format!("{}\n", pair(i))).collect()
}

#[test]
fn pairs_stay_together() {
    let options = PlanOptions { tokens_per_step: 512, ..PlanOptions::new(256) };
    let plan = plan(&pairs(50, 0), Shape::Pairs, options).unwrap();
    plan.ledger().check().unwrap();
    let rows = epoch(&plan);
    let mut seen = Vec::new();
    for row in &rows {
        for pair in row.sequences().collect::<Vec<_>>().chunks(2) {
            let [(chosen, first), (rejected, second)] = pair else { panic!("half a pair") };
            assert_eq!((chosen.part, rejected.part), (Part::Chosen, Part::Rejected));
            assert_eq!(chosen.example, rejected.example);
            let i = chosen.example;
            // The answer, and the token that ends it.
            let learned = |range: &std::ops::Range<usize>| {
                row.learn[range.clone()].iter().filter(|&&learn| learn).count()
            };
            assert_eq!(learned(first), 1 + i % 7 + 1);
            assert_eq!(learned(second), 1 + i % 5 + 1);
            seen.push(i);
        }
    }
    seen.sort();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_pair_that_is_too_long_together_is_cut_in_halves() {
    let contents = pairs(3, 80);
    let error = plan(&contents, Shape::Pairs, PlanOptions::new(128)).unwrap_err().to_string();
    assert!(error.starts_with("3 of 3 examples are longer than 128 tokens"), "{error}");
    let options = PlanOptions { long_examples: LongExamples::Crop, ..PlanOptions::new(128) };
    let plan = plan(&contents, Shape::Pairs, options).unwrap();
    plan.ledger().check().unwrap();
    for row in epoch(&plan) {
        assert!(row.documents.iter().all(|&len| len <= 64), "{:?}", row.documents);
        assert!(row.num_learned() > 0);
    }
    assert!(plan.ledger().tokens().cropped > 100);
}

fn answers(num: usize, num_prompts: usize) -> String {
    let answer = |i: usize| {
        let prompt = format!("prompt {}", i % num_prompts);
        json!({"prompt": prompt, "completion": format!("answer {i}"), "label": i.is_multiple_of(3)})
    };
    (0..num).map(|i| format!("{}\n", answer(i))).collect()
}

fn text_of(row: &PackedRow, range: &std::ops::Range<usize>, learned: bool) -> String {
    let tokens: Vec<u32> = range
        .clone()
        .filter(|&t| row.learn[t] == learned && row.tokens[t] < 256)
        .map(|t| row.tokens[t])
        .collect();
    common::BYTES.decode(&tokens, true)
}

#[test]
fn answers_come_with_mismatched_ones() {
    let options = PlanOptions { tokens_per_step: 256, held_out: 0.3, ..PlanOptions::new(128) };
    let plan = plan(&answers(40, 10), Shape::Answers, options).unwrap();
    let mut partners: BTreeMap<usize, String> = BTreeMap::new();
    for step in 0..plan.num_steps(3) {
        let rows = plan.rows(step).unwrap();
        let (matched, mismatched): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.origins[0].part != Part::Mismatched);
        assert_eq!(matched.len() as u64, plan.rows_per_step());
        let mut wanted = Vec::new();
        for row in matched {
            for (origin, range) in row.sequences() {
                let liked = origin.example.is_multiple_of(3);
                let expected = if liked { Part::Desirable } else { Part::Undesirable };
                assert_eq!(origin.part, expected);
                let answer = text_of(row, &range, true);
                assert_eq!(answer, format!("answer {}", origin.example));
                wanted.push(origin.example);
            }
        }
        let mut found = Vec::new();
        for row in mismatched {
            for (origin, range) in row.sequences() {
                assert_eq!(origin.part, Part::Mismatched);
                let prompt = format!("prompt {}", origin.example % 10);
                assert!(text_of(row, &range, false).contains(&prompt));
                let answer = text_of(row, &range, true);
                let other: usize = answer.strip_prefix("answer ").unwrap().parse().unwrap();
                assert_ne!(other % 10, origin.example % 10, "an answer to another prompt");
                assert_eq!(row.tokens[range.end - 2], IM_END);
                let known = partners.entry(origin.example).or_insert_with(|| answer.clone());
                assert_eq!(*known, answer, "the same one in every pass");
                found.push(origin.example);
            }
        }
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "one for each answer of the step");
    }
    // Every answer stands against one prompt or few, not one against all.
    let different: std::collections::BTreeSet<_> = partners.values().collect();
    assert!(different.len() * 2 > partners.len(), "{} of {}", different.len(), partners.len());
    assert!(plan.held_out().iter().any(|row| row.origins[0].part == Part::Mismatched));
}

#[test]
fn equal_prompts_have_to_do_where_there_are_no_others() {
    let plan_of = |num| plan(&answers(num, 1), Shape::Answers, PlanOptions::new(128));
    let rows = plan_of(3).unwrap().rows(0).unwrap();
    let mismatched = rows.iter().filter(|row| row.origins[0].part == Part::Mismatched);
    for row in mismatched {
        for (origin, range) in row.sequences() {
            assert_ne!(text_of(row, &range, true), format!("answer {}", origin.example));
        }
    }
    let error = plan_of(1).unwrap_err().to_string();
    assert!(error.contains("there is only one"), "{error}");
}

#[test]
fn names_of_rows_and_digests_of_plans() {
    let contents = pairs(2, 0);
    let base = PlanOptions::new(256);
    let plan_of = |contents: &str, options| plan(contents, Shape::Pairs, options).unwrap();
    let first = plan_of(&contents, base);
    let name = first.describe(&first.rows(0).unwrap()[0]);
    for part in ["data.jsonl line 1 (chosen), ", "data.jsonl line 2 (rejected)"] {
        assert!(name.contains(part), "{name}");
    }
    assert_eq!(first.digest(), plan_of(&contents, base).digest());
    assert_ne!(first.digest(), plan_of(&contents, PlanOptions { seed: 1, ..base }).digest());
    assert_ne!(first.digest(), plan_of(&(contents.clone() + "\n"), base).digest());
}
