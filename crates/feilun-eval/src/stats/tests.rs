//! Single intervals and differences; `tests/honesty` has thousands of them.

use proptest::prelude::*;

use super::{
    Aggregate, Mean, Method, Options, PairedItem, ScoredItem, StatsError, interval,
    paired_difference,
};

fn scored(values: &[f64]) -> Vec<ScoredItem> {
    let item = |(cluster, &value): (u64, &f64)| ScoredItem { cluster, sums: vec![value, 1.0] };
    (0..).zip(values).map(item).collect()
}

fn paired(pairs: &[(u64, f64, f64)]) -> Vec<PairedItem> {
    pairs
        .iter()
        .map(|&(cluster, candidate, incumbent)| PairedItem {
            cluster,
            candidate: vec![candidate, 1.0],
            incumbent: vec![incumbent, 1.0],
        })
        .collect()
}

#[test]
fn with_many_ordinary_scores_it_is_the_interval_of_the_textbook() {
    // Scores spread evenly from 0 to 1: mean ½, standard error √(1/12/n).
    let num = 2_000;
    let values: Vec<f64> = (0..num).map(|item| (f64::from(item) + 0.5) / 2_000.0).collect();
    let options = Options { num_resamples: 1999, ..Options::default() };
    let found = interval(&scored(&values), &Mean, &options).unwrap();
    let reach = 1.96 * (1.0 / 12.0 / 2_000.0_f64).sqrt();
    assert_eq!(found.method, Method::Bootstrap);
    assert!((found.estimate - 0.5).abs() < 1e-12);
    for (end, expected) in [(found.low, 0.5 - reach), (found.high, 0.5 + reach)] {
        assert!((end - expected).abs() < 0.08 * reach, "{end}, {expected}");
    }
}

#[test]
fn repeating_every_item_in_its_cluster_teaches_nothing() {
    let values: Vec<f64> = (0..30).map(|item| f64::from(item * 17 % 30)).collect();
    let once = interval(&scored(&values), &Mean, &Options::default()).unwrap();
    let four_times: Vec<ScoredItem> =
        scored(&values).into_iter().flat_map(|item| std::iter::repeat_n(item, 4)).collect();
    let repeated = interval(&four_times, &Mean, &Options::default()).unwrap();
    assert_eq!((repeated.num_items, repeated.num_clusters), (120, 30));
    assert!((once.low - repeated.low).abs() < 1e-9 && (once.high - repeated.high).abs() < 1e-9);
}

#[test]
fn swapping_five_wins_is_one_case_of_thirty_two() {
    let wins = paired(&[(0, 0.9, 0.1), (1, 0.8, 0.1), (2, 0.9, 0.3), (3, 0.9, 0.1), (4, 0.7, 0.1)]);
    let found = paired_difference(&wins, &Mean, 0.0, &Options::default()).unwrap();
    assert_eq!(found.p_swap_greater, 1.0 / 32.0);
    assert_eq!(found.p_swap_less, 1.0);
    // In two conversations there are two things to swap.
    let clustered: Vec<PairedItem> =
        wins.iter().map(|item| PairedItem { cluster: item.cluster % 2, ..item.clone() }).collect();
    let found = paired_difference(&clustered, &Mean, 0.0, &Options::default()).unwrap();
    assert_eq!(found.p_swap_greater, 1.0 / 4.0);
}

#[test]
fn swapping_many_comes_near_the_exact_sign_test() {
    // 40 equal differences, 27 of them wins: the swap test is the sign test.
    let pairs: Vec<(u64, f64, f64)> = (0..40)
        .map(|item| if item < 27 { (item, 0.75, 0.25) } else { (item, 0.25, 0.75) })
        .collect();
    let options = Options { num_resamples: 100_000, ..Options::default() };
    let found = paired_difference(&paired(&pairs), &Mean, 0.0, &options).unwrap();
    let exact = super::sign_test(27, 13).p_better;
    assert!((found.p_swap_greater - exact).abs() < 0.003, "{} {exact}", found.p_swap_greater);
}

#[test]
fn p_values_agree_with_the_ends() {
    let pairs: Vec<(u64, f64, f64)> =
        (0..50).map(|item| (item, (item * 31 % 50) as f64 / 50.0, 0.3)).collect();
    let items = paired(&pairs);
    let options = Options { confidence: 0.9, ..Options::default() };
    let ends = paired_difference(&items, &Mean, 0.0, &options).unwrap();
    let at = |threshold| paired_difference(&items, &Mean, threshold, &options).unwrap();
    assert!((at(ends.low).p_greater - 0.05).abs() < 0.002);
    assert!((at(ends.high).p_less - 0.05).abs() < 0.002);
}

#[test]
fn the_seed_decides_and_the_order_does_not() {
    let values: Vec<f64> = (0..25).map(|item| f64::from(item * item % 23)).collect();
    let mut items = scored(&values);
    let options = Options { num_resamples: 499, ..Options::default() };
    let first = interval(&items, &Mean, &options).unwrap();
    items.reverse();
    assert_eq!(first, interval(&items, &Mean, &options).unwrap());
    let other = interval(&items, &Mean, &Options { seed: 1, ..options }).unwrap();
    assert_ne!(first.low, other.low);
    assert!((first.low - other.low).abs() < 0.1 * (first.high - first.low));
}

#[test]
fn what_cannot_be_computed_is_named() {
    let options = Options::default();
    let ask = |items: &[ScoredItem]| interval(items, &Mean, &options).unwrap_err();
    assert_eq!(ask(&[]), StatsError::TooFewClusters { found: 0, expected: 2 });
    assert_eq!(ask(&scored(&[0.3; 4])), StatsError::NoVariation);
    let error = ask(&scored(&[0.3, f64::INFINITY]));
    assert_eq!(error, StatsError::NotFinite { item: 1, found: f64::INFINITY });
    let mut items = scored(&[0.3, 0.4]);
    items[1].sums.push(0.0);
    assert_eq!(ask(&items), StatsError::Width { item: 1, found: 3, expected: 2 });
    for item in &mut items {
        item.sums = vec![1.0, 0.0];
    }
    assert!(matches!(ask(&items), StatsError::Metric { .. }));
    let items = scored(&[0.3, 0.4, 0.6]);
    for wrong in [
        Options { confidence: 1.0, ..options },
        Options { confidence: f64::NAN, ..options },
        Options { num_resamples: 99, ..options },
        Options { num_resamples: usize::MAX, ..options },
    ] {
        assert!(matches!(interval(&items, &Mean, &wrong), Err(StatsError::Setting { .. })));
    }
    let pairs = paired(&[(0, 0.1, 0.2), (1, 0.3, 0.1)]);
    assert!(paired_difference(&pairs, &Mean, f64::NAN, &options).is_err());
}

/// A metric that exists only where enough was answered.
struct Picky;

impl Aggregate for Picky {
    fn value(&self, sums: &[f64]) -> f64 {
        if sums[1] < 3.0 { f64::NAN } else { sums[0] / sums[1] }
    }

    fn width(&self) -> usize {
        2
    }
}

#[test]
fn a_metric_that_some_resamples_lack_is_no_panic() {
    let items = scored(&[0.1, 0.5, 0.9]);
    // Without any one of the three there is no metric, so there is no error to estimate.
    assert_eq!(interval(&items, &Picky, &Options::default()), Err(StatsError::NoVariation));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_scores_an_interval_is_one(
        values in prop::collection::vec(
            (0_u64..6, prop_oneof![prop::num::f64::ANY, -2.0..2.0_f64, Just(0.0), Just(1.0)]),
            0..30,
        ),
    ) {
        let options = Options { num_resamples: 100, ..Options::default() };
        let items: Vec<ScoredItem> = values
            .iter()
            .map(|&(cluster, value)| ScoredItem { cluster, sums: vec![value, 1.0] })
            .collect();
        if let Ok(found) = interval(&items, &Mean, &options) {
            prop_assert!(found.low.is_finite() && found.high.is_finite());
            prop_assert!(found.low <= found.high);
        }
        let pairs: Vec<PairedItem> = values
            .windows(2)
            .map(|pair| PairedItem {
                cluster: pair[0].0,
                candidate: vec![pair[0].1, 1.0],
                incumbent: vec![pair[1].1, 1.0],
            })
            .collect();
        if let Ok(found) = paired_difference(&pairs, &Mean, 0.0, &options) {
            prop_assert!(found.low.is_finite() && found.high.is_finite());
            prop_assert!(found.low <= found.high);
            for p in [found.p_greater, found.p_less, found.p_swap_greater, found.p_swap_less] {
                prop_assert!((0.0..=1.0).contains(&p));
            }
        }
    }
}
