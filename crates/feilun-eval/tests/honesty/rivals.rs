//! Ways to make an interval that were tried and not taken, so that the choice can be seen.

use feilun_eval::stats::{Aggregate, PairedItem, ScoredItem};

use crate::draws::Draws;

/// A function of sums.
type Metric<'a> = Box<dyn Fn(&[f64]) -> f64 + 'a>;

/// Sums by cluster with a function of their total.
pub(crate) struct Sums<'a> {
    rows: Vec<Vec<f64>>,
    metric: Metric<'a>,
}

impl<'a> Sums<'a> {
    pub(crate) fn of_one(items: &[ScoredItem], aggregate: &'a dyn Aggregate) -> Sums<'a> {
        let rows = gather(items.iter().map(|item| (item.cluster, item.sums.clone())));
        Sums { rows, metric: Box::new(|sums| aggregate.value(sums)) }
    }

    pub(crate) fn of_two(items: &[PairedItem], aggregate: &'a dyn Aggregate) -> Sums<'a> {
        let both = |item: &PairedItem| [item.candidate.clone(), item.incumbent.clone()].concat();
        let rows = gather(items.iter().map(|item| (item.cluster, both(item))));
        let width = aggregate.width();
        let metric =
            move |sums: &[f64]| aggregate.value(&sums[..width]) - aggregate.value(&sums[width..]);
        Sums { rows, metric: Box::new(metric) }
    }

    fn total<'b>(&'b self, rows: impl Iterator<Item = &'b Vec<f64>>) -> f64 {
        let mut sums = vec![0.0; self.rows[0].len()];
        for row in rows {
            sums.iter_mut().zip(row).for_each(|(sum, part)| *sum += part);
        }
        (self.metric)(&sums)
    }

    fn left_out(&self) -> Vec<f64> {
        let num = self.rows.len();
        (0..num)
            .map(|left| self.total((0..num).filter(|&g| g != left).map(|g| &self.rows[g])))
            .collect()
    }

    /// Student's t with the jackknife's standard error.
    pub(crate) fn jackknife_t(&self) -> (f64, f64) {
        let estimate = self.total(self.rows.iter());
        let num = self.rows.len() as f64;
        let squares: f64 = self.left_out().iter().map(|value| (value - estimate).powi(2)).sum();
        let reach = t_975(num - 1.0) * ((num - 1.0) / num * squares).sqrt();
        (estimate - reach, estimate + reach)
    }

    /// The bias-corrected and accelerated bootstrap (Efron 1987), and the percentile bootstrap.
    pub(crate) fn bca_and_percentile(&self, draws: &mut Draws) -> [(f64, f64); 2] {
        const NUM: usize = 1999;
        let num = self.rows.len();
        let estimate = self.total(self.rows.iter());
        let mut values: Vec<f64> = (0..NUM)
            .map(|_| {
                let drawn: Vec<usize> = (0..num).map(|_| draws.index(num)).collect();
                self.total(drawn.iter().map(|&g| &self.rows[g]))
            })
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let at = |p: f64| {
            let index = (p * (values.len() + 1) as f64 - 1.0).round();
            values[index.clamp(0.0, (values.len() - 1) as f64) as usize]
        };
        let percentile = (at(0.025), at(0.975));
        let below = values.iter().filter(|&&value| value < estimate).count() as f64;
        let equal = values.iter().filter(|&&value| value == estimate).count() as f64;
        let share = ((below + equal / 2.0) / values.len() as f64).clamp(0.001, 0.999);
        let left_out = self.left_out();
        let mean = left_out.iter().sum::<f64>() / num as f64;
        let (mut squares, mut cubes) = (0.0, 0.0);
        for value in left_out {
            squares += (mean - value).powi(2);
            cubes += (mean - value).powi(3);
        }
        let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
        let bias = normal_quantile(share);
        let moved = |z: f64| normal_cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z)));
        let z = 1.959963984540054;
        [(at(moved(-z)), at(moved(z))), percentile]
    }
}

fn gather(items: impl Iterator<Item = (u64, Vec<f64>)>) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for (cluster, sums) in items {
        let cluster = cluster as usize;
        if rows.len() <= cluster {
            rows.resize(cluster + 1, vec![0.0; sums.len()]);
        }
        rows[cluster].iter_mut().zip(sums).for_each(|(sum, part)| *sum += part);
    }
    rows
}

fn normal_cdf(z: f64) -> f64 {
    statrs::function::erf::erfc(-z / std::f64::consts::SQRT_2) / 2.0
}

fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(2.0 * p)
}

fn t_975(freedom: f64) -> f64 {
    use statrs::distribution::{ContinuousCDF as _, StudentsT};
    StudentsT::new(0.0, 1.0, freedom).unwrap().inverse_cdf(0.975)
}
