//! Metrics of stored evaluations, with their intervals, over all items and by skill.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::Evaluation;
use crate::run::ItemResult;
use crate::stats::{Interval, Options, PairedItem, ScoredItem, interval};
use crate::suite::Metric;

/// A metric over some items.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Figure {
    /// What is measured.
    pub metric: String,
    /// Over the items of this skill; over all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// Items that contribute.
    pub num_items: usize,
    /// The metric; nothing without items.
    pub value: Option<f64>,
    /// With its interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<String>,
}

impl Evaluation {
    /// Each metric over all items, the one that counts first.
    pub fn figures(&self, options: &Options) -> Vec<Figure> {
        let all: Vec<&ItemResult> = self.results.iter().collect();
        let metrics = self.manifest.metrics.iter();
        metrics.map(|metric| figure(metric, None, &all, options)).collect()
    }

    /// The metric that counts over the items of each skill, by name; where there are skills.
    pub fn skills(&self, options: &Options) -> Vec<Figure> {
        let mut skills: BTreeMap<&str, Vec<&ItemResult>> = BTreeMap::new();
        for result in &self.results {
            if let Some(skill) = &result.skill {
                skills.entry(skill).or_default().push(result);
            }
        }
        let Some(metric) = self.manifest.metrics.first() else { return Vec::new() };
        let of = |(skill, results): (&str, Vec<&ItemResult>)| {
            figure(metric, Some(skill), &results, options)
        };
        skills.into_iter().map(of).collect()
    }
}

fn figure(
    metric: &Metric,
    skill: Option<&str>,
    results: &[&ItemResult],
    options: &Options,
) -> Figure {
    let contribution = |result: &&ItemResult| {
        let sums = result.metrics.get(&metric.name)?.clone();
        Some(ScoredItem { cluster: cluster(result), sums })
    };
    let items: Vec<ScoredItem> = results.iter().filter_map(contribution).collect();
    let aggregate = metric.aggregate();
    let found = interval(&items, aggregate.as_ref(), options);
    let value = value(&items, aggregate.as_ref());
    let (interval, no_interval) = match found {
        Ok(interval) => (Some(interval), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Figure {
        metric: metric.name.clone(),
        skill: skill.map(str::to_owned),
        num_items: items.len(),
        value,
        interval,
        no_interval,
    }
}

fn value(items: &[ScoredItem], aggregate: &dyn crate::stats::Aggregate) -> Option<f64> {
    let width = aggregate.width();
    let mut sums = vec![0.0; width];
    for item in items.iter().filter(|item| item.sums.len() == width) {
        sums.iter_mut().zip(&item.sums).for_each(|(sum, value)| *sum += value);
    }
    Some(aggregate.value(&sums)).filter(|value| value.is_finite())
}

/// Items that belong together have the same number; an item by itself one of its own.
fn cluster(result: &ItemResult) -> u64 {
    let mut hasher = blake3::Hasher::new();
    match &result.cluster {
        Some(cluster) => hasher.update(b"cluster ").update(cluster.as_bytes()),
        None => hasher.update(b"item ").update(result.id.as_bytes()),
    };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// What two models did with the same items.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// Items that both answered.
    pub items: Vec<PairedItem>,
    /// Items that only the incumbent answered: the candidate could not be asked, or its answer
    /// not be scored.
    pub only_incumbent: usize,
    /// Items that only the candidate answered.
    pub only_candidate: usize,
}

impl Pairs {
    /// What two evaluations of one suite contribute to a metric.
    pub fn of(candidate: &Evaluation, incumbent: &Evaluation, metric: &str) -> Pairs {
        let known = |evaluation: &Evaluation| -> HashMap<String, (u64, Vec<f64>)> {
            let results = evaluation.results.iter();
            let sums = |result: &ItemResult| {
                let sums = result.metrics.get(metric)?.clone();
                Some((result.id.clone(), (cluster(result), sums)))
            };
            results.filter_map(sums).collect()
        };
        let mut others = known(incumbent);
        let mut pairs = Pairs { items: Vec::new(), only_incumbent: 0, only_candidate: 0 };
        // In the order of the candidate's file, which is the suite's: statistics with seeds
        // depend on it.
        for result in &candidate.results {
            let Some(sums) = result.metrics.get(metric) else { continue };
            match others.remove(&result.id) {
                Some((cluster, incumbent)) => {
                    pairs.items.push(PairedItem { cluster, candidate: sums.clone(), incumbent })
                }
                None => pairs.only_candidate += 1,
            }
        }
        pairs.only_incumbent = others.len();
        pairs
    }
}
