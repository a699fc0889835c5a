//! The report card of a stored evaluation.

use super::{Evaluation, Figure};
use crate::gate::Unit;
use crate::report::{Language, ReportCard, ReportError, ReportRow};
use crate::run::{Answer, ItemResult};
use crate::stats::Options;
use crate::suite::{Metric, names};

/// A report card in both of its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// For a terminal, a merge request, a chat.
    pub markdown: String,
    /// One file without scripts, with a picture per metric and skill.
    pub html: String,
}

/// How a metric is shown.
pub fn unit(metric: &Metric) -> Unit {
    match metric.name.as_str() {
        names::CHRF | names::BLEU => Unit::Points,
        names::BITS_PER_BYTE => Unit::Plain,
        _ => Unit::Share,
    }
}

impl Evaluation {
    /// All metrics, then the one that counts by skill.
    ///
    /// # Errors
    /// When a picture cannot be drawn.
    pub fn card(&self, options: &Options, language: Language) -> Result<Card, ReportError> {
        let mut notes = Vec::new();
        let mut rows = Vec::new();
        for figure in self.figures(options).iter().chain(&self.skills(options)) {
            match self.row(figure) {
                Ok(row) => rows.push(row),
                Err(note) => notes.push(note),
            }
        }
        let num_problems = self.problems().count();
        if num_problems > 0 {
            notes.push(format!("{num_problems} items have no result, and are in no figure."));
        }
        let manifest = &self.manifest;
        let model = match &manifest.adapter {
            Some(adapter) => format!("{} + {adapter}", manifest.model),
            None => manifest.model.clone(),
        };
        let card = ReportCard {
            model: &model,
            suite: &manifest.suite,
            rows: &rows,
            notes: &notes,
            language,
        };
        Ok(Card { markdown: card.markdown()?, html: card.html()? })
    }

    /// A line of the card; or in words why there is none.
    fn row(&self, figure: &Figure) -> Result<ReportRow, String> {
        let metric = self.manifest.metrics.iter().find(|metric| metric.name == figure.metric);
        let name = figure.skill.as_ref().unwrap_or(&figure.metric);
        let (Some(metric), Some(interval)) = (metric, &figure.interval) else {
            let value = figure.value.map_or("no value".to_owned(), |value| format!("{value:.4}"));
            let reason = figure.no_interval.as_deref().unwrap_or("unknown");
            return Err(format!("{name}: {value}, without an interval: {reason}."));
        };
        let chance = self.chance(metric, figure.skill.as_deref());
        Ok(ReportRow { name: name.clone(), unit: unit(metric), interval: interval.clone(), chance })
    }

    /// What guessing gets, where items have choices.
    fn chance(&self, metric: &Metric, skill: Option<&str>) -> Option<f64> {
        let mut sum = 0.0;
        let mut num = 0;
        let counts = |result: &&ItemResult| {
            result.metrics.contains_key(&metric.name)
                && skill.is_none_or(|skill| result.skill.as_deref() == Some(skill))
        };
        for result in self.results.iter().filter(counts) {
            sum += match &result.answer {
                Some(Answer::Choices { logprobs, .. }) => 1.0 / logprobs.len() as f64,
                Some(Answer::Pair { .. }) => 0.5,
                _ => return None,
            };
            num += 1;
        }
        (num > 0).then(|| sum / f64::from(num))
    }
}
