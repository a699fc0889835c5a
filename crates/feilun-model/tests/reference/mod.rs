//! Goldens in the format of `scripts/goldens`, and the same quantities computed by us.

use std::path::Path;
use std::sync::Arc;

use feilun_kernels::matmul::Numerics;
use feilun_kernels::{Isa, Pool, softmax};
use feilun_model::{
    Adapter, BatchMode, BlockId, KV_BLOCK_TOKENS, KvKind, LogitRows, Model, ModelFiles, Segment,
    Session, SessionOptions,
};
use serde::Deserialize;

/// What a reference says of one model.
#[derive(Deserialize)]
pub(crate) struct Goldens {
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

impl Goldens {
    pub(crate) fn read(path: &Path) -> Goldens {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// A session of two threads with room for the longest text of the goldens.
pub(crate) fn session(path: &Path, numerics: Numerics, kv_kind: KvKind) -> Session {
    let files = ModelFiles::open(path).unwrap();
    let mut pool = Pool::new(2).unwrap();
    let model = Arc::new(Model::load(&files, &mut pool).unwrap());
    let options = SessionOptions {
        numerics,
        kv_kind,
        kernels: Isa::best().into(),
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
fn score(session: &mut Session, ids: &[u32], adapter: Option<&Adapter>) -> Vec<f64> {
    let blocks = some_blocks();
    let mut logprobs = Vec::new();
    for (index, tokens) in ids.chunks(100).enumerate() {
        let start = index * 100;
        let blocks = &blocks[..(start + tokens.len()).div_ceil(KV_BLOCK_TOKENS)];
        let segment = Segment { tokens, start, blocks, logits: LogitRows::All, adapter };
        let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
        for (row, &next) in ids[start + 1..].iter().enumerate().take(tokens.len()) {
            let row = logits.row(row);
            let total = softmax::log_sum_exp(Isa::best(), row);
            logprobs.push(f64::from(row[next as usize] - total));
        }
    }
    logprobs
}

fn greedy(
    session: &mut Session,
    prompt: &[u32],
    count: usize,
    adapter: Option<&Adapter>,
) -> Vec<u32> {
    let blocks = some_blocks();
    let mut ids = prompt.to_vec();
    let mut start = 0;
    while ids.len() < prompt.len() + count {
        let tokens = &ids[start..];
        let blocks = &blocks[..ids.len().div_ceil(KV_BLOCK_TOKENS)];
        let segment = Segment { tokens, start, blocks, logits: LogitRows::Last, adapter };
        let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
        let next = softmax::argmax(Isa::best(), logits.row(0)) as u32;
        start = ids.len();
        ids.push(next);
    }
    ids.split_off(prompt.len())
}

/// Mean and largest absolute difference to the goldens, printed per text.
pub(crate) fn differences(
    session: &mut Session,
    goldens: &Goldens,
    adapter: Option<&Adapter>,
) -> (f64, f64) {
    let (mut sum, mut count, mut largest) = (0.0, 0, 0.0f64);
    for text in &goldens.texts {
        let found = score(session, &text.ids, adapter);
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

/// The f32 path: within 1e-3 nats for each token, and the same greedy tokens.
#[track_caller]
pub(crate) fn check_f32(
    name: &str,
    session: &mut Session,
    goldens: &Goldens,
    adapter: Option<&Adapter>,
) {
    let (_, largest) = differences(session, goldens, adapter);
    assert!(largest <= 1e-3, "{name}: {largest} nats off");
    for item in &goldens.greedy {
        let found = greedy(session, &item.prompt_ids, item.output_ids.len(), adapter);
        assert_eq!(found, item.output_ids, "{name}");
    }
}
