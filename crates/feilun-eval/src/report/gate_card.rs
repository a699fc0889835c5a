//! The gate's card.

use maud::{Markup, PreEscaped, html};

use crate::gate::{Decision, Finding, Outcome, Verdict};

use super::numbers::{count, p_value};
use super::plot::Picture;
use super::{Language, ReportError, gate_words, markdown, page};

/// A gate's verdict, to be shown.
#[derive(Clone, Copy, Debug)]
pub struct GateCard<'a> {
    /// The verdict.
    pub verdict: &'a Verdict,
    /// What the candidate is called.
    pub candidate: &'a str,
    /// What the incumbent is called.
    pub incumbent: &'a str,
    /// The language of the card.
    pub language: Language,
}

impl GateCard<'_> {
    /// What was decided and why, in a sentence or two.
    pub fn sentence(&self) -> String {
        gate_words::verdict(self.verdict, self.language, &str::to_owned)
    }

    /// As Markdown.
    pub fn markdown(&self) -> Result<String, ReportError> {
        let Words { columns, candidate, incumbent, target, guardrails, reading } = self.words();
        let mut text = format!("# {}\n\n", gate_words::title(self.verdict.decision, self.language));
        let sentence = gate_words::verdict(self.verdict, self.language, &markdown::escape);
        text.push_str(&format!("**{sentence}**\n\n"));
        text.push_str(&format!("- {candidate}: {}\n", markdown::escape(self.candidate)));
        text.push_str(&format!("- {incumbent}: {}\n\n", markdown::escape(self.incumbent)));
        let header =
            format!("| {} |\n|---|{}\n", columns.join(" | "), "---:|".repeat(columns.len() - 1));
        let mut section = |title: &str, findings: &[Finding]| -> Result<(), ReportError> {
            text.push_str(&format!("## {title}\n\n{header}"));
            for finding in findings {
                let [name, cells @ ..] = self.cells(finding)?;
                let name = markdown::escape(&name);
                text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
            }
            for finding in findings {
                let name = markdown::escape(&finding.name);
                let sentence = gate_words::finding_sentence(finding, self.language);
                text.push_str(&format!("\n{name}: {sentence}\n\n"));
                let drawn = with_picture(finding, self.language, |picture| picture.text());
                text.push_str(&format!("```text\n{drawn}\n```\n"));
            }
            text.push('\n');
            Ok(())
        };
        section(target, std::slice::from_ref(&self.verdict.target))?;
        if !self.verdict.guardrails.is_empty() {
            section(guardrails, &self.verdict.guardrails)?;
        }
        text.push_str(&format!("## {reading}\n\n"));
        text.push_str(&gate_words::how_to_read(self.verdict, self.language).join("\n\n"));
        text.push('\n');
        Ok(text)
    }

    /// As a page: one file without scripts or anything from elsewhere.
    pub fn html(&self) -> Result<String, ReportError> {
        let Words { columns, candidate, incumbent, target, guardrails, reading } = self.words();
        let title = gate_words::title(self.verdict.decision, self.language);
        let class = match self.verdict.decision {
            Decision::Promote => "verdict promote",
            Decision::Reject => "verdict reject",
            Decision::NotEnough { .. } => "verdict open",
        };
        // maud escapes; nothing else may.
        let sentence = self.sentence();
        let findings = || std::iter::once(&self.verdict.target).chain(&self.verdict.guardrails);
        let rows = findings().map(|finding| self.cells(finding)).collect::<Result<Vec<_>, _>>()?;
        let body = html! {
            h1 { (title) }
            p class=(class) { (sentence) }
            p {
                (candidate) ": " code { (self.candidate) } br;
                (incumbent) ": " code { (self.incumbent) }
            }
            h2 { (target) }
            (self.figure(&self.verdict.target)?)
            @if !self.verdict.guardrails.is_empty() {
                h2 { (guardrails) }
                @for finding in &self.verdict.guardrails { (self.figure(finding)?) }
            }
            h2 { (self.language.pick("Numbers", "数据")) }
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
            h2 { (reading) }
            @for sentence in gate_words::how_to_read(self.verdict, self.language) {
                p class="small" { (sentence) }
            }
        };
        Ok(page::page(self.language, title, &body))
    }

    fn figure(&self, finding: &Finding) -> Result<Markup, ReportError> {
        let svg = with_picture(finding, self.language, |picture| picture.svg())?;
        let interval = interval(finding);
        let alternative = format!("{}: {}, {interval}", finding.name, gain(finding));
        Ok(html! {
            figure class=(class(finding.outcome)) {
                figcaption {
                    strong { (finding.name) } " "
                    (gain(finding)) " (" (interval) ")" br;
                    (gate_words::finding_sentence(finding, self.language))
                }
                div role="img" aria-label=(alternative) { (PreEscaped(svg)) }
            }
        })
    }

    fn words(&self) -> Words {
        let pick = |english, chinese| self.language.pick(english, chinese);
        Words {
            columns: [
                pick("metric", "指标"),
                pick("candidate", "候选"),
                pick("incumbent", "现任"),
                pick("better by", "提升"),
                pick("interval", "区间"),
                pick("mark", "标记"),
                pick("items", "题数"),
                pick("p-value", "p 值"),
                pick("result", "结论"),
            ],
            candidate: pick("Candidate", "候选模型"),
            incumbent: pick("Incumbent", "现任模型"),
            target: pick("What must get better", "必须变好的指标"),
            guardrails: pick("What must not get worse", "不能变差的指标（护栏）"),
            reading: pick("How to read this", "怎样看这张卡"),
        }
    }

    /// A row of the table; the name is not escaped.
    fn cells(&self, finding: &Finding) -> Result<[String; 9], ReportError> {
        let numbers =
            [finding.candidate, finding.incumbent, finding.gain, finding.low, finding.high];
        if let Some(&found) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(ReportError::NotFinite { name: finding.name.clone(), found });
        }
        let unit = finding.unit;
        Ok([
            finding.name.clone(),
            unit.value(finding.candidate),
            unit.value(finding.incumbent),
            gain(finding),
            interval(finding),
            unit.difference(finding.mark),
            count(finding.num_items as u64),
            p_value(finding.p_value),
            gate_words::outcome(finding.outcome, self.language).to_owned(),
        ])
    }
}

/// Draws a finding in the numbers that are shown.
fn with_picture<T>(
    finding: &Finding,
    language: Language,
    draw: impl FnOnce(&Picture<'_>) -> T,
) -> T {
    let factor = finding.unit.factor();
    let [zero, mark] = gate_words::marks(finding, language);
    draw(&Picture {
        name: &finding.name,
        estimate: factor * finding.gain,
        low: factor * finding.low,
        high: factor * finding.high,
        marks: &[(0.0, zero), (factor * finding.mark, mark)],
        scale: None,
    })
}

/// What stands on both forms of the card.
struct Words {
    columns: [&'static str; 9],
    candidate: &'static str,
    incumbent: &'static str,
    target: &'static str,
    guardrails: &'static str,
    reading: &'static str,
}

fn gain(finding: &Finding) -> String {
    finding.unit.difference(finding.gain)
}

fn interval(finding: &Finding) -> String {
    let unit = finding.unit;
    format!("{} … {}", unit.difference(finding.low), unit.difference(finding.high))
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Better => "better",
        Outcome::Worse => "worse",
        Outcome::TooSmall => "too-small",
        Outcome::Held => "held",
        Outcome::Broken => "broken",
        Outcome::Open { .. } => "open",
    }
}
