//! `feilun runs`: which training runs there are, how they went, and what sets them apart.
//!
//! All of it is read from the run's directory, without its lock: a run can be watched while it
//! goes on.

mod chart;
mod history;
mod svg;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feilun_train::run::{RunFiles, read_metrics};
use serde_json::Value;

use self::chart::Series;
use self::history::History;
use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::model_name::ModelName;
use crate::output;

/// List training runs, show how one went, compare several
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  feilun runs
  feilun runs show support-bot
  feilun runs show support-bot --svg loss.svg
  feilun runs compare support-bot support-bot-lora --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the runs
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how a run goes or went, with its loss as a plot
    #[command(after_help = "\
Examples:
  feilun runs show support-bot
  feilun runs show support-bot --svg loss.svg
  feilun runs show support-bot --json")]
    Show {
        /// A run
        name: ModelName,
        /// Draw the loss into this file, too
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put runs beside each other: results, settings that differ, losses in one plot
    #[command(after_help = "\
Examples:
  feilun runs compare full lora
  feilun runs compare full lora --svg losses.svg
  feilun runs compare full lora --json")]
    Compare {
        /// The runs
        #[arg(required = true, num_args = 2..=chart::MARKS.len())]
        names: Vec<ModelName>,
        /// Draw the losses into this file, too
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    match args.action.unwrap_or(Action::List { json: args.json }) {
        Action::List { json } => list(session, json),
        Action::Show { name, svg, json } => show(session, &name, svg.as_deref(), json),
        Action::Compare { names, svg, json } => compare(session, &names, svg.as_deref(), json),
    }
}

/// A run as its directory tells it.
struct Seen {
    history: History,
    /// Its configuration, flat: `training.seed` and its value.
    config: BTreeMap<String, Value>,
    losses: Series,
    held_out: Series,
}

fn see(session: &Session, name: &ModelName) -> Outcome<Seen> {
    let files = RunFiles::new(&session.data.run(name));
    let mut config = BTreeMap::new();
    flatten("", files.config::<Value>()?, &mut config);
    let records = read_metrics(&files.metrics())?;
    let checkpoints = files.checkpoints().steps()?;
    let history = History::of(name.as_str(), &records, files.running_pid(), checkpoints);
    Ok(Seen {
        history,
        config,
        losses: Series { name: "loss".to_owned(), points: history::losses(&records) },
        held_out: Series { name: "held-out".to_owned(), points: history::held_out(&records) },
    })
}

/// One run that the user has named.
fn see_named(session: &Session, name: &ModelName) -> Outcome<Seen> {
    if !session.data.run(name).exists() {
        return Err(Failure::usage(format!("there is no run `{name}`")).hint("feilun runs"));
    }
    see(session, name)
}

fn flatten(place: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let inner = if place.is_empty() { key } else { format!("{place}.{key}") };
                flatten(&inner, value, into);
            }
        }
        value if !place.is_empty() => {
            into.insert(place.to_owned(), value);
        }
        // A configuration that is empty, or no object at all.
        _ => {}
    }
}

fn list(session: &Session, json: bool) -> Outcome {
    let mut histories = Vec::new();
    let mut broken = Vec::new();
    for name in session.data.run_names()? {
        match see(session, &name) {
            Ok(seen) => histories.push(seen.history),
            // One broken run must not hide the others.
            Err(failure) => {
                output::talk(format!("{} `{name}`: {failure}", output::yellow("warning:")));
                broken.push(name.to_string());
            }
        }
    }
    histories.sort_by_key(|history| history.started_unix_seconds);
    if json {
        output::json(&histories)?;
    } else if !histories.is_empty() {
        print_table(&histories)?;
    } else {
        output::talk(format!("no runs in {}", session.data.runs().display()));
        output::talk("  hint: feilun tune --help, feilun pretrain --help");
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("cannot be read: {}", broken.join(", "))))
}

fn print_table(histories: &[History]) -> Outcome {
    let width = histories.iter().map(|history| history.name.len()).max().unwrap_or(0).max(4);
    output::data(format!(
        "{:width$}  {:11}  {:>15}  {:>8}  {:>8}  {:>10}  {:>10}  STARTED",
        "NAME", "STATE", "STEPS", "LOSS", "HELD-OUT", "TOKENS/S", "TIME"
    ))?;
    for history in histories {
        output::data(format!(
            "{:width$}  {:11}  {:>15}  {:>8}  {:>8}  {:>10}  {:>10}  {}",
            history.name,
            history.state.label(),
            steps(history),
            number(history.loss, 4),
            number(history.held_out_loss, 4),
            number(history.tokens_per_second, 1),
            time(history.seconds),
            history.started.as_deref().unwrap_or("-"),
        ))?;
    }
    Ok(())
}

fn show(session: &Session, name: &ModelName, svg: Option<&Path>, json: bool) -> Outcome {
    let Seen { history, config, losses, held_out } = see_named(session, name)?;
    let series: Vec<Series> =
        [losses, held_out].into_iter().filter(|series| !series.points.is_empty()).collect();
    if let Some(path) = svg {
        draw(path, name.as_str(), &series)?;
    }
    if json {
        let points = |name: &str| {
            series.iter().find(|series| series.name == name).map_or(&[][..], |s| &s.points)
        };
        return output::json(&serde_json::json!({
            "run": history,
            "config": config,
            "losses": points("loss"),
            "held_out_losses": points("held-out"),
        }));
    }
    print_history(&history)?;
    if !config.is_empty() {
        output::data("settings")?;
    }
    for (key, value) in &config {
        output::data(format!("  {key} = {value}"))?;
    }
    plot(&series)
}

fn print_history(history: &History) -> Outcome {
    let line = |label: &str, value: String| output::data(format!("{label:<14}{value}"));
    line("name", history.name.clone())?;
    line("state", history.state_in_words())?;
    if let Some(reason) = &history.reason {
        line("refused", reason.clone())?;
    }
    line("steps", steps(history))?;
    if history.num_skipped > 0 {
        line("left out", format!("{} of the steps, as outliers", history.num_skipped))?;
    }
    line("loss", format!("{} (mean of the last steps)", number(history.loss, 4)))?;
    if let Some(best) = &history.best {
        let last = number(history.held_out_loss, 4);
        line("held-out", format!("{last}; best {:.4} at step {}", best.loss, best.step))?;
    }
    if let Some(bits) = history.bits_per_byte {
        line("bits per byte", format!("{bits:.4} (held-out text)"))?;
    }
    line("tokens", history.num_tokens.to_string())?;
    line("speed", format!("{} tokens/s", number(history.tokens_per_second, 1)))?;
    line("time", time(history.seconds))?;
    if let Some(plan) = &history.plan {
        let memory = plan.peak_bytes.map(|bytes| format!(", {}", output::bytes(bytes)));
        line("predicted", time(plan.seconds) + &memory.unwrap_or_default())?;
    }
    if let Some(score) = &history.score {
        let memory = score.peak_bytes.map(|bytes| format!(", {}", output::bytes(bytes)));
        let ratio = |ratio: Option<f64>| {
            ratio.map_or("-".to_owned(), |ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0))
        };
        line(
            "actual",
            format!(
                "{}{} (time {}, memory {})",
                time(score.seconds),
                memory.unwrap_or_default(),
                ratio(score.time_ratio()),
                ratio(score.memory_ratio()),
            ),
        )?;
    }
    let steps: Vec<String> = history.checkpoints.iter().map(u64::to_string).collect();
    line("checkpoints", if steps.is_empty() { "none".to_owned() } else { steps.join(", ") })
}

fn compare(session: &Session, names: &[ModelName], svg: Option<&Path>, json: bool) -> Outcome {
    let mut histories = Vec::new();
    let mut configs = Vec::new();
    let mut series = Vec::new();
    for name in names {
        let seen = see_named(session, name)?;
        histories.push(seen.history);
        configs.push(seen.config);
        series.push(Series { name: name.to_string(), ..seen.losses });
    }
    let differences = differences(&configs);
    if let Some(path) = svg {
        draw(path, "loss", &series)?;
    }
    if json {
        return output::json(&serde_json::json!({ "runs": histories, "settings": differences }));
    }
    print_table(&histories)?;
    output::data("settings that differ")?;
    if differences.is_empty() {
        output::data("  none")?;
    }
    for (key, values) in differences {
        let shown = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
        let values: Vec<String> = values.iter().map(shown).collect();
        output::data(format!("  {key} = {}", values.join(" | ")))?;
    }
    plot(&series)
}

/// The settings that are not the same everywhere, with the value of each run.
fn differences(configs: &[BTreeMap<String, Value>]) -> BTreeMap<String, Vec<Option<Value>>> {
    let keys = configs.iter().flat_map(BTreeMap::keys);
    let values = |key: &String| configs.iter().map(|config| config.get(key).cloned()).collect();
    let all: BTreeMap<String, Vec<Option<Value>>> =
        keys.map(|key| (key.clone(), values(key))).collect();
    all.into_iter().filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

fn plot(series: &[Series]) -> Outcome {
    match chart::draw(series, 72, 16) {
        Some(text) => output::data(text.trim_end()),
        None => output::data("no losses to plot yet"),
    }
}

fn draw(path: &Path, title: &str, series: &[Series]) -> Outcome {
    let text = svg::draw(title, series)
        .ok_or_else(|| Failure::failed("there are no losses to draw yet"))??;
    std::fs::write(path, text).doing(|| format!("cannot write {}", path.display()))?;
    output::talk(format!("wrote {}", path.display()));
    Ok(())
}

fn steps(history: &History) -> String {
    match history.num_steps {
        Some(num_steps) => format!("{}/{num_steps}", history.step),
        None => history.step.to_string(),
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn time(seconds: f64) -> String {
    if (0.0..10.0).contains(&seconds) {
        return format!("{seconds:.1}s");
    }
    let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
    humantime::format_duration(whole).to_string()
}
