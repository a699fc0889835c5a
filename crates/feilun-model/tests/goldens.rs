//! The real models against PyTorch and transformers: per-token log-probabilities and greedy
//! continuations. The goldens are made by `scripts/goldens`.

use std::path::PathBuf;
use std::sync::Arc;

use feilun_kernels::matmul::Numerics;
use feilun_kernels::{Isa, Pool, softmax};
use feilun_model::{
    BatchMode, BlockId, KV_BLOCK_TOKENS, KvKind, LogitRows, Model, ModelFiles, Segment, Session,
    SessionOptions,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    texts: Vec<Text>,
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    ids: Vec<u32>,
    logprobs: Vec<f64>,
}

#[derive(Deserialize)]
struct Greedy {
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
}

fn test_models() -> PathBuf {
    std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`")
}

fn goldens(name: &str) -> Goldens {
    let path = format!("{}/tests/goldens/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn session(name: &str, numerics: Numerics, kv_kind: KvKind) -> Session {
    let files = ModelFiles::open(test_models().join(name)).unwrap();
    let mut pool = Pool::new(2).unwrap();
    let model = Arc::new(Model::load(&files, &mut pool).unwrap());
    let options = SessionOptions {
        numerics,
        kv_kind,
        isa: Isa::best(),
        max_rows: 128,
        max_logit_rows: 128,
        num_blocks: 64,
    };
    Session::new(model, pool, options).unwrap()
}

/// Blocks in an order that is not the natural one.
fn some_blocks() -> Vec<BlockId> {
    (0..64).map(|i| BlockId(i * 37 % 64)).collect()
}

/// Log-probabilities of `ids[1..]`, computed in chunks.
fn score(session: &mut Session, ids: &[u32]) -> Vec<f64> {
    let blocks = some_blocks();
    let mut logprobs = Vec::new();
    for (index, tokens) in ids.chunks(100).enumerate() {
        let start = index * 100;
        let blocks = &blocks[..(start + tokens.len()).div_ceil(KV_BLOCK_TOKENS)];
        let segment = Segment { tokens, start, blocks, logits: LogitRows::All, adapter: None };
        let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
        for (row, &next) in ids[start + 1..].iter().enumerate().take(tokens.len()) {
            let row = logits.row(row);
            let total = softmax::log_sum_exp(Isa::best(), row);
            logprobs.push(f64::from(row[next as usize] - total));
        }
    }
    logprobs
}

fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> Vec<u32> {
    let blocks = some_blocks();
    let mut ids = prompt.to_vec();
    let mut start = 0;
    while ids.len() < prompt.len() + count {
        let tokens = &ids[start..];
        let blocks = &blocks[..ids.len().div_ceil(KV_BLOCK_TOKENS)];
        let segment = Segment { tokens, start, blocks, logits: LogitRows::Last, adapter: None };
        let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
        let next = softmax::argmax(Isa::best(), logits.row(0)) as u32;
        start = ids.len();
        ids.push(next);
    }
    ids.split_off(prompt.len())
}

/// Mean and largest absolute difference to the goldens, printed per text.
fn differences(session: &mut Session, goldens: &Goldens) -> (f64, f64) {
    let (mut sum, mut count, mut largest) = (0.0, 0, 0.0f64);
    for text in &goldens.texts {
        let found = score(session, &text.ids);
        assert_eq!(found.len(), text.logprobs.len());
        let differences: Vec<f64> =
            found.iter().zip(&text.logprobs).map(|(a, b)| (a - b).abs()).collect();
        let text_sum: f64 = differences.iter().sum();
        let text_max = differences.iter().copied().fold(0.0, f64::max);
        let bias: f64 = found.iter().zip(&text.logprobs).map(|(a, b)| a - b).sum::<f64>();
        let n = differences.len();
        println!(
            "{:10} {n} tokens: mean |d| {:.6}, max |d| {text_max:.6}, mean d {:.6}",
            text.name,
            text_sum / n as f64,
            bias / n as f64
        );
        sum += text_sum;
        count += n;
        largest = largest.max(text_max);
    }
    println!("all: mean |d| {:.6}, max |d| {largest:.6}", sum / count as f64);
    (sum / count as f64, largest)
}

fn check_f32(name: &str) {
    let goldens = goldens(name);
    let mut session = session(&format!("{name}.gguf"), Numerics::F32, KvKind::F32);
    let (_, largest) = differences(&mut session, &goldens);
    assert!(largest <= 1e-3, "{name}: {largest} nats off");
    for item in &goldens.greedy {
        let found = greedy(&mut session, &item.prompt_ids, item.output_ids.len());
        assert_eq!(found, item.output_ids, "{name}");
    }
}

fn check_native(name: &str) {
    let goldens = goldens(name);
    let mut session = session(&format!("{name}.gguf"), Numerics::Native, KvKind::Bf16);
    let (mean, largest) = differences(&mut session, &goldens);
    assert!(mean <= 0.02 && largest <= 0.15, "{name}: mean {mean}, max {largest} nats off");
}

#[test]
fn smollm2_in_f32() {
    check_f32("smollm2");
}

#[test]
fn gemma3_in_f32() {
    check_f32("gemma3");
}

#[test]
fn smollm2_as_served() {
    check_native("smollm2");
}

#[test]
fn gemma3_as_served() {
    check_native("gemma3");
}
