//! Fifty steps of SmolLM2-135M, all of it and with an adapter, against PyTorch: the same losses
//! within 1 % at every step, in bf16. `scripts/goldens` made the curves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use feilun_kernels::gemm::Precision;
use feilun_kernels::{Isa, Pool};
use feilun_model::ModelFiles;
use feilun_model::train::{Batch, Coefficients, LoraOptions, Method, Trainee, TraineeOptions};
use feilun_train::optimizer::{AdamWSettings, Optimizer, OptimizerSettings, UpdateStep};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    rows: Vec<Vec<u32>>,
    full: Point,
    lora: Point,
}

#[derive(Deserialize)]
struct Point {
    loss: f64,
}

fn model() -> PathBuf {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .expect("no FEILUN_TEST_MODELS: run the tests with `cargo xtask test`");
    Path::new(&folder).join("smollm2.gguf")
}

/// Element `i` of matrix `n`, as the README of `scripts/goldens` says.
fn start(n: u64, i: u64, inputs: usize) -> f32 {
    let mut x = (n << 32).wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    let value = (x >> 40) as i64 - (1 << 23);
    value as f32 / (1 << 23) as f32 * (1.0 / (inputs as f64).sqrt()) as f32
}

/// A sorted by name, as the golden numbers them; B is zero.
fn set_adapter(trainee: &mut Trainee) {
    let mut parameters = trainee.parameters().to_vec();
    parameters.retain(|info| info.name.contains("lora_A"));
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let (_, _, values, _) = trainee.values_and_gradients_mut();
    for (n, info) in parameters.iter().enumerate() {
        for (i, value) in values[info.range.clone()].iter_mut().enumerate() {
            *value = start(n as u64, i as u64, info.shape[1]);
        }
    }
}

/// One at a time: each has all processors, and a pool whose threads wait by spinning.
static ALONE: Mutex<()> = Mutex::new(());

fn check(method: Method, learning_rate: f64, expected: impl Fn(&Step) -> f64) {
    let _alone = ALONE.lock().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/smollm2_curves.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let files = ModelFiles::open(model()).unwrap();
    let options = TraineeOptions {
        method,
        precision: Precision::Bf16,
        isa: Isa::best(),
        max_tokens: 256,
        recompute_mlp: false,
    };
    let pool = Pool::new(std::thread::available_parallelism().unwrap().get()).unwrap();
    let mut trainee = Trainee::open(&files, pool, &options).unwrap();
    if options.method != Method::Full {
        set_adapter(&mut trainee);
    }
    let settings = AdamWSettings { weight_decay: 0.0, ..AdamWSettings::default() };
    let settings = OptimizerSettings::AdamW(settings);
    let mut optimizer = Optimizer::new(settings, trainee.parameters()).unwrap();
    let mut worst: f64 = 0.0;
    for (index, step) in golden.steps.iter().enumerate() {
        let tokens = step.rows.concat();
        let documents: Vec<usize> = step.rows.iter().map(Vec::len).collect();
        let num_predicted = tokens.len() - documents.len();
        let values = vec![-1.0 / num_predicted as f32; tokens.len()];
        let batch = Batch { tokens: &tokens, documents: &documents };
        let coefficients = Coefficients::Known { values: &values, label_smoothing: 0.0 };
        let logprobs = trainee.accumulate(batch, coefficients).unwrap();
        let loss = -logprobs.iter().map(|&p| f64::from(p)).sum::<f64>() / num_predicted as f64;
        let reference = expected(step);
        let error = (loss - reference).abs() / reference;
        worst = worst.max(error);
        assert!(error < 0.01, "step {index}: loss {loss:.4}, PyTorch's is {reference:.4}");
        let num_updates = index as u64 + 1;
        let update = UpdateStep { learning_rate, gradient_scale: 1.0, num_updates };
        let (pool, isa, values, gradients) = trainee.values_and_gradients_mut();
        optimizer.update(pool, isa, values, gradients, &update).unwrap();
    }
    println!("largest difference of a loss: {:.2} %", 100.0 * worst);
}

#[test]
fn all_weights_learn_as_in_pytorch() {
    check(Method::Full, 1e-4, |step| step.full.loss);
}

#[test]
fn an_adapter_learns_as_in_pytorch() {
    let targets = LoraOptions::ALL_LINEAR.to_vec();
    let method = Method::Lora(LoraOptions { rank: 16, alpha: 32.0, targets });
    check(method, 2e-4, |step| step.lora.loss);
}
