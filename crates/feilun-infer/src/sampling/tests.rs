//! The sampler against a plain one that sorts everything in f64.

use proptest::prelude::*;

use super::*;

/// Probabilities after every step, by the definitions, in f64.
fn reference(row: &[f32], params: &SamplingParams, allowed: impl Fn(u32) -> bool) -> Vec<f64> {
    let mut order: Vec<u32> = (0..row.len() as u32).filter(|&t| allowed(t)).collect();
    let logit = |t: u32| f64::from(row[t as usize]);
    order.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).unwrap().then(a.cmp(&b)));
    if params.top_k > 0 {
        order.truncate(params.top_k);
    }
    let max = logit(order[0]);
    let weight = |t: u32| ((logit(t) - max) / f64::from(params.temperature)).exp();
    let sum: f64 = order.iter().map(|&t| weight(t)).sum();
    let mut reached = 0.0;
    let mut kept = 0;
    while kept < order.len() && (kept == 0 || reached < f64::from(params.top_p) * sum) {
        reached += weight(order[kept]);
        kept += 1;
    }
    order.truncate(kept);
    let best = order[0];
    order.retain(|&t| weight(t) >= f64::from(params.min_p) || t == best);
    let sum: f64 = order.iter().map(|&t| weight(t)).sum();
    let mut probabilities = vec![0.0; row.len()];
    for &t in &order {
        probabilities[t as usize] = weight(t) / sum;
    }
    probabilities
}

fn row(len: usize, seed: u64, spread: f32) -> Vec<f32> {
    (0..len).map(|i| rng::uniform(seed, i as u64) as f32 * spread - spread / 2.0).collect()
}

/// Draws often and compares the counts with the reference.
fn check_distribution(row: &[f32], params: &SamplingParams, mask: Option<&[u32]>) {
    let allowed = |t: u32| mask.is_none_or(|m| m[t as usize / 32] >> (t % 32) & 1 == 1);
    let expected = reference(row, params, allowed);
    let mut sampler = Sampler::new(row.len());
    let history = TokenHistory::default();
    let num_draws = 4000u32;
    let mut counts = vec![0u32; row.len()];
    for position in 0..num_draws {
        let choice = sampler.choose(row, &history, params, mask, position.into()).unwrap();
        counts[choice.token as usize] += 1;
    }
    let mut chi2 = 0.0;
    let mut cells = 0;
    for (token, (&count, &p)) in counts.iter().zip(&expected).enumerate() {
        assert!(count == 0 || p > 0.0, "token {token} should have been cut off: {params:?}");
        let mean = p * f64::from(num_draws);
        if mean >= 5.0 {
            chi2 += (f64::from(count) - mean).powi(2) / mean;
            cells += 1;
        }
    }
    // Mean `cells`, variance 2 `cells`; five deviations and a little.
    let limit = f64::from(cells) + 5.0 * (2.0 * f64::from(cells)).sqrt() + 10.0;
    assert!(chi2 < limit, "chi2 {chi2} over {cells} cells: {params:?}");
}

#[test]
fn draws_follow_the_definitions() {
    let base = SamplingParams { seed: 11, ..SamplingParams::default() };
    for temperature in [0.3, 1.0, 3.0] {
        for top_k in [0, 1, 5, 40, 5000] {
            for top_p in [0.0, 0.5, 0.9, 1.0] {
                for min_p in [0.0, 0.05, 1.0] {
                    let params =
                        SamplingParams { temperature, top_k, top_p, min_p, ..base.clone() };
                    check_distribution(&row(300, 1, 12.0), &params, None);
                }
            }
        }
    }
}

#[test]
fn flat_and_wide_rows_follow_the_definitions() {
    // Nuclei beyond the first guess, ties throughout, and blocks of a thousand.
    for (len, spread) in [(5000, 0.0), (5000, 1.0), (2500, 4.0)] {
        // Not where a sum of equal shares ends, which rounding may move by one.
        for top_p in [0.1003, 0.9507, 1.0] {
            let params = SamplingParams { top_p, seed: 3, ..SamplingParams::default() };
            check_distribution(&row(len, 2, spread), &params, None);
        }
    }
}

#[test]
fn masked_tokens_are_never_drawn() {
    let mask: Vec<u32> = (0..10).map(|i| if i == 3 { 0 } else { 0x1234_5678 << (i % 3) }).collect();
    for (temperature, top_p) in [(0.0, 1.0), (1.0, 1.0), (1.0, 0.8)] {
        let params = SamplingParams { temperature, top_p, ..SamplingParams::default() };
        if params.is_greedy() {
            let row = row(300, 4, 9.0);
            let choice =
                Sampler::new(300).choose(&row, &TokenHistory::default(), &params, Some(&mask), 0);
            let token = choice.unwrap().token;
            assert_eq!(mask[token as usize / 32] >> (token % 32) & 1, 1);
        } else {
            check_distribution(&row(300, 4, 9.0), &params, Some(&mask));
        }
    }
    let params = SamplingParams::greedy();
    let nothing = Sampler::new(300).choose(
        &row(300, 4, 9.0),
        &TokenHistory::default(),
        &params,
        Some(&[]),
        0,
    );
    assert_eq!(nothing, Err(ChooseError::NothingAllowed));
}

#[test]
fn broken_logits_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = row(300, 4, 9.0);
        row[77] = bad;
        for params in [SamplingParams::greedy(), SamplingParams::default()] {
            let found = Sampler::new(300).choose(&row, &TokenHistory::default(), &params, None, 0);
            assert_eq!(found, Err(ChooseError::NotFinite));
        }
    }
}

#[test]
fn padding_ids_are_never_chosen_but_count_in_logprobs() {
    let params = SamplingParams { logprobs: Some(1), ..SamplingParams::greedy() };
    let choice =
        Sampler::new(2).choose(&[0.0, 1.0, 5.0], &TokenHistory::default(), &params, None, 0);
    let choice = choice.unwrap();
    assert_eq!(choice.token, 1);
    assert_eq!(choice.logprobs.unwrap().top[0].0, 2);
}

#[test]
fn penalties_follow_their_definitions() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(3, -1.0)],
        ..SamplingParams::greedy()
    };
    let mut history = TokenHistory::new(&[0], &params);
    history.push(1, &params);
    history.push(1, &params);
    let mut adjusted = Vec::new();
    adjust(&[4.0, 4.0, -4.0, 4.0], &history, &params, None, &mut adjusted);
    // 0: in the prompt alone; 1: twice in the answer; 2: not seen; 3: biased.
    assert_eq!(adjusted, [2.0, 2.0 - 0.5 - 2.0 * 0.25, -4.0, 3.0]);
    history.push(2, &params);
    adjust(&[0.0, 0.0, -4.0, 0.0], &history, &params, None, &mut adjusted);
    assert_eq!(adjusted[2], -8.0 - 0.75);
}

#[test]
fn logprobs_ignore_temperature_bias_and_mask() {
    let row = [1.0, 2.0, 3.0];
    let params = SamplingParams {
        temperature: 0.5,
        logit_bias: vec![(0, 50.0)],
        logprobs: Some(2),
        ..SamplingParams::default()
    };
    let choice = Sampler::new(3).choose(&row, &TokenHistory::default(), &params, None, 0).unwrap();
    assert_eq!(choice.token, 0);
    let logprobs = choice.logprobs.unwrap();
    let normalizer = (1f64.exp() + 2f64.exp() + 3f64.exp()).ln();
    assert!((f64::from(logprobs.logprob) - (1.0 - normalizer)).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|t| t.0).collect::<Vec<_>>(), [2, 1]);
    assert!((f64::from(logprobs.top[0].1) - (3.0 - normalizer)).abs() < 1e-6);
}

proptest! {
    #[test]
    fn any_parameters_choose_an_allowed_token(
        row in prop::collection::vec(-30f32..30.0, 1..200),
        temperature in 0f32..5.0,
        top_k in 0usize..50,
        top_p in 0f32..=1.0,
        min_p in 0f32..=1.0,
        seed: u64,
        position: u64,
    ) {
        let params = SamplingParams {
            temperature, top_k, top_p, min_p, seed, ..SamplingParams::default()
        };
        prop_assert_eq!(params.validate(row.len()), Ok(()));
        let mut sampler = Sampler::new(row.len());
        let history = TokenHistory::default();
        let choice = sampler.choose(&row, &history, &params, None, position).unwrap();
        if !params.is_greedy() {
            // An edge of the nucleus may fall to either side by rounding, and so may the draw.
            let wider = SamplingParams {
                top_p: (top_p + 1e-5).min(1.0), min_p: min_p * 0.9999, ..params.clone()
            };
            prop_assert!(reference(&row, &wider, |_| true)[choice.token as usize] > 0.0);
        }
        let again = Sampler::new(row.len()).choose(&row, &history, &params, None, position);
        prop_assert_eq!(again.unwrap(), choice);
    }
}
