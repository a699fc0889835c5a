//! What this machine can do at best, measured: the roofs that benchmarks are compared with.
//!
//! Instruction rates are those of independent register-to-register chains on one thread;
//! bandwidth is that of several read streams per thread over memory larger than the caches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use crate::matmul::tile_peak;
use crate::{AlignedBytes, Isa, Pool};

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// No memory for the buffer that is read.
    #[error(transparent)]
    OutOfMemory(#[from] crate::memory::OutOfMemory),
    /// The operating system refused a thread.
    #[error("cannot start the measuring threads")]
    Threads(#[from] std::io::Error),
}

/// Bytes that each thread reads: larger than the last-level cache share of any core.
const BUFFER_BYTES: usize = 256 << 20;
/// A single sequential stream reaches only half of the bandwidth on server processors.
const NUM_STREAMS: usize = 8;

/// Bytes per second that `num_threads` threads together read from memory, best of the passes
/// that fit into `duration`.
///
/// # Errors
/// When the memory or the threads are not to be had.
pub fn measure_memory_bandwidth(
    num_threads: usize,
    duration: Duration,
) -> Result<f64, MeasureError> {
    let mut pool = Pool::new(num_threads)?;
    let num_threads = pool.num_threads();
    let mut buffer = AlignedBytes::zeroed(BUFFER_BYTES * num_threads)?;
    // Untouched pages all map to one page of zeros, which would stay in the cache.
    buffer.fill(1);
    let words: &[u64] = bytemuck::cast_slice(&buffer);
    let share = words.len() / num_threads;
    let checksum = AtomicU64::new(0);
    let start = Instant::now();
    let mut best_seconds = f64::INFINITY;
    while start.elapsed() < duration || best_seconds.is_infinite() {
        let pass = Instant::now();
        pool.run(|thread| {
            let sum = sum_streams(&words[thread * share..(thread + 1) * share]);
            checksum.fetch_add(sum, Ordering::Relaxed);
        });
        best_seconds = best_seconds.min(pass.elapsed().as_secs_f64());
    }
    std::hint::black_box(checksum.into_inner());
    Ok((share * num_threads * size_of::<u64>()) as f64 / best_seconds)
}

fn sum_streams(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx512.is_available() {
        // SAFETY: the features were just detected.
        return unsafe { x86::sum_streams_avx512(words) };
    }
    sum_streams_portable(words)
}

fn sum_streams_portable(words: &[u64]) -> u64 {
    /// Words of one cache line.
    const LINE: usize = 8;
    let stream = words.len() / NUM_STREAMS / LINE * LINE;
    let mut sums = [0u64; LINE];
    for offset in (0..stream).step_by(LINE) {
        for start in (0..NUM_STREAMS).map(|index| index * stream + offset) {
            for (sum, word) in sums.iter_mut().zip(&words[start..start + LINE]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Peak rates of one thread, in operations per second (a multiply and an add are two).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakRates {
    /// f32 fused multiply-add.
    pub f32_fma: f64,
    /// bf16 dot products into f32 (`vdpbf16ps`, or `tdpbf16ps` on the AMX path), where the
    /// machine has them.
    pub bf16_dot: Option<f64>,
    /// int8 dot products into i32 (`vpdpbusd`, or `tdpbssd` on the AMX path), where the machine
    /// has them.
    pub int8_dot: Option<f64>,
}

/// The peak rates of one thread of this machine on the path `isa`, each measured for
/// `duration`; `None` where the path has no vector instructions that we measure.
pub fn measure_peak_rates(isa: Isa, duration: Duration) -> Option<PeakRates> {
    #[cfg(target_arch = "x86_64")]
    if isa.is_available() && isa >= Isa::Avx2 {
        if isa == Isa::Avx2 {
            // SAFETY: the path's features were detected.
            let fma = || unsafe { x86::fma_avx2() };
            let f32_fma = rate(duration, x86::FMA_AVX2_OPS, fma);
            return Some(PeakRates { f32_fma, bf16_dot: None, int8_dot: None });
        }
        // SAFETY: the path's features were detected.
        let fma = || unsafe { x86::fma_avx512() };
        if isa == Isa::Amx {
            // SAFETY: the path was detected.
            let bf16 = || unsafe { tile_peak::bf16_products() };
            // SAFETY: as above.
            let int8 = || unsafe { tile_peak::int8_products() };
            return Some(PeakRates {
                f32_fma: rate(duration, x86::FMA_OPS, fma),
                bf16_dot: Some(rate(duration, tile_peak::BF16_OPS, bf16)),
                int8_dot: Some(rate(duration, tile_peak::INT8_OPS, int8)),
            });
        }
        // SAFETY: called only where AVX512-BF16 is detected.
        let bf16 = || unsafe { x86::bf16_dot() };
        // SAFETY: the path's features were detected.
        let int8 = || unsafe { x86::int8_dot() };
        return Some(PeakRates {
            f32_fma: rate(duration, x86::FMA_OPS, fma),
            bf16_dot: is_x86_feature_detected!("avx512bf16")
                .then(|| rate(duration, x86::BF16_OPS, bf16)),
            int8_dot: Some(rate(duration, x86::INT8_OPS, int8)),
        });
    }
    let _ = (isa, duration);
    None
}

/// Operations per second of `work`, which does `ops` of them; the best of many short runs, so
/// that an interruption does not count.
#[cfg(target_arch = "x86_64")]
fn rate(duration: Duration, ops: f64, work: impl Fn()) -> f64 {
    let start = Instant::now();
    let mut best_seconds = f64::INFINITY;
    while start.elapsed() < duration || best_seconds.is_infinite() {
        let run = Instant::now();
        work();
        best_seconds = best_seconds.min(run.elapsed().as_secs_f64());
    }
    ops / best_seconds
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::NUM_STREAMS;

    /// Instructions of one run: about 100 µs.
    const NUM_STEPS: usize = 20_000;
    /// Independent chains: more than latency times throughput of any of the instructions.
    const NUM_CHAINS: usize = 16;
    /// AVX2 has 16 registers in all, and two of them hold the factors.
    const NUM_CHAINS_AVX2: usize = 12;

    pub(super) const FMA_AVX2_OPS: f64 = (NUM_STEPS * NUM_CHAINS_AVX2 * 8 * 2) as f64;
    pub(super) const FMA_OPS: f64 = (NUM_STEPS * NUM_CHAINS * 16 * 2) as f64;
    pub(super) const BF16_OPS: f64 = (NUM_STEPS * NUM_CHAINS * 32 * 2) as f64;
    pub(super) const INT8_OPS: f64 = (NUM_STEPS * NUM_CHAINS * 64 * 2) as f64;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma_avx2() {
        let factor = black_box(_mm256_set1_ps(0.999));
        let mut chains = black_box([_mm256_set1_ps(1.0); NUM_CHAINS_AVX2]);
        for _ in 0..NUM_STEPS {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, factor, factor);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn fma_avx512() {
        let factor = black_box(_mm512_set1_ps(0.999));
        let mut chains = black_box([_mm512_set1_ps(1.0); NUM_CHAINS]);
        for _ in 0..NUM_STEPS {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, factor, factor);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_dot() {
        // SAFETY: both are 64 bytes of plain data.
        let factor: __m512bh = unsafe { std::mem::transmute(black_box(_mm512_set1_epi32(1))) };
        let mut chains = black_box([_mm512_set1_ps(1.0); NUM_CHAINS]);
        for _ in 0..NUM_STEPS {
            for chain in &mut chains {
                *chain = _mm512_dpbf16_ps(*chain, factor, factor);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_dot() {
        let factor = black_box(_mm512_set1_epi32(1));
        let mut chains = black_box([_mm512_set1_epi32(1); NUM_CHAINS]);
        for _ in 0..NUM_STEPS {
            for chain in &mut chains {
                *chain = _mm512_dpbusd_epi32(*chain, factor, factor);
            }
        }
        black_box(chains);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_streams_avx512(words: &[u64]) -> u64 {
        /// Words of one register, which is one cache line.
        const LINE: usize = 8;
        let stream = words.len() / NUM_STREAMS / LINE * LINE;
        let mut sums = [_mm512_setzero_si512(); NUM_STREAMS];
        for offset in (0..stream).step_by(LINE) {
            for (index, sum) in sums.iter_mut().enumerate() {
                // SAFETY: index < NUM_STREAMS and offset + LINE <= stream, so the load ends
                // within NUM_STREAMS * stream <= words.len().
                let line = unsafe {
                    _mm512_loadu_si512(words.as_ptr().add(index * stream + offset).cast())
                };
                *sum = _mm512_add_epi64(*sum, line);
            }
        }
        sums.iter().fold(0, |sum, &lane| sum.wrapping_add(_mm512_reduce_add_epi64(lane) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_summed() {
        let words: Vec<u64> = (0..512).collect();
        assert_eq!(sum_streams(&words), 511 * 512 / 2);
        assert_eq!(sum_streams_portable(&words), 511 * 512 / 2);
    }

    #[test]
    fn rates_are_plausible() {
        for isa in Isa::available() {
            let Some(rates) = measure_peak_rates(isa, Duration::from_millis(2)) else {
                assert_eq!(isa, Isa::Portable);
                continue;
            };
            assert!(rates.f32_fma > 1e9, "{isa:?}: {rates:?}");
            assert!(rates.int8_dot.is_none_or(|rate| rate > 1e9), "{isa:?}: {rates:?}");
        }
    }
}
