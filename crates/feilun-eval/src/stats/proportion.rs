//! Intervals for what is right or wrong: one model's share, and the difference of two models'.
//!
//! Counts near 0 or n leave nothing to resample, and there the bootstrap knows nothing: twenty
//! right answers of twenty would have an interval of no width. These formulas do not need the
//! sample to vary.
//!
//! **Clusters.** Answers of one conversation resemble each other, so n of them are worth fewer.
//! With G clusters of sizes m, `deff = G/(G−1) · Σ (y_g − p m_g)² / (n p (1 − p))` says how often
//! an independent answer is counted, and n/deff takes the place of n, at most n. Student's t with
//! G − 1 degrees of freedom takes the place of the normal quantile, for deff is an estimate
//! (Korn and Graubard, "Confidence intervals for proportions with small expected number of
//! positive counts estimated from survey data", Survey Methodology 24, 1998; Dean and Pagano,
//! "Evaluating confidence interval methods for binomial proportions in clustered surveys", Journal
//! of Survey Statistics and Methodology 3, 2015). Where there is no variance to estimate it from,
//! each cluster counts as one answer, the worst that can be.

use super::distribution::{normal_cdf, normal_quantile, t_cdf, t_quantile};
use super::error::{StatsError, check_share};

/// Agresti and Coull's interval for a share: `successes` of `trials` independent ones.
///
/// With z the normal quantile at (1 + confidence)/2, `n' = n + z²` and
/// `p' = (successes + z²/2) / n'`: `p' ± z √(p' (1 − p') / n')` (Agresti and Coull, "Approximate is
/// better than 'exact' for interval estimation of binomial proportions", The American Statistician
/// 52, 1998).
///
/// Successes are whole numbers, so no interval has its rate at every true share. Over shares from
/// 50 to 99 %, that of Wilson covers 95.4 % on average with 20 trials, but 91.2 % at its worst; this
/// one 96.2 % and 92.9 %, with 50 trials 95.7 % and 93.5 %, with 200 95.2 % and 94.2 % (computed, not
/// simulated).
///
/// ```
/// use feilun_eval::stats::agresti_coull;
///
/// let (low, high) = agresti_coull(19, 20, 0.95)?;
/// assert!((low - 0.7459).abs() < 1e-4 && high == 1.0);
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
pub fn agresti_coull(
    successes: u64,
    trials: u64,
    confidence: f64,
) -> Result<(f64, f64), StatsError> {
    check_share("confidence", confidence)?;
    if successes > trials || trials == 0 {
        return Err(StatsError::Successes { found: successes, trials });
    }
    let z = normal_quantile(0.5 + confidence / 2.0);
    Ok(share_interval(successes as f64 / trials as f64, trials as f64, z))
}

/// The same formula for a number of trials that need not be whole.
pub(super) fn share_interval(share: f64, num: f64, z: f64) -> (f64, f64) {
    let enlarged = num + z * z;
    let middle = (share * num + z * z / 2.0) / enlarged;
    let reach = z * (middle * (1.0 - middle) / enlarged).sqrt();
    ((middle - reach).max(0.0), (middle + reach).min(1.0))
}

/// The distribution that an estimate's error is compared with.
#[derive(Clone, Copy)]
pub(super) enum Reference {
    Normal,
    StudentsT { freedom: f64 },
}

impl Reference {
    /// Independent items need no estimate of how alike they are.
    pub(super) fn of(num_clusters: usize, are_single: bool) -> Reference {
        if are_single {
            return Reference::Normal;
        }
        Reference::StudentsT { freedom: (num_clusters - 1) as f64 }
    }

    pub(super) fn quantile(self, p: f64) -> f64 {
        match self {
            Reference::Normal => normal_quantile(p),
            Reference::StudentsT { freedom } => t_quantile(p, freedom),
        }
    }

    fn cdf(self, value: f64) -> f64 {
        match self {
            Reference::Normal => normal_cdf(value),
            Reference::StudentsT { freedom } => t_cdf(value, freedom),
        }
    }
}

/// How many independent items n clustered ones are worth. `clusters` has the sum of values and
/// the number of items of each cluster, `mean` their quotient over all, `variance` that of a
/// single value.
pub(super) fn effective_num(clusters: &[(f64, f64)], mean: f64, variance: f64) -> f64 {
    let num_items: f64 = clusters.iter().map(|&(_, size)| size).sum();
    let num_clusters = clusters.len() as f64;
    if num_items == num_clusters {
        return num_items;
    }
    if variance <= 0.0 {
        return num_clusters;
    }
    let squares: f64 = clusters.iter().map(|&(sum, size)| (sum - mean * size).powi(2)).sum();
    let deff = num_clusters / (num_clusters - 1.0) * squares / (num_items * variance);
    num_items / deff.max(1.0)
}

/// The difference of two models' shares of right answers to the same items.
///
/// With w items that only the candidate got right, l that only the incumbent did, and
/// `w' = (w+1)/(n+2)`, `l' = (l+1)/(n+2)`: `w' − l' ± z √((w' + l' − (w' − l')²) / (n+2))`
/// (Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
/// based on paired data", Journal of Educational and Behavioral Statistics 37, 2012; among those
/// recommended by Fagerland, Lydersen and Laake, "Recommended tests and confidence intervals for
/// paired binomial proportions", Statistics in Medicine 33, 2014).
#[derive(Clone, Copy)]
pub(super) struct PairedShares {
    middle: f64,
    standard_error: f64,
    reference: Reference,
}

impl PairedShares {
    /// `wins` and `losses` are shares of the items, `num` how many items they are worth.
    pub(super) fn new(wins: f64, losses: f64, num: f64, reference: Reference) -> PairedShares {
        let wins = (wins * num + 1.0) / (num + 2.0);
        let losses = (losses * num + 1.0) / (num + 2.0);
        let middle = wins - losses;
        let variance = (wins + losses - middle * middle) / (num + 2.0);
        PairedShares { middle, standard_error: variance.sqrt(), reference }
    }

    /// The end of the interval that has a share `tail` of the probability below it.
    pub(super) fn bound(&self, tail: f64) -> f64 {
        (self.middle + self.reference.quantile(tail) * self.standard_error).clamp(-1.0, 1.0)
    }

    /// p-value of "the truth is at most `threshold`".
    pub(super) fn p_greater(&self, threshold: f64) -> f64 {
        1.0 - self.p_less(threshold)
    }

    /// p-value of "the truth is at least `threshold`".
    pub(super) fn p_less(&self, threshold: f64) -> f64 {
        self.reference.cdf((self.middle - threshold) / self.standard_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agresti_and_coull_equal_statsmodels() {
        // `statsmodels.stats.proportion.proportion_confint(method="agresti_coull")`.
        for (successes, trials, confidence, low, high) in [
            (0, 20, 0.95, 0.0, 0.18980956054248885),
            (7, 20, 0.95, 0.17992636143822802, 0.5684111859776177),
            (20, 20, 0.9, 0.8587122887896796, 1.0),
            (812, 1000, 0.99, 0.7780905988374075, 0.8417965142628666),
        ] {
            let found = agresti_coull(successes, trials, confidence).unwrap();
            let is_close = (found.0 - low).abs() < 1e-10 && (found.1 - high).abs() < 1e-10;
            assert!(is_close, "{successes} of {trials}: {found:?}");
        }
        assert_eq!(agresti_coull(3, 2, 0.95), Err(StatsError::Successes { found: 3, trials: 2 }));
        assert_eq!(agresti_coull(0, 0, 0.95), Err(StatsError::Successes { found: 0, trials: 0 }));
        assert!(agresti_coull(1, 2, 1.0).is_err());
    }

    #[test]
    fn bonett_and_price_is_its_formula() {
        // By hand: 50 items, 9 wins, 3 losses; (10/52, 4/52), z = 1.959964.
        let shares = PairedShares::new(9.0 / 50.0, 3.0 / 50.0, 50.0, Reference::Normal);
        let (w, l) = (10.0 / 52.0, 4.0 / 52.0_f64);
        let error = ((w + l - (w - l) * (w - l)) / 52.0).sqrt();
        assert!((shares.bound(0.025) - (w - l - 1.959963984540054 * error)).abs() < 1e-12);
        assert!((shares.bound(0.975) - (w - l + 1.959963984540054 * error)).abs() < 1e-12);
        // The p-value is the tail at which the interval ends at the threshold.
        assert!((shares.p_greater(shares.bound(0.1)) - 0.1).abs() < 1e-9);
        assert!((shares.p_less(shares.bound(0.9)) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn repeated_answers_are_worth_one_each() {
        // Ten clusters of five equal answers: deff = 5 · 10/9, so nine independent items.
        let clusters: Vec<(f64, f64)> =
            (0..10).map(|g| (if g % 2 == 0 { 5.0 } else { 0.0 }, 5.0)).collect();
        assert!((effective_num(&clusters, 0.5, 0.25) - 9.0).abs() < 1e-9);
        // Clusters that are all alike are worth no more than their items.
        let alike = [(2.0, 4.0); 10];
        assert_eq!(effective_num(&alike, 0.5, 0.25), 40.0);
        // Nothing to estimate from: each cluster counts once.
        assert_eq!(effective_num(&[(5.0, 5.0); 10], 1.0, 0.0), 10.0);
        assert_eq!(effective_num(&[(1.0, 1.0); 10], 1.0, 0.0), 10.0);
    }
}
