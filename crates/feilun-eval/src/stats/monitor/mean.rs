//! A confidence sequence for the mean of a bounded signal, by betting.

use crate::stats::error::{StatsError, check_share};

/// Candidate means between 0 and 1 are multiples of one over this.
const GRID: usize = 500;
/// No bet risks more than this share of what is left (c in the source).
const LARGEST_RISK: f64 = 0.5;

/// The mean of signals between 0 and 1, with an interval that holds at all times at once.
///
/// The hedged capital process of Waudby-Smith and Ramdas ("Estimating means of bounded random
/// variables by betting", Journal of the Royal Statistical Society B 86, 2024, theorem 3): for
/// each possible mean m, two gamblers begin with ½ each and bet on the next signal x being above
/// or below m,
///
/// `K⁺ ← K⁺ (1 + λ⁺ (x − m))`, `K⁻ ← K⁻ (1 − λ⁻ (x − m))`,
///
/// with stakes that depend on what was seen before alone: `λ = √(2 ln(2/α) / (σ̂² t ln(t + 1)))`,
/// at most `½/m` and `½/(1 − m)`. If m is the mean nobody gets rich by betting on it, so the
/// interval is made of those m for which neither has reached 1/α, ever.
///
/// Signals must each have the same mean given those before, which holds for independent ones;
/// nothing else is assumed.
///
/// ```
/// use feilun_eval::stats::monitor::MeanMonitor;
///
/// let mut monitor = MeanMonitor::new(0.05)?;
/// for index in 0..1000 {
///     monitor.observe(if index % 4 == 0 { 0.0 } else { 1.0 })?;
/// }
/// let (low, high) = monitor.interval();
/// assert!(low > 0.68 && low < 0.75 && high > 0.75 && high < 0.81);
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MeanMonitor {
    alpha: f64,
    num_signals: u64,
    /// ½ + Σ x, the numerator of the running mean, which starts from one signal of ½.
    sum: f64,
    /// ¼ + Σ (x − running mean)².
    squares: f64,
    /// ln of what each possible mean's two gamblers have.
    ln_above: Vec<f64>,
    ln_below: Vec<f64>,
    /// The possible means that were never refuted lie between these, as indices.
    first: usize,
    last: usize,
}

impl MeanMonitor {
    /// A monitor whose interval misses the mean at some time with probability at most `alpha`.
    pub fn new(alpha: f64) -> Result<MeanMonitor, StatsError> {
        check_share("alpha", alpha)?;
        Ok(MeanMonitor {
            alpha,
            num_signals: 0,
            sum: 0.5,
            squares: 0.25,
            ln_above: vec![0.5_f64.ln(); GRID + 1],
            ln_below: vec![0.5_f64.ln(); GRID + 1],
            first: 0,
            last: GRID,
        })
    }

    /// Takes the next signal, between 0 and 1.
    pub fn observe(&mut self, signal: f64) -> Result<(), StatsError> {
        if !(0.0..=1.0).contains(&signal) {
            let expected = "a number from 0 to 1";
            return Err(StatsError::Setting { name: "signal", found: signal, expected });
        }
        let seen = self.num_signals as f64;
        let variance = self.squares / (seen + 1.0);
        let t = seen + 1.0;
        let stake = (2.0 * (2.0 / self.alpha).ln() / (variance * t * (t + 1.0).ln())).sqrt();
        for index in 0..=GRID {
            let mean = index as f64 / GRID as f64;
            let above = stake.min(LARGEST_RISK / mean);
            let below = stake.min(LARGEST_RISK / (1.0 - mean));
            self.ln_above[index] += (above * (signal - mean)).ln_1p();
            self.ln_below[index] += (-below * (signal - mean)).ln_1p();
        }
        self.num_signals += 1;
        self.sum += signal;
        let running = self.sum / (self.num_signals as f64 + 1.0);
        self.squares += (signal - running).powi(2);
        self.narrow();
        Ok(())
    }

    /// Takes away, from both ends, the means that are refuted now.
    fn narrow(&mut self) {
        let rich = -self.alpha.ln();
        let is_refuted = |index: usize| self.ln_above[index].max(self.ln_below[index]) >= rich;
        while self.first < self.last && is_refuted(self.first) {
            self.first += 1;
        }
        while self.last > self.first && is_refuted(self.last) {
            self.last -= 1;
        }
    }

    /// Where the mean lies. Rounded outwards to the grid of possible means, which is a 500th.
    pub fn interval(&self) -> (f64, f64) {
        // The truth may lie between the last refuted mean and the first that is not.
        let low = self.first.saturating_sub(1) as f64 / GRID as f64;
        let high = (self.last + 1).min(GRID) as f64 / GRID as f64;
        (low, high)
    }

    /// The mean of what was seen; ½ before anything was.
    pub fn mean(&self) -> f64 {
        if self.num_signals == 0 { 0.5 } else { (self.sum - 0.5) / self.num_signals as f64 }
    }

    /// How many signals were seen.
    pub fn num_signals(&self) -> u64 {
        self.num_signals
    }
}
