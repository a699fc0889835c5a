//! A request's logits are the same bits whatever else is computed with it, however its prompt is
//! cut, whichever blocks hold its past, and on any number of threads or instruction path.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

use std::path::PathBuf;
use std::sync::Arc;

use feilun_kernels::matmul::Numerics;
use feilun_kernels::{Isa, Pool};
use feilun_model::{
    BatchMode, BlockId, KV_BLOCK_TOKENS, KvKind, LogitRows, Model, ModelFiles, Segment, Session,
    SessionOptions,
};

const MODELS: [&str; 2] = ["smollm2.gguf", "gemma3.gguf"];
const NUM_BLOCKS: usize = 512;
/// Long enough to cross blocks and tiles of rows.
const PROMPT_LEN: usize = 75;
const NUM_STEPS: usize = 6;

fn model(name: &str) -> Arc<Model> {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    let files = ModelFiles::open(folder.join(name)).unwrap();
    Arc::new(Model::load(&files, &mut Pool::new(2).unwrap()).unwrap())
}

fn session(model: &Arc<Model>, isa: Isa, threads: usize) -> Session {
    let options = SessionOptions {
        kernels: isa.into(),
        numerics: Numerics::Native,
        max_rows: 256,
        max_logit_rows: 32,
        kv_kind: KvKind::Bf16,
        num_blocks: NUM_BLOCKS,
    };
    Session::new(Arc::clone(model), Pool::new(threads).unwrap(), options).unwrap()
}

/// A stream of tokens, one per sequence; any tokens do.
fn tokens(sequence: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((sequence * 7919 + i * i * 31 + i * 101 + 3) % 40_000) as u32).collect()
}

/// Blocks of a sequence, scattered over the cache.
fn blocks(sequence: usize) -> Vec<BlockId> {
    let each = (PROMPT_LEN + NUM_STEPS).div_ceil(KV_BLOCK_TOKENS);
    (0..each).map(|i| BlockId(((sequence * each + i) * 211 % NUM_BLOCKS) as u32)).collect()
}

/// The bits of the logits of a row.
fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|logit| logit.to_bits()).collect()
}

/// The logits after the prompt of sequence 0 and after each further token, with the prompt in
/// chunks, and `strangers` other sequences in every decoding step.
fn run(session: &mut Session, chunks: &[usize], strangers: usize) -> Vec<Vec<u32>> {
    let ids = tokens(0, PROMPT_LEN + NUM_STEPS);
    let table = blocks(0);
    let others: Vec<(Vec<u32>, Vec<BlockId>)> =
        (1..=strangers).map(|i| (tokens(i, PROMPT_LEN + NUM_STEPS), blocks(i))).collect();
    let mut found = Vec::new();
    let mut start = 0;
    for &len in chunks {
        let last = start + len == PROMPT_LEN;
        let logits = if last { LogitRows::Last } else { LogitRows::None };
        let mut segments = vec![Segment {
            tokens: &ids[start..start + len],
            start,
            blocks: &table,
            logits,
            adapter: None,
        }];
        // Strangers take other parts of their prompts in the same step.
        for (other, blocks) in &others {
            let len = 1 + start % 7;
            segments.push(Segment {
                tokens: &other[..len],
                start: 0,
                blocks,
                logits: LogitRows::None,
                adapter: None,
            });
        }
        let logits = session.forward(&segments, BatchMode::Exact).unwrap();
        if last {
            found.push(bits(logits.row(0)));
        }
        start += len;
    }
    for step in 0..NUM_STEPS {
        let start = PROMPT_LEN + step;
        let mut segments = Vec::new();
        // The stranger rows stand before ours as well as after.
        for (i, (other, blocks)) in others.iter().enumerate() {
            if i == others.len() / 2 {
                segments.push(own_step(&ids, start, &table));
            }
            segments.push(Segment {
                tokens: &other[step..step + 1],
                start: step,
                blocks,
                logits: LogitRows::Last,
                adapter: None,
            });
        }
        if others.is_empty() {
            segments.push(own_step(&ids, start, &table));
        }
        let row = others.len() / 2;
        let logits = session.forward(&segments, BatchMode::Exact).unwrap();
        found.push(bits(logits.row(row)));
    }
    found
}

fn own_step<'a>(ids: &'a [u32], start: usize, blocks: &'a [BlockId]) -> Segment<'a> {
    Segment { tokens: &ids[start..=start], start, blocks, logits: LogitRows::Last, adapter: None }
}

#[test]
fn results_do_not_depend_on_company_chunks_or_threads() {
    for name in MODELS {
        let model = model(name);
        let alone = run(&mut session(&model, Isa::best(), 1), &[PROMPT_LEN], 0);
        for (what, threads, chunks, strangers) in [
            ("two threads", 2, vec![75], 0),
            ("in chunks", 1, vec![1, 15, 16, 17, 26], 0),
            ("token by token", 2, vec![1; 75], 0),
            ("with one stranger", 2, vec![75], 1),
            ("in a batch of 16", 2, vec![40, 35], 15),
        ] {
            let found = run(&mut session(&model, Isa::best(), threads), &chunks, strangers);
            assert!(found == alone, "{name}, {what}: other bits than alone");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_instruction_path() {
    let model = model("smollm2.gguf");
    let best = run(&mut session(&model, Isa::best(), 2), &[PROMPT_LEN], 0);
    for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Portable) {
        let found = run(&mut session(&model, isa, 2), &[PROMPT_LEN], 0);
        assert!(found == best, "{isa:?} gives other bits than {:?}", Isa::best());
    }
}

#[test]
fn a_reused_prefix_changes_nothing() {
    for name in MODELS {
        let model = model(name);
        let mut session = session(&model, Isa::best(), 2);
        let alone = run(&mut session, &[PROMPT_LEN], 0);
        // Another sequence that begins with the same four full blocks, and computes the rest.
        let shared = 4 * KV_BLOCK_TOKENS;
        let ids = tokens(0, PROMPT_LEN);
        let mut table = blocks(0)[..4].to_vec();
        table.extend_from_slice(&blocks(9)[4..]);
        let segment = Segment {
            tokens: &ids[shared..],
            start: shared,
            blocks: &table,
            logits: LogitRows::Last,
            adapter: None,
        };
        let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
        assert!(bits(logits.row(0)) == alone[0], "{name}");
    }
}
