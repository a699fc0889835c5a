//! Items added up by cluster, and how a metric changes when one cluster is left out.

use std::collections::BTreeMap;

use super::aggregate::Aggregate;
use super::error::StatsError;

/// What is computed of sums: the metric of one model, or the difference of two.
#[derive(Clone, Copy)]
pub(super) enum Statistic<'a> {
    One(&'a dyn Aggregate),
    /// The sums of the candidate, then those of the incumbent.
    Difference(&'a dyn Aggregate),
}

impl Statistic<'_> {
    pub(super) fn width(self) -> usize {
        match self {
            Statistic::One(aggregate) => aggregate.width(),
            Statistic::Difference(aggregate) => 2 * aggregate.width(),
        }
    }

    pub(super) fn value(self, sums: &[f64]) -> f64 {
        match self {
            Statistic::One(aggregate) => aggregate.value(sums),
            Statistic::Difference(aggregate) => {
                let (candidate, incumbent) = sums.split_at(aggregate.width());
                aggregate.value(candidate) - aggregate.value(incumbent)
            }
        }
    }

    /// The size of the numbers whose rounding errors are no variation.
    fn scale(self, sums: &[f64]) -> f64 {
        match self {
            Statistic::One(aggregate) => aggregate.value(sums).abs(),
            Statistic::Difference(aggregate) => {
                let (candidate, incumbent) = sums.split_at(aggregate.width());
                aggregate.value(candidate).abs() + aggregate.value(incumbent).abs()
            }
        }
    }
}

/// The sums of each cluster, in the order of their ids, whatever order the items had.
pub(super) struct Clusters<'a> {
    pub(super) statistic: Statistic<'a>,
    pub(super) num_items: usize,
    /// One row per cluster.
    rows: Vec<f64>,
    pub(super) total: Vec<f64>,
    pub(super) estimate: f64,
    /// Changes smaller than this are rounding errors.
    rounding: f64,
}

impl<'a> Clusters<'a> {
    /// Adds up the numbers of items: those of each item in one or two pieces.
    pub(super) fn gather<'b, const N: usize>(
        statistic: Statistic<'a>,
        items: impl Iterator<Item = (u64, [&'b [f64]; N])>,
    ) -> Result<Clusters<'a>, StatsError> {
        let width = statistic.width();
        let mut by_id: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        let mut num_items = 0;
        for (item, (cluster, pieces)) in items.enumerate() {
            num_items += 1;
            for piece in pieces {
                if piece.len() * N != width {
                    let (found, expected) = (piece.len(), width / N);
                    return Err(StatsError::Width { item, found, expected });
                }
                if let Some(&found) = piece.iter().find(|number| !number.is_finite()) {
                    return Err(StatsError::NotFinite { item, found });
                }
            }
            let row = by_id.entry(cluster).or_insert_with(|| vec![0.0; width]);
            row.iter_mut().zip(pieces.into_iter().flatten()).for_each(|(sum, &part)| *sum += part);
        }
        if by_id.len() < 2 {
            return Err(StatsError::TooFewClusters { found: by_id.len(), expected: 2 });
        }
        let rows: Vec<f64> = by_id.into_values().flatten().collect();
        let mut total = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            add(&mut total, row, 1.0);
        }
        let estimate = statistic.value(&total);
        if !estimate.is_finite() {
            return Err(StatsError::Metric { found: estimate });
        }
        // A sum of n numbers is off by a few units in its last place; this is far above that,
        // and far below what anybody would call a difference.
        let rounding = 1e-12 * statistic.scale(&total);
        Ok(Clusters { statistic, num_items, rows, total, estimate, rounding })
    }

    /// How many clusters there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len() / self.total.len()
    }

    pub(super) fn row(&self, cluster: usize) -> &[f64] {
        let width = self.total.len();
        &self.rows[cluster * width..(cluster + 1) * width]
    }

    /// Whether each item is a cluster of its own.
    pub(super) fn are_single(&self) -> bool {
        self.len() == self.num_items
    }

    /// The jackknife's standard error of the statistic of `total`, in which each cluster is as
    /// often as `copies` says:
    ///
    /// `SE² = (G−1)/G · Σ (θ without g − θ)²`
    ///
    /// The sum is over G copies of clusters. With single items and a mean it is s²/n; with
    /// clusters it is the cluster-robust variance "CV3" (MacKinnon, Nielsen and Webb, "Fast and
    /// reliable jackknife and bootstrap methods for cluster-robust inference", Journal of Applied
    /// Econometrics 38, 2023), the one with the least bias when clusters are few.
    ///
    /// NaN where the statistic has no value without some cluster.
    pub(super) fn standard_error(&self, total: &[f64], copies: &[u32], without: &mut [f64]) -> f64 {
        let estimate = self.statistic.value(total);
        let num = self.len() as f64;
        let mut sum = 0.0;
        for (cluster, &copies) in copies.iter().enumerate() {
            if copies == 0 {
                continue;
            }
            without.copy_from_slice(total);
            add(without, self.row(cluster), -1.0);
            let change = self.statistic.value(without) - estimate;
            // NaN is not smaller, and goes through.
            if change.abs() <= self.rounding {
                continue;
            }
            sum += f64::from(copies) * change * change;
        }
        ((num - 1.0) / num * sum).sqrt()
    }
}

/// `sums += sign * row`.
pub(super) fn add(sums: &mut [f64], row: &[f64], sign: f64) {
    sums.iter_mut().zip(row).for_each(|(sum, &part)| *sum += sign * part);
}
