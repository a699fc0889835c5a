//! How long a token takes to choose from 262,144. A measurement, not a check:
//! `cargo test --release -p feilun-infer --test sampling_speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::hint::black_box;
use std::time::Instant;

use feilun_infer::sampling::{Sampler, SamplingParams, TokenHistory, rng};

const VOCAB: usize = 262_144;

/// Logits like a language model's: a normal bulk, and a few tokens well above it.
fn row() -> Vec<f32> {
    let normal = |i: u64| (0..6).map(|j| rng::uniform(j, i) - 0.5).sum::<f64>() as f32 * 3.5;
    let mut row: Vec<f32> = (0..VOCAB as u64).map(normal).collect();
    for i in 0..50 {
        row[i * 4999] += 14.0 - i as f32 * 0.2;
    }
    row
}

#[test]
#[ignore = "a measurement"]
fn time_per_token() {
    let row = row();
    let base = SamplingParams::default();
    let mask = vec![0xffff_0000u32; VOCAB / 32];
    let cases = [
        ("greedy", SamplingParams::greedy(), None),
        (
            "greedy, 5 logprobs",
            SamplingParams { logprobs: Some(5), ..SamplingParams::greedy() },
            None,
        ),
        ("greedy, mask", SamplingParams::greedy(), Some(mask.as_slice())),
        ("temperature", base.clone(), None),
        ("top-k 40", SamplingParams { top_k: 40, ..base.clone() }, None),
        ("top-k 40, top-p 0.95", SamplingParams { top_k: 40, top_p: 0.95, ..base.clone() }, None),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..base.clone() }, None),
        ("top-p 0.9999 (wide)", SamplingParams { top_p: 0.9999, ..base.clone() }, None),
        (
            "top-p 0.95, T 5 (flat)",
            SamplingParams { top_p: 0.95, temperature: 5.0, ..base.clone() },
            None,
        ),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..base.clone() }, None),
        ("top-k 40, penalty", SamplingParams { top_k: 40, frequency_penalty: 0.5, ..base }, None),
    ];
    for (name, params, mask) in cases {
        let mut sampler = Sampler::new(VOCAB);
        let mut history = TokenHistory::new(&[], &params);
        (0..200).for_each(|token| history.push(token, &params));
        let mut times: Vec<_> = (0..60)
            .map(|position| {
                let start = Instant::now();
                black_box(sampler.choose(black_box(&row), &history, &params, mask, position))
                    .unwrap();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{name:24} median {:>8.1?}  worst {:>8.1?}", times[30], times[59]);
    }
}
