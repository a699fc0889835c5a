//! What is measured: names, and how items become one number.

use serde::{Deserialize, Serialize};

use super::Header;
use super::error::ItemProblem;
use super::item::{Item, Task};
use crate::score::Scorer;
use crate::stats::{Aggregate, Mean};

/// Names of metrics.
pub mod names {
    /// The mean of what items score, each between 0 and 1.
    pub const SCORE: &str = "score";
    /// The share of questions whose right choice is the likeliest; lm-eval's `acc`.
    pub const ACC: &str = "acc";
    /// The same with log-likelihoods divided by the choice's characters; lm-eval's `acc_norm`.
    pub const ACC_NORM: &str = "acc_norm";
    /// The same with log-likelihoods divided by the choice's bytes; lm-eval's `acc_bytes`.
    pub const ACC_BYTES: &str = "acc_bytes";
    /// Bits for each byte of the texts, all together; lm-eval's `bits_per_byte`.
    pub const BITS_PER_BYTE: &str = "bits_per_byte";
    /// The share of pairs whose better answer is the likelier.
    pub const PREFERENCE: &str = "preference";
    /// The same with log-likelihoods divided by the number of tokens.
    pub const PREFERENCE_NORM: &str = "preference_norm";
    /// The share of a judge's verdicts that are people's.
    pub const AGREEMENT: &str = "agreement";
    /// The share of pairs on which a judge says the same in both orders.
    pub const CONSISTENCY: &str = "consistency";
    /// The share of a judge's replies that hold no verdict.
    pub const UNPARSABLE: &str = "unparsable";
    /// Corpus chrF, 0 to 100.
    pub const CHRF: &str = "chrf";
    /// Corpus BLEU, 0 to 100.
    pub const BLEU: &str = "bleu";
}

/// Something that is measured over items.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Metric {
    /// See [`names`].
    pub name: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// What makes the metric of sums over items; without it, their mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Scorer>,
}

impl Metric {
    fn mean(name: &str) -> Metric {
        let lower = [names::BITS_PER_BYTE, names::UNPARSABLE];
        Metric { name: name.into(), higher_is_better: !lower.contains(&name), scorer: None }
    }

    /// Makes one number of sums over items.
    pub fn aggregate(&self) -> Box<dyn Aggregate> {
        match &self.scorer {
            Some(scorer) => scorer.aggregate(),
            None => Box::new(Mean),
        }
    }
}

/// What answers of a scorer are counted as.
pub(crate) fn of_scorer(scorer: &Scorer) -> &'static str {
    match scorer {
        Scorer::Chrf(_) => names::CHRF,
        Scorer::Bleu(_) => names::BLEU,
        _ => names::SCORE,
    }
}

/// The metrics of a task, the one that counts first.
fn of_task(header: &Header, task: &Task) -> Vec<Metric> {
    let of_names = |names: &[&str]| names.iter().map(|name| Metric::mean(name)).collect();
    match task {
        Task::Generate { scorer, .. } => match scorer.as_ref().or(header.scorer.as_ref()) {
            Some(scorer) if of_scorer(scorer) != names::SCORE => {
                vec![Metric { scorer: Some(scorer.clone()), ..Metric::mean(of_scorer(scorer)) }]
            }
            _ => of_names(&[names::SCORE]),
        },
        Task::MultipleChoice { .. } => of_names(&[names::ACC, names::ACC_NORM, names::ACC_BYTES]),
        Task::BitsPerByte { .. } => of_names(&[names::BITS_PER_BYTE]),
        Task::Preference { .. } => of_names(&[names::PREFERENCE, names::PREFERENCE_NORM]),
        Task::Judge { .. } => of_names(&[names::AGREEMENT, names::CONSISTENCY, names::UNPARSABLE]),
    }
}

/// The metrics of a suite, the one that counts first. Where the tasks have different metrics
/// that go from 0 to 1, that is the score: the mean over all of them.
pub(super) fn of_suite(header: &Header, items: &[Item]) -> Result<Vec<Metric>, ItemProblem> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut firsts: Vec<String> = Vec::new();
    for item in items {
        for (index, metric) in of_task(header, &item.task).into_iter().enumerate() {
            if index == 0 && !firsts.contains(&metric.name) {
                firsts.push(metric.name.clone());
            }
            match metrics.iter().find(|known| known.name == metric.name) {
                Some(known) if *known == metric => {}
                // Sums of different scorers cannot be added up.
                Some(_) => return Err(ItemProblem::MixedScorers { metric: metric.name }),
                None => metrics.push(metric),
            }
        }
    }
    if firsts.len() > 1 && !metrics.iter().any(|metric| metric.name == names::SCORE) {
        metrics.push(Metric::mean(names::SCORE));
    }
    let is_mixed = firsts.len() > 1;
    let wanted =
        header.metric.as_deref().unwrap_or(if is_mixed { names::SCORE } else { &firsts[0] });
    let Some(position) = metrics.iter().position(|metric| metric.name == wanted) else {
        let known: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        let expected = known.join(", ");
        return Err(ItemProblem::UnknownMetric { found: wanted.into(), expected });
    };
    metrics[..=position].rotate_right(1);
    Ok(metrics)
}
