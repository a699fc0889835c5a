//! `feilun bench kernels --gemm`: the matrix multiply of training.

use std::time::Duration;

use feilun_kernels::bench::{GemmCase, gemm_peak, gemm_rate};
use feilun_kernels::gemm::Precision;
use feilun_kernels::{Isa, Pool};
use serde::Serialize;

use crate::failure::Outcome;
use crate::output;

/// Rows of a step, and of the head at a time.
const ROWS: usize = 2048;
const HEAD_ROWS: usize = 256;

/// What `bench kernels --gemm --json` prints, for each product.
#[derive(Serialize)]
struct GemmReport {
    name: String,
    precision: &'static str,
    threads: usize,
    isa: &'static str,
    m: usize,
    n: usize,
    k: usize,
    gigaflops: f64,
    /// Of the instructions' measured peak rate, all threads together.
    share_of_peak: Option<f64>,
}

/// The products of a training step of SmolLM2-135M.
pub(super) fn gemm(pool: &mut Pool, isa: Isa, json: bool) -> Outcome {
    let mut reports = Vec::new();
    for (precision, label) in [(Precision::Bf16, "bf16"), (Precision::F32, "f32")] {
        let peak = gemm_peak(isa, precision, Duration::from_millis(200))
            .map(|rate| rate * pool.num_threads() as f64 / 1e9);
        for (name, case) in GemmCase::training(ROWS, HEAD_ROWS) {
            let gigaflops = gemm_rate(pool, isa, precision, case, 0.3)?;
            let (m, n, k) = case.shape;
            let share_of_peak = peak.map(|peak| gigaflops / peak);
            if !json {
                let percent = 100.0 * share_of_peak.unwrap_or(f64::NAN);
                output::data(format!(
                    "{label:4} {name:22} {m:5} x {n:5} x {k:5}: {gigaflops:7.0} GFLOP/s, {percent:3.0} % of peak"
                ))?;
            }
            reports.push(GemmReport {
                name,
                precision: label,
                threads: pool.num_threads(),
                isa: isa.name(),
                m,
                n,
                k,
                gigaflops,
                share_of_peak,
            });
        }
    }
    if json { output::json(&reports) } else { Ok(()) }
}
