//! What bf16 leaves of the gradient of a real model: its direction, tensor by tensor, against the
//! f32 path (which `gradients.rs` holds against PyTorch).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test")]

use std::path::{Path, PathBuf};

use feilun_kernels::gemm::Precision;
use feilun_kernels::{Isa, Pool};
use feilun_model::ModelFiles;
use feilun_model::train::{Batch, Coefficients, LoraOptions, Method, Trainee, TraineeOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    ids: Vec<u32>,
}

const MAX_TOKENS: usize = 384;

/// The first tokens of the texts that the goldens of generation use, as documents.
fn documents() -> Vec<Vec<u32>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let json = std::fs::read(folder.join("smollm2.json")).unwrap();
    let goldens: Goldens = serde_json::from_slice(&json).unwrap();
    let mut documents: Vec<Vec<u32>> = goldens.texts.into_iter().map(|text| text.ids).collect();
    documents.truncate(4);
    documents.iter_mut().for_each(|ids| ids.truncate(MAX_TOKENS / 4));
    documents
}

/// The gradient of the mean negative log-probability, and where each parameter lies in it.
fn gradient(method: &Method, precision: Precision) -> (Vec<f32>, Vec<(String, usize, usize)>) {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    let files = ModelFiles::open(folder.join("smollm2.gguf")).unwrap();
    let options = TraineeOptions {
        method: method.clone(),
        precision,
        isa: Isa::best(),
        max_tokens: MAX_TOKENS,
        recompute_mlp: false,
    };
    let mut trainee = Trainee::open(&files, Pool::new(2).unwrap(), &options).unwrap();
    if matches!(method, Method::Lora(_)) {
        trainee.initialize_adapter(7);
    }
    let documents = documents();
    let tokens = documents.concat();
    let lengths: Vec<usize> = documents.iter().map(Vec::len).collect();
    let num_predicted = tokens.len() - lengths.len();
    let mut values = vec![-1.0 / num_predicted as f32; tokens.len()];
    let mut start = 0;
    for len in &lengths {
        values[start] = 0.0;
        start += len;
    }
    let batch = Batch { tokens: &tokens, documents: &lengths };
    let coefficients = Coefficients::Known { values: &values, label_smoothing: 0.0 };
    trainee.accumulate(batch, coefficients).unwrap();
    let places = trainee.parameters().iter();
    let places = places.map(|info| (info.name.clone(), info.range.start, info.range.end));
    (trainee.gradients().to_vec(), places.collect())
}

/// The cosine of the angle between two vectors, summed in f64; `None` where both are zero.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    (norms > 0.0).then(|| dot(a, b) / norms)
}

fn check(name: &str, method: &Method) {
    let (exact, places) = gradient(method, Precision::F32);
    let (rounded, _) = gradient(method, Precision::Bf16);
    let whole = cosine(&rounded, &exact).unwrap();
    let mut of_tensors: Vec<(f64, &str)> = places
        .iter()
        .filter_map(|(name, start, end)| {
            Some((cosine(&rounded[*start..*end], &exact[*start..*end])?, name.as_str()))
        })
        .collect();
    of_tensors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, least_name) = of_tensors[0];
    let num_good = of_tensors.iter().filter(|(cosine, _)| *cosine >= 0.999).count();
    println!(
        "{name}: cosine {whole:.6} of the whole, {num_good} of {} tensors at least 0.999, \
         least {least:.6} ({least_name})",
        of_tensors.len()
    );
    assert!(whole >= 0.999, "{name}: {whole}");
    assert!(least >= 0.99, "{name}: {least_name} {least}");
}

#[test]
fn all_weights() {
    check("all weights", &Method::Full);
}

#[test]
fn adapter() {
    let targets = LoraOptions::ALL_LINEAR.to_vec();
    check("LoRA", &Method::Lora(LoraOptions { rank: 16, alpha: 32.0, targets }));
}
