//! AdamW against `torch.optim.AdamW`, over hundreds of steps.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use feilun_kernels::optimizer::{AdamW, adamw};
use feilun_kernels::{Isa, Pool};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    seed: u64,
    gradient_spread: f64,
    /// Number of steps -> the values then.
    after: Vec<(u64, Vec<f64>)>,
}

/// SplitMix64 (Steele et al. 2014), as in `scripts/goldens/optimizers.py`: uniform in -1..1.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[test]
fn adamw_follows_pytorch_for_hundreds_of_steps() {
    let text = include_str!("goldens/optimizers.json");
    let goldens: Goldens = serde_json::from_str(text).unwrap();
    assert!(!goldens.runs.is_empty());
    for (index, run) in goldens.runs.iter().enumerate() {
        for isa in Isa::available() {
            follow(index, run, isa);
        }
    }
}

fn follow(index: usize, run: &Run, isa: Isa) {
    let len = run.after[0].1.len();
    let mut random = Random(run.seed);
    let mut values: Vec<f32> = (0..len).map(|_| random.unit()).collect();
    let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
    let pool = &mut Pool::new(2).unwrap();
    let mut step = 0;
    for (num_steps, expected) in &run.after {
        while step < *num_steps {
            step += 1;
            let gradients: Vec<f32> =
                (0..len).map(|_| random.unit() * run.gradient_spread as f32).collect();
            let settings = AdamW {
                lr: run.lr,
                beta1: run.betas[0],
                beta2: run.betas[1],
                eps: run.eps,
                weight_decay: run.weight_decay,
                step,
                gradient_scale: 1.0,
            };
            adamw(pool, isa, &mut values, &gradients, &mut m, &mut v, &settings);
        }
        for (at, (found, expected)) in values.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= 2e-6 * expected.abs().max(1.0),
                "run {index}, {isa:?}, step {step}, value {at}: {found}, PyTorch {expected}"
            );
        }
    }
}
