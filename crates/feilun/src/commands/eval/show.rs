//! Stored evaluations, as people and as machines want them.

use std::time::{Duration, UNIX_EPOCH};

use feilun_eval::report::Language;
use feilun_eval::results::{Evaluation, Figure, Manifest};
use feilun_eval::run::{Answer, End, ItemResult};
use feilun_eval::stats::Options;
use serde_json::{Value, json};

use super::{against, evaluations};
use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;

/// Problems that are told one by one.
const PROBLEMS_TOLD: usize = 5;
/// Characters of an answer on a line of a table.
const EXCERPT_CHARS: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The evaluation: the beginning of its id
    id: String,
    /// Show an item with what was asked and answered
    #[arg(long, value_name = "ITEM", conflicts_with = "items")]
    item: Option<String>,
    /// List what came of all items
    #[arg(long)]
    items: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn list(session: &Session, as_json: bool) -> Outcome {
    let all = evaluations(session).list()?;
    let mut entries = Vec::new();
    for manifest in all {
        match manifest {
            Ok(manifest) => entries.push(manifest),
            Err(error) => output::talk(format!("{} {error}", output::yellow("warning:"))),
        }
    }
    if as_json {
        return output::json(&entries);
    }
    if entries.is_empty() {
        output::talk("there are no evaluations; begin with: feilun eval --suite FILE");
        return Ok(());
    }
    let row = |manifest: &Manifest| -> Outcome<[String; 5]> {
        let figure = match manifest.finished {
            Some(_) => {
                let found = evaluations(session).find(&manifest.id)?;
                let figures = found.figures(&Options::default());
                figures.first().map_or_else(String::new, figure_text)
            }
            None => "not finished".to_owned(),
        };
        let model = match &manifest.adapter {
            Some(adapter) => format!("{} + {adapter}", manifest.model),
            None => manifest.model.clone(),
        };
        Ok([manifest.id.clone(), date(manifest.begun), manifest.suite.clone(), model, figure])
    };
    let head = ["id", "begun", "suite", "model", "result"].map(str::to_owned);
    let rows = std::iter::once(Ok(head)).chain(entries.iter().map(row));
    print_table(&rows.collect::<Outcome<Vec<_>>>()?)
}

pub(super) fn show(session: &Session, args: &ShowArgs) -> Outcome {
    let evaluation = evaluations(session).find(&args.id).hint("feilun eval list")?;
    if let Some(id) = &args.item {
        return show_item(session, &evaluation, id, args.json);
    }
    if args.json {
        let mut value = evaluation_json(session, &evaluation, evaluation.manifest.identity.seed);
        if args.items {
            value["items"] = serde_json::to_value(&evaluation.results)?;
        }
        return output::json(&value);
    }
    if args.items {
        let main = evaluation.manifest.metrics.first().map_or("", |metric| metric.name.as_str());
        let rows: Vec<[String; 3]> =
            evaluation.results.iter().map(|result| item_row(result, main)).collect();
        return print_table(&rows);
    }
    describe(&evaluation.manifest, evaluation.results.len())?;
    print_figures(&evaluation, evaluation.manifest.identity.seed)?;
    tell_problems(&evaluation);
    Ok(())
}

fn show_item(session: &Session, evaluation: &Evaluation, id: &str, as_json: bool) -> Outcome {
    let Some(result) = evaluation.results.iter().find(|result| result.id == id) else {
        return Err(Failure::usage(format!("the evaluation has no result of an item `{id}`"))
            .hint(format!("feilun eval show {} --items", evaluation.manifest.id)));
    };
    let suite = evaluations(session).suite(&evaluation.manifest)?;
    let item = suite.items().iter().find(|item| item.id == id);
    if as_json {
        return output::json(&json!({ "item": item, "result": result }));
    }
    // JSON says everything; people read it indented.
    output::data("item:")?;
    output::json(&item)?;
    output::data("result:")?;
    output::json(result)?;
    match &result.answer {
        Some(Answer::Text { text, .. }) => output::data(format!("answer:\n{text}")),
        _ => Ok(()),
    }
}

fn describe(manifest: &Manifest, num_results: usize) -> Outcome {
    let identity = &manifest.identity;
    output::data(format!("evaluation  {}", manifest.id))?;
    output::data(format!("suite       {} ({})", manifest.suite, short(&identity.suite_digest)))?;
    output::data(format!("model       {} ({})", manifest.model, short(&identity.model_digest)))?;
    if let Some(adapter) = &manifest.adapter {
        let digest = identity.adapter_digest.as_deref().unwrap_or_default();
        output::data(format!("adapter     {adapter} ({})", short(digest)))?;
    }
    let limit = identity.limit.map_or_else(String::new, |limit| format!(", first {limit} items"));
    output::data(format!(
        "settings    seed {}, temperature {}, {} numerics, window {}{limit}",
        identity.seed, identity.temperature, identity.numerics, identity.window
    ))?;
    let state = match manifest.finished {
        Some(time) => format!("finished {} in {:.1} s", date(time), manifest.seconds),
        None => "not finished".to_owned(),
    };
    output::data(format!(
        "state       begun {}, {state}: {num_results} of {} items",
        date(manifest.begun),
        manifest.num_items
    ))
}

fn short(digest: &str) -> &str {
    let end = digest.find(':').map_or(12, |colon| colon + 13);
    digest.get(..end).unwrap_or(digest)
}

fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.map_or_else(String::new, |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Which evaluation figures are of.
pub(super) fn print_title(evaluation: &Evaluation) -> Outcome {
    let Manifest { id, model, suite, .. } = &evaluation.manifest;
    output::data(format!("\n{model} on {suite} ({id})"))
}

/// Writes the report card beside the results, in both languages.
pub(super) fn write_card(session: &Session, evaluation: &Evaluation) -> Outcome {
    let folder = evaluations(session).folder(&evaluation.manifest.id);
    let options = Options { seed: evaluation.manifest.identity.seed, ..Options::default() };
    for (language, tail) in [(Language::English, ""), (Language::Chinese, ".zh")] {
        let card = evaluation.card(&options, language)?;
        against::write(&folder.join(format!("card{tail}.md")), &card.markdown)?;
        against::write(&folder.join(format!("card{tail}.html")), &card.html)?;
    }
    Ok(())
}

/// The figures of an evaluation, intervals always beside them.
pub(super) fn print_figures(evaluation: &Evaluation, seed: u64) -> Outcome {
    let options = Options { seed, ..Options::default() };
    let skills = evaluation.skills(&options);
    let mut rows = vec![["metric", "value", "95 % interval", "items"].map(str::to_owned)];
    rows.extend(
        evaluation.figures(&options).iter().map(|figure| figure_row(&figure.metric, figure)),
    );
    rows.extend(skills.iter().map(|figure| {
        let skill = figure.skill.as_deref().unwrap_or_default();
        figure_row(&format!("  {skill}"), figure)
    }));
    print_table(&rows)
}

fn figure_row(name: &str, figure: &Figure) -> [String; 4] {
    let value = figure.value.map_or("-".to_owned(), number);
    let interval = match (&figure.interval, &figure.no_interval) {
        (Some(interval), _) => format!("{} to {}", number(interval.low), number(interval.high)),
        (None, Some(reason)) => format!("none: {reason}"),
        (None, None) => String::new(),
    };
    [name.to_owned(), value, interval, figure.num_items.to_string()]
}

fn figure_text(figure: &Figure) -> String {
    let [name, value, interval, _] = figure_row(&figure.metric, figure);
    format!("{name} {value} ({interval})")
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

fn item_row(result: &ItemResult, main: &str) -> [String; 3] {
    let value = match (result.metrics.get(main).map(Vec::as_slice), &result.answer) {
        (_, Some(Answer::Text { value: Some(value), .. })) => number(*value),
        (Some([sum, weight]), _) => number(sum / weight),
        _ => "-".to_owned(),
    };
    let answer = match (&result.problem, &result.answer) {
        (Some(problem), _) => format!("no result: {problem}"),
        (None, Some(answer)) => answer_text(answer),
        (None, None) => String::new(),
    };
    [result.id.clone(), value, answer]
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Text { text, end, .. } => {
            let cut = if *end == End::Length { " [cut off]" } else { "" };
            format!("{:?}{cut}", excerpt(text))
        }
        Answer::Choices { likeliest, .. } => format!("choice {likeliest}"),
        Answer::Likelihood { logprob, tokens, .. } => {
            format!("log-likelihood {logprob:.3} of {tokens} tokens")
        }
        Answer::Pair { chosen, rejected, .. } => {
            format!("chosen {chosen:.3}, rejected {rejected:.3}")
        }
        Answer::Verdicts { verdict, swapped_verdict, .. } => {
            format!("{verdict:?}, swapped {swapped_verdict:?}")
        }
    }
}

fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

fn print_table<const N: usize>(rows: &[[String; N]]) -> Outcome {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        output::data(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Items without a result are counted and named: they are in no figure.
pub(super) fn tell_problems(evaluation: &Evaluation) {
    let problems: Vec<(&str, &str)> = evaluation.problems().collect();
    if problems.is_empty() {
        return;
    }
    output::talk(format!(
        "{} {} of {} items have no result, and are in no figure",
        output::yellow("warning:"),
        problems.len(),
        evaluation.manifest.num_items
    ));
    for (id, problem) in problems.iter().take(PROBLEMS_TOLD) {
        output::talk(format!("  {id}: {problem}"));
    }
    if problems.len() > PROBLEMS_TOLD {
        output::talk(format!("  and {} more", problems.len() - PROBLEMS_TOLD));
    }
}

pub(super) fn evaluation_json(session: &Session, evaluation: &Evaluation, seed: u64) -> Value {
    let options = Options { seed, ..Options::default() };
    let manifest = &evaluation.manifest;
    let problem = |(id, problem): (&str, &str)| json!({ "id": id, "problem": problem });
    json!({
        "evaluation": manifest.id,
        "path": evaluations(session).folder(&manifest.id),
        "suite": manifest.suite,
        "model": manifest.model,
        "adapter": manifest.adapter,
        "identity": manifest.identity,
        "finished": manifest.finished.is_some(),
        "num_items": manifest.num_items,
        "num_results": evaluation.results.len(),
        "seconds": manifest.seconds,
        "metrics": evaluation.figures(&options),
        "skills": evaluation.skills(&options),
        "problems": evaluation.problems().map(problem).collect::<Vec<_>>(),
    })
}
