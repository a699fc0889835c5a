//! A stream of random numbers from a seed.

use feilun_infer::sampling::rng;

/// The draws of one computation, in their order. The same seed gives the same draws on every
/// machine, so a number with its interval can be computed again.
pub(crate) struct Random {
    seed: u64,
    position: u64,
}

impl Random {
    /// Each purpose has a stream of its own, so that resamples and swaps with one seed have
    /// nothing in common.
    pub(crate) fn new(seed: u64, purpose: u64) -> Random {
        Random { seed: rng::fork_seed(seed, purpose), position: 0 }
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.position = self.position.wrapping_add(1);
        rng::uniform(self.seed, self.position)
    }

    /// Uniform in `0..len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        // 53 random bits: the bias of rounding is far below anything a few thousand draws show.
        ((self.uniform() * len as f64) as usize).min(len.saturating_sub(1))
    }
}
