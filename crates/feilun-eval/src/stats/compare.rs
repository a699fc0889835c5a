//! A metric with its interval, and the difference of two models with its interval and p-values.
//!
//! Which method is used depends on the items alone:
//!
//! | items | one model | two models |
//! |---|---|---|
//! | right or wrong | Agresti and Coull | Bonett and Price |
//! | any other scores | studentized bootstrap over clusters | the same, of the difference |
//! | the same answers from both | | the rule of three |
//!
//! Each was chosen by the simulations in `tests/honesty`, whose table is in `docs/lab-book.md`.

use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::bootstrap::Studentized;
use super::clusters::{Clusters, Statistic};
use super::error::{StatsError, check_share};
use super::proportion::{PairedShares, Reference, effective_num, share_interval};
use super::swap::swap_test;

/// One item's contribution to one model's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredItem {
    /// Items of one cluster resemble each other: the conversation, or the item itself.
    pub cluster: u64,
    /// As many numbers as the metric's [`width`](Aggregate::width).
    pub sums: Vec<f64>,
}

/// One item that both models answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedItem {
    /// Items of one cluster resemble each other: the conversation, or the item itself.
    pub cluster: u64,
    /// What the candidate's answer contributes, as many numbers as the metric's
    /// [`width`](Aggregate::width).
    pub candidate: Vec<f64>,
    /// What the incumbent's answer contributes.
    pub incumbent: Vec<f64>,
}

/// How to compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// In how many of a hundred such intervals the truth lies, as a share: 0.95.
    pub confidence: f64,
    /// The same seed gives the same numbers.
    pub seed: u64,
    /// How often clusters are drawn anew, 100 to 100,000. The ends of an interval rest on a share
    /// of these; with the default they move by about a hundredth of its width from seed to seed.
    /// Fewer are drawn where there are very many clusters.
    pub num_resamples: usize,
}

/// As many numbers are added up at most, in one interval or one swap test: some seconds. With a
/// great many clusters, or very wide metrics, there are fewer resamples, at least
/// [`LEAST_RESAMPLES`]; with so many clusters the distribution they draw is nearly normal.
const MOST_ADDITIONS: usize = 2_000_000_000;
/// Enough for the quantiles of the usual intervals.
const LEAST_RESAMPLES: usize = 399;

impl Default for Options {
    fn default() -> Options {
        // One less than a round number: (B + 1) α is whole for the usual α.
        Options { confidence: 0.95, seed: 0, num_resamples: 3999 }
    }
}

impl Options {
    fn check(&self) -> Result<(), StatsError> {
        check_share("confidence", self.confidence)?;
        if (100..=100_000).contains(&self.num_resamples) {
            return Ok(());
        }
        let expected = "100 to 100000";
        let found = self.num_resamples as f64;
        Err(StatsError::Setting { name: "number of resamples", found, expected })
    }

    /// How many resamples are affordable.
    fn affordable(&self, clusters: &Clusters<'_>) -> usize {
        let additions = clusters.len() * clusters.total.len();
        self.num_resamples.min((MOST_ADDITIONS / additions).max(LEAST_RESAMPLES))
    }

    fn tail(&self) -> f64 {
        (1.0 - self.confidence) / 2.0
    }
}

/// How an interval was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A share of right answers: [`agresti_coull`](super::agresti_coull), for clusters with their
    /// effective number of items.
    AgrestiCoull,
    /// The difference of two shares on the same items, by Bonett and Price.
    PairedShares,
    /// The studentized bootstrap over clusters.
    Bootstrap,
    /// Both models contributed the same in every cluster: the rule of three, by which what was
    /// never seen in G clusters is seen in at most a share `1 − tail^(1/G)` of them (Hanley and
    /// Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983), times the
    /// widest difference between two clusters' metrics, for the size of what was never seen is
    /// not known either.
    RuleOfThree,
}

/// A metric of one model, and where its true value may lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The metric of these items.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// See [`Options::confidence`].
    pub confidence: f64,
    /// How many items.
    pub num_items: usize,
    /// In how many clusters.
    pub num_clusters: usize,
    /// How the ends were computed.
    pub method: Method,
}

/// Candidate minus incumbent on the same items, and where the true difference may lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The candidate's metric.
    pub candidate: f64,
    /// The incumbent's metric.
    pub incumbent: f64,
    /// Candidate minus incumbent.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// See [`Options::confidence`].
    pub confidence: f64,
    /// p-value of "the difference is at most the threshold".
    pub p_greater: f64,
    /// p-value of "the difference is at least the threshold".
    pub p_less: f64,
    /// What the two p-values above compare with.
    pub threshold: f64,
    /// p-value of "the models are the same" against "the candidate's metric is higher", by
    /// swapping their answers: exact for any metric and any number of items.
    pub p_swap_greater: f64,
    /// The same against "the candidate's metric is lower".
    pub p_swap_less: f64,
    /// How many items.
    pub num_items: usize,
    /// In how many clusters.
    pub num_clusters: usize,
    /// How the ends were computed.
    pub method: Method,
}

/// The metric of one model with its interval.
///
/// ```
/// use feilun_eval::stats::{Mean, Options, ScoredItem, interval};
///
/// let right = |item: u64| if item % 5 == 0 { 0.0 } else { 1.0 };
/// let items: Vec<ScoredItem> = (0..50)
///     .map(|item| ScoredItem { cluster: item, sums: vec![right(item), 1.0] })
///     .collect();
/// let accuracy = interval(&items, &Mean, &Options::default())?;
/// assert_eq!(format!("{:.2}", accuracy.estimate), "0.80");
/// assert_eq!(format!("{:.3} to {:.3}", accuracy.low, accuracy.high), "0.668 to 0.889");
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
pub fn interval(
    items: &[ScoredItem],
    aggregate: &dyn Aggregate,
    options: &Options,
) -> Result<Interval, StatsError> {
    options.check()?;
    let pieces = items.iter().map(|item| (item.cluster, [item.sums.as_slice()]));
    let clusters = Clusters::gather(Statistic::One(aggregate), pieces)?;
    let tail = options.tail();
    let is_binary = aggregate.is_mean() && items.iter().all(|item| is_right_or_wrong(&item.sums));
    let (low, high, method) = if is_binary {
        let share = clusters.estimate;
        let sizes: Vec<(f64, f64)> =
            (0..clusters.len()).map(|g| (clusters.row(g)[0], clusters.row(g)[1])).collect();
        let num = effective_num(&sizes, share, share * (1.0 - share));
        let z = Reference::of(clusters.len(), clusters.are_single()).quantile(1.0 - tail);
        let (low, high) = share_interval(share, num, z);
        (low, high, Method::AgrestiCoull)
    } else {
        let bootstrap = studentized(&clusters, options)?;
        (bootstrap.bound(tail), bootstrap.bound(1.0 - tail), Method::Bootstrap)
    };
    check_ends(low, high)?;
    Ok(Interval {
        estimate: clusters.estimate,
        low,
        high,
        confidence: options.confidence,
        num_items: items.len(),
        num_clusters: clusters.len(),
        method,
    })
}

/// The difference of two models on the same items, with its interval and its p-values against
/// `threshold`.
pub fn paired_difference(
    items: &[PairedItem],
    aggregate: &dyn Aggregate,
    threshold: f64,
    options: &Options,
) -> Result<Difference, StatsError> {
    options.check()?;
    if !threshold.is_finite() {
        let expected = "a finite number";
        return Err(StatsError::Setting { name: "threshold", found: threshold, expected });
    }
    let pieces = items
        .iter()
        .map(|item| (item.cluster, [item.candidate.as_slice(), item.incumbent.as_slice()]));
    let clusters = Clusters::gather(Statistic::Difference(aggregate), pieces)?;
    let tail = options.tail();
    let is_binary = aggregate.is_mean()
        && items
            .iter()
            .all(|item| is_right_or_wrong(&item.candidate) && is_right_or_wrong(&item.incumbent));
    let ends = if is_binary {
        let shares = paired_shares(items, &clusters);
        Ends {
            low: shares.bound(tail),
            high: shares.bound(1.0 - tail),
            p_greater: shares.p_greater(threshold),
            p_less: shares.p_less(threshold),
            method: Method::PairedShares,
        }
    } else if items.iter().all(|item| item.candidate == item.incumbent) {
        rule_of_three(&clusters, threshold, tail)?
    } else {
        let bootstrap = studentized(&clusters, options)?;
        Ends {
            low: bootstrap.bound(tail),
            high: bootstrap.bound(1.0 - tail),
            p_greater: bootstrap.p_greater(threshold),
            p_less: bootstrap.p_less(threshold),
            method: Method::Bootstrap,
        }
    };
    check_ends(ends.low, ends.high)?;
    let swapped = swap_test(&clusters, options.seed, options.affordable(&clusters));
    let (candidate, incumbent) = clusters.total.split_at(aggregate.width());
    Ok(Difference {
        candidate: aggregate.value(candidate),
        incumbent: aggregate.value(incumbent),
        estimate: clusters.estimate,
        low: ends.low,
        high: ends.high,
        confidence: options.confidence,
        p_greater: ends.p_greater,
        p_less: ends.p_less,
        threshold,
        p_swap_greater: swapped.p_greater,
        p_swap_less: swapped.p_less,
        num_items: items.len(),
        num_clusters: clusters.len(),
        method: ends.method,
    })
}

/// What the methods for two models have in common.
struct Ends {
    low: f64,
    high: f64,
    p_greater: f64,
    p_less: f64,
    method: Method,
}

/// Numbers near the largest that there are overflow when they are squared.
fn check_ends(low: f64, high: f64) -> Result<(), StatsError> {
    match [low, high].into_iter().find(|end| !end.is_finite()) {
        Some(found) => Err(StatsError::Metric { found }),
        None => Ok(()),
    }
}

/// Whether an item of a mean has the value 0 or 1 and the weight 1.
fn is_right_or_wrong(sums: &[f64]) -> bool {
    matches!(sums, [value, weight] if (*value == 0.0 || *value == 1.0) && *weight == 1.0)
}

fn paired_shares(items: &[PairedItem], clusters: &Clusters<'_>) -> PairedShares {
    let num = items.len() as f64;
    let count = |wanted: f64| {
        items.iter().filter(|item| item.candidate[0] - item.incumbent[0] == wanted).count() as f64
    };
    let (wins, losses) = (count(1.0) / num, count(-1.0) / num);
    let differences: Vec<(f64, f64)> = (0..clusters.len())
        .map(|g| (clusters.row(g)[0] - clusters.row(g)[2], clusters.row(g)[1]))
        .collect();
    let mean = wins - losses;
    let num = effective_num(&differences, mean, wins + losses - mean * mean);
    let reference = Reference::of(clusters.len(), clusters.are_single());
    PairedShares::new(wins, losses, num, reference)
}

fn rule_of_three(clusters: &Clusters<'_>, threshold: f64, tail: f64) -> Result<Ends, StatsError> {
    let Statistic::Difference(aggregate) = clusters.statistic else {
        return Err(StatsError::NoVariation);
    };
    let values =
        (0..clusters.len()).map(|g| aggregate.value(&clusters.row(g)[..aggregate.width()]));
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let widest = high - low;
    if widest <= 0.0 {
        return Err(StatsError::NoVariation);
    }
    let num = clusters.len() as f64;
    let reach = (1.0 - tail.powf(1.0 / num)) * widest;
    // The tail for which the reach ends at the threshold.
    let p_beyond = (1.0 - (threshold.abs() / widest).min(1.0)).powf(num);
    Ok(Ends {
        low: -reach,
        high: reach,
        p_greater: if threshold < 0.0 { p_beyond } else { 1.0 },
        p_less: if threshold > 0.0 { p_beyond } else { 1.0 },
        method: Method::RuleOfThree,
    })
}

fn studentized(clusters: &Clusters<'_>, options: &Options) -> Result<Studentized, StatsError> {
    let num_resamples = options.affordable(clusters);
    let bootstrap = Studentized::new(clusters, options.seed, num_resamples);
    // Without variation there is no t; a metric that vanishes in most resamples is not one.
    if bootstrap.num_draws() * 2 < num_resamples {
        return Err(StatsError::NoVariation);
    }
    Ok(bootstrap)
}
