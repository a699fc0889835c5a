//! One model's metrics on one page.

use maud::{PreEscaped, html};

use crate::gate::Unit;
use crate::stats::Interval;

use super::numbers::{count, percent};
use super::plot::Picture;
use super::{Language, ReportError, markdown, page};

/// One metric of a report: the whole suite, or one skill of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    /// What people call it.
    pub name: String,
    /// How it is shown.
    pub unit: Unit,
    /// The metric with its interval.
    pub interval: Interval,
    /// What guessing would get, where that is known.
    pub chance: Option<f64>,
}

/// A model's metrics, to be shown.
#[derive(Clone, Copy, Debug)]
pub struct ReportCard<'a> {
    /// What was evaluated.
    pub model: &'a str,
    /// On what.
    pub suite: &'a str,
    /// The metrics, in the order in which they are shown.
    pub rows: &'a [ReportRow],
    /// What readers should know besides: items that could not be scored, say.
    pub notes: &'a [String],
    /// The language of the card.
    pub language: Language,
}

impl ReportCard<'_> {
    /// As Markdown.
    pub fn markdown(&self) -> Result<String, ReportError> {
        let columns = self.columns();
        let mut text = format!("# {}\n\n", markdown::escape(&self.title()));
        let rule = "---:|".repeat(columns.len() - 1);
        text.push_str(&format!("| {} |\n|---|{rule}\n", columns.join(" | ")));
        for row in self.rows {
            let [name, cells @ ..] = cells(row)?;
            text.push_str(&format!("| {} | {} |\n", markdown::escape(&name), cells.join(" | ")));
        }
        text.push_str(&format!("\n{}\n", self.reading()));
        for note in self.notes {
            text.push_str(&format!("\n{}\n", markdown::escape(note)));
        }
        Ok(text)
    }

    /// As a page: one file without scripts or anything from elsewhere.
    pub fn html(&self) -> Result<String, ReportError> {
        let title = self.title();
        let rows = self.rows.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
        let pictures =
            self.rows.iter().map(|row| self.picture(row)).collect::<Result<Vec<_>, _>>()?;
        let body = html! {
            h1 { (title) }
            @for (row, picture) in self.rows.iter().zip(pictures) {
                figure {
                    figcaption { strong { (row.name) } " " (row.unit.value(row.interval.estimate)) }
                    div role="img" aria-label=(format!("{}: {}", row.name, ends(row))) {
                        (PreEscaped(picture))
                    }
                }
            }
            table {
                thead { tr { @for column in self.columns() { th scope="col" { (column) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
            p class="small" { (self.reading()) }
            @for note in self.notes { p class="small" { (note) } }
        };
        Ok(page::page(self.language, &title, &body))
    }

    fn picture(&self, row: &ReportRow) -> Result<String, ReportError> {
        let factor = row.unit.factor();
        let word = self.language.pick("guessing", "随机猜测");
        let marks: Vec<(f64, &str)> =
            row.chance.iter().map(|&chance| (factor * chance, word)).collect();
        let picture = Picture {
            name: &row.name,
            estimate: factor * row.interval.estimate,
            low: factor * row.interval.low,
            high: factor * row.interval.high,
            marks: &marks,
            scale: matches!(row.unit, Unit::Share | Unit::Points).then_some((0.0, 100.0)),
        };
        picture.svg()
    }

    fn title(&self) -> String {
        let Self { model, suite, .. } = self;
        self.language.pick(format!("{model} on {suite}"), format!("{model} 在 {suite} 上的表现"))
    }

    fn columns(&self) -> [&'static str; 5] {
        let pick = |english, chinese| self.language.pick(english, chinese);
        [
            pick("metric", "指标"),
            pick("value", "数值"),
            pick("interval", "区间"),
            pick("guessing", "随机猜测"),
            pick("items", "题数"),
        ]
    }

    fn reading(&self) -> String {
        let confidence = self.rows.first().map_or(0.95, |row| row.interval.confidence);
        let confidence = percent(confidence);
        self.language.pick(
            format!(
                "The dot is what these items gave; the bar is where the model's true value lies, \
                 in {confidence} of such reports."
            ),
            format!("圆点是这些题目上的结果；横线是模型真实水平的范围，{confidence} 的报告中它包含真实值。"),
        )
    }
}

/// A row of the table; the name is not escaped.
fn cells(row: &ReportRow) -> Result<[String; 5], ReportError> {
    let Interval { estimate, low, high, num_items, .. } = row.interval;
    if let Some(found) = [estimate, low, high].into_iter().find(|number| !number.is_finite()) {
        return Err(ReportError::NotFinite { name: row.name.clone(), found });
    }
    Ok([
        row.name.clone(),
        row.unit.value(estimate),
        ends(row),
        row.chance.map(|chance| row.unit.value(chance)).unwrap_or_default(),
        count(num_items as u64),
    ])
}

fn ends(row: &ReportRow) -> String {
    format!("{} … {}", row.unit.value(row.interval.low), row.unit.value(row.interval.high))
}
