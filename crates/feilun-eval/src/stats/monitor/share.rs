//! A sequential test of two shares.

use crate::stats::error::{StatsError, check_share};

/// Whether a candidate's share of good answers is below the incumbent's, one pair of answers
/// after the other: the alarm of a roll-back.
///
/// An e-process of Turner, Ly and Grünwald ("Generic E-variables for exact sequential k-sample
/// tests that allow for optional stopping", Journal of Statistical Planning and Inference 230,
/// 2024): with a and b the shares expected of candidate and incumbent from what was seen before,
/// and m = (a + b)/2, each pair of answers multiplies the evidence by
///
/// `P_a(candidate's) · P_b(incumbent's) / (P_m(candidate's) · P_m(incumbent's))`.
///
/// If both have the same share, whichever it is, this is 1 or less on average, so the evidence
/// ever reaches 1/α with probability at most α. While a ≥ b nothing is bet, so that a better
/// candidate raises no alarm.
///
/// Pairs are in the order of time, one answer of each model; with unequal traffic, pair each
/// answer of the smaller side with one of the other's. A candidate that must be worse by more
/// than a margin is a case for [`MeanMonitor`](super::MeanMonitor), on `(1 + x − y) / 2`.
///
/// ```
/// use feilun_eval::stats::monitor::ShareMonitor;
///
/// let mut monitor = ShareMonitor::new(0.01)?;
/// for index in 0..200 {
///     monitor.observe(index % 2 == 0, index % 10 != 0);
/// }
/// assert!(monitor.is_alarmed());
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShareMonitor {
    alpha: f64,
    num_pairs: u64,
    candidate_good: u64,
    incumbent_good: u64,
    ln_evidence: f64,
    ln_evidence_max: f64,
}

/// Good and bad answers that each model is taken to have given before the first, which keeps
/// expected shares away from 0 and 1 (the sources' choice for small samples, Beta(0.18, 0.18)).
const PRIOR: f64 = 0.18;

impl ShareMonitor {
    /// A monitor that raises a false alarm, ever, with probability at most `alpha`.
    pub fn new(alpha: f64) -> Result<ShareMonitor, StatsError> {
        check_share("alpha", alpha)?;
        Ok(ShareMonitor {
            alpha,
            num_pairs: 0,
            candidate_good: 0,
            incumbent_good: 0,
            ln_evidence: 0.0,
            ln_evidence_max: 0.0,
        })
    }

    /// Takes the next answer of each: was it good?
    pub fn observe(&mut self, candidate: bool, incumbent: bool) {
        let expected = |good: u64| (good as f64 + PRIOR) / (self.num_pairs as f64 + 2.0 * PRIOR);
        let (a, b) = (expected(self.candidate_good), expected(self.incumbent_good));
        if a < b {
            let m = 0.5 * (a + b);
            let ln_ratio = |is_good: bool, share: f64| {
                if is_good { (share / m).ln() } else { ((1.0 - share) / (1.0 - m)).ln() }
            };
            self.ln_evidence += ln_ratio(candidate, a) + ln_ratio(incumbent, b);
            self.ln_evidence_max = self.ln_evidence_max.max(self.ln_evidence);
        }
        self.num_pairs += 1;
        self.candidate_good += u64::from(candidate);
        self.incumbent_good += u64::from(incumbent);
    }

    /// Whether the evidence has ever been enough. An alarm stays.
    pub fn is_alarmed(&self) -> bool {
        self.ln_evidence_max >= -self.alpha.ln()
    }

    /// A p-value that may be read at any time: 1 over the most evidence there has been.
    pub fn p_value(&self) -> f64 {
        (-self.ln_evidence_max).exp()
    }

    /// How many pairs were seen.
    pub fn num_pairs(&self) -> u64 {
        self.num_pairs
    }
}
