//! Speed of the training kernels that are not matrix products, on this machine:
//! `cargo run --release -p feilun-kernels --example bench_training [THREADS]`.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "an example talks to its terminal")]

use std::time::Instant;

use feilun_kernels::attention::packed::{
    Found, HeadGradients, Heads, PackedScratch, PackedShape, backward, forward,
};
use feilun_kernels::optimizer::{AdamW, adamw_and_zero, sum_of_squares};
use feilun_kernels::{AlignedBytes, Isa, Pool};

/// The fastest of some runs, in seconds: the machine is shared.
fn best_of(mut run: impl FnMut()) -> f64 {
    run();
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..7).map(time).fold(f64::INFINITY, f64::min)
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

fn attention(pool: &mut Pool, isa: Isa, shape: &PackedShape, documents: &[usize]) {
    let num_tokens: usize = documents.iter().sum();
    let q_len = num_tokens * shape.num_heads * shape.head_dim;
    let k_len = num_tokens * shape.num_kv_heads * shape.head_dim;
    let (q, k, v, d_out) = (numbers(q_len), numbers(k_len), numbers(k_len), numbers(q_len));
    let heads = Heads { q: q[..].into(), k: k[..].into(), v: v[..].into() };
    let (mut out, mut lse) = (vec![0.0; q_len], vec![0.0; num_tokens * shape.num_heads]);
    let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q_len], vec![0.0; k_len], vec![0.0; k_len]);
    let mut scratch = PackedScratch::default();
    let there = best_of(|| {
        forward(pool, isa, shape, documents, heads, &mut scratch, &mut out, &mut lse)
            .expect("memory");
    });
    let back = best_of(|| {
        let found = Found { out: out[..].into(), lse: &lse };
        let gradients = HeadGradients { d_q: &mut d_q, d_k: &mut d_k, d_v: &mut d_v };
        let d_out = d_out[..].into();
        backward(pool, isa, shape, documents, heads, found, d_out, &mut scratch, gradients)
            .expect("memory");
    });
    let reach = shape.window.unwrap_or(usize::MAX);
    let pairs: usize = documents.iter().flat_map(|&len| 1..=len).map(|n| n.min(reach)).sum();
    // Two operations per product and sum; two products forward, five backward.
    let operations = 2.0 * (pairs * shape.num_heads * shape.head_dim) as f64;
    println!(
        "attention {documents:?} heads {}/{} x {} window {:?}: forward {:.2} ms, {:.1} GFLOP/s; \
         backward {:.2} ms, {:.1} GFLOP/s; scratch {:.1} MB",
        shape.num_heads,
        shape.num_kv_heads,
        shape.head_dim,
        shape.window,
        there * 1e3,
        2.0 * operations / there / 1e9,
        back * 1e3,
        5.0 * operations / back / 1e9,
        scratch.bytes() as f64 / 1e6,
    );
}

/// As many parameters as a small model has: far more than any cache holds.
fn optimizer(pool: &mut Pool, isa: Isa) {
    const NUM: usize = 1 << 25;
    let buffer = || AlignedBytes::zeroed(NUM * size_of::<f32>()).expect("memory");
    let (mut values, mut gradients, mut m, mut v) = (buffer(), buffer(), buffer(), buffer());
    // Memory that nobody wrote to is one page of zeros, read from the cache.
    for buffer in [&mut values, &mut gradients, &mut m, &mut v] {
        let numbers = buffer.as_f32_mut().iter_mut().enumerate();
        numbers.for_each(|(index, value)| *value = (index % 1009) as f32 / 1009.0);
    }
    let mut step = AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 0,
        gradient_scale: 1.0,
    };
    let norm = best_of(|| {
        std::hint::black_box(sum_of_squares(pool, isa, gradients.as_f32()));
    });
    let update = best_of(|| {
        step.step += 1;
        let (values, gradients) = (values.as_f32_mut(), gradients.as_f32_mut());
        adamw_and_zero(pool, isa, values, gradients, m.as_f32_mut(), v.as_f32_mut(), &step);
    });
    // Four streams are read and four written.
    let gigabytes = |streams: usize, seconds: f64| (streams * NUM * 4) as f64 / seconds / 1e9;
    println!(
        "sum of squares {:.1} GB/s; AdamW {:.1} GB/s, {:.0} million values a second",
        gigabytes(1, norm),
        gigabytes(8, update),
        NUM as f64 / update / 1e6,
    );
}

fn main() {
    let num_threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(2);
    let pool = &mut Pool::new(num_threads).expect("threads");
    let isa = Isa::best();
    println!("{} on {num_threads} threads", isa.name());
    let smollm2 =
        PackedShape { num_heads: 9, num_kv_heads: 3, head_dim: 64, scale: 0.125, window: None };
    attention(pool, isa, &smollm2, &[2048]);
    attention(pool, isa, &smollm2, &[512; 4]);
    let gemma3 = PackedShape {
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 256,
        scale: 0.0625,
        window: Some(512),
    };
    attention(pool, isa, &gemma3, &[2048]);
    attention(pool, isa, &gemma3, &[512; 4]);
    optimizer(pool, isa);
}
