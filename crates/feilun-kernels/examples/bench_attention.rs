//! Speed of attention alone, for the shapes of SmolLM2 and of Gemma 3's sliding layers.
//!
//! Prefill is printed in GFLOP/s of useful products (masked ones do not count), decode in GB/s of
//! cache and in microseconds per token and layer. Several layers take turns, so that the cache of
//! a long context does not stay in the processor's.
//! `bench_attention THREADS [WORDS]` sets the threads and keeps to measurements whose names have
//! all the words, such as `gemma3 Q8 decode-1024`.

#![expect(clippy::print_stdout, reason = "an example program talks to its terminal")]

use std::time::{Duration, Instant};

use feilun_kernels::attention::{
    AttentionLimits, AttentionScratch, AttentionSegment, AttentionShape, attend,
};
use feilun_kernels::kv::{self, KvKind, KvLayout, KvRows, KvSlot};
use feilun_kernels::{AlignedBytes, Isa, Pool};

const POSITIONS_MAX: usize = 4096;
const NUM_LAYERS: usize = 30;

struct Bench {
    pool: Pool,
    shape: AttentionShape,
    layers: Vec<AlignedBytes>,
    blocks: Vec<u32>,
    scratch: AttentionScratch,
    q: Vec<f32>,
    out: Vec<f32>,
}

impl Bench {
    fn new(num_threads: usize, shape: AttentionShape) -> Result<Bench, Box<dyn std::error::Error>> {
        let mut pool = Pool::new(num_threads)?;
        let layout = shape.layout;
        let num_blocks = POSITIONS_MAX / kv::BLOCK_TOKENS;
        let values = noise(POSITIONS_MAX * layout.kv_size());
        let rows = KvRows { keys: &values, values: &values, stride: layout.kv_size() };
        let slots: Vec<KvSlot> = (0..POSITIONS_MAX)
            .map(|at| KvSlot { block: (at / 16) as u32, offset: (at % 16) as u32 })
            .collect();
        let mut layers = Vec::new();
        for _ in 0..NUM_LAYERS {
            let mut layer = AlignedBytes::zeroed(num_blocks * layout.block_bytes())?;
            kv::write(&mut pool, Isa::best(), &layout, &mut layer, &slots, rows);
            layers.push(layer);
        }
        let limits = AttentionLimits {
            num_rows: POSITIONS_MAX,
            num_segments: 1,
            num_positions: POSITIONS_MAX,
        };
        let q_size = shape.num_heads * layout.head_dim();
        Ok(Bench {
            pool,
            shape,
            layers,
            blocks: (0..num_blocks as u32).collect(),
            scratch: AttentionScratch::new(&[shape], limits, num_threads)?,
            q: noise(POSITIONS_MAX * q_size),
            out: vec![0.0; POSITIONS_MAX * q_size],
        })
    }

    /// Seconds per call for `num_rows` rows from `start` on, layer after layer: the median of
    /// the rounds that fit into half a second.
    fn seconds(&mut self, isa: Isa, start: usize, num_rows: usize) -> f64 {
        let segment = AttentionSegment { num_rows, start, blocks: &self.blocks };
        let q_stride = self.shape.num_heads * self.shape.layout.head_dim();
        let begin = Instant::now();
        let mut rounds = Vec::new();
        while rounds.len() < 3 || begin.elapsed() < Duration::from_millis(400) {
            let round = Instant::now();
            for layer in &self.layers {
                attend(
                    &mut self.pool,
                    isa,
                    &self.shape,
                    layer,
                    &[segment],
                    &self.q,
                    q_stride,
                    &mut self.scratch,
                    &mut self.out,
                );
            }
            rounds.push(round.elapsed().as_secs_f64() / NUM_LAYERS as f64);
        }
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }

    /// Multiply-adds times two of `num_rows` rows from `start` on.
    fn flops(&self, start: usize, num_rows: usize) -> f64 {
        let seen = |at: usize| self.shape.window.map_or(at + 1, |window| window.min(at + 1));
        let keys: usize = (start..start + num_rows).map(seen).sum();
        (4 * keys * self.shape.num_heads * self.shape.layout.head_dim()) as f64
    }
}

fn noise(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let num_threads = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    let words: Vec<String> = arguments.collect();
    let wanted = |name: &str| {
        words.iter().all(|word| {
            name.split(' ')
                .any(|part| part == word || part.ends_with('-') && word.starts_with(part))
        })
    };
    let shapes = [("smollm2", 9, 3, 64, None), ("gemma3", 4, 1, 256, Some(512))];
    for (model, num_heads, num_kv_heads, head_dim, window) in shapes {
        for kind in [KvKind::Q8, KvKind::Bf16, KvKind::F32] {
            let layout = KvLayout::new(kind, num_kv_heads, head_dim)?;
            let scale = 1.0 / (head_dim as f32).sqrt();
            if !wanted(&format!("{model} {kind:?} prefill- decode-")) {
                continue;
            }
            let mut bench =
                Bench::new(num_threads, AttentionShape { layout, num_heads, scale, window })?;
            for num_rows in [16, 128, 512, 4096] {
                let name = format!("{model} {kind:?} prefill-{num_rows}");
                if wanted(&name) {
                    let seconds = bench.seconds(Isa::best(), 0, num_rows);
                    let rate = bench.flops(0, num_rows) / seconds / 1e9;
                    println!("{name:28} {:9.1} us  {rate:6.1} GFLOP/s", seconds * 1e6);
                }
            }
            for context in [128, 512, 1024, 4096] {
                let name = format!("{model} {kind:?} decode-{context}");
                if wanted(&name) {
                    let seconds = bench.seconds(Isa::best(), context - 1, 1);
                    let keys = window.map_or(context, |window: usize| window.min(context));
                    let bytes = keys.div_ceil(kv::BLOCK_TOKENS) * layout.block_bytes();
                    let rate = bytes as f64 / seconds / 1e9;
                    println!("{name:28} {:9.1} us  {rate:6.1} GB/s", seconds * 1e6);
                }
            }
        }
    }
    Ok(())
}
