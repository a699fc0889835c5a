//! `feilun eval`: how good a model is on a suite, how sure that is, and whether it is better than
//! another.

mod against;
mod capability;
mod evaluate;
mod progress;
mod show;

use std::path::{Path, PathBuf};

use feilun_eval::capability::CapabilityOptions;
use feilun_eval::results::{Evaluation, Evaluations};
use feilun_eval::suite::Suite;

use self::against::GateArgs;
use self::evaluate::Evaluate;
use crate::commands::Session;
use crate::engine::EngineArgs;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;

/// Measure how good a model is, or whether it is better than another
///
/// A suite is a file of JSON lines: an optional header {"suite": NAME, "scorer": {"kind": "exact"},
/// "max_tokens": 64}, then an item a line. An item has an `id`, a `prompt` (a text to continue) or
/// `messages`, and one of: `reference` (the answer is written, and scored), `choices` with `answer`
/// (the likeliest continuation, as lm-eval has it), `text` alone (bits per byte), `chosen` with
/// `rejected` (which answer is likelier), `first` with `second` (which answer the model judges
/// better).
///
/// Results are kept as they come: the same command goes on where it was broken off.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  feilun eval --model smollm2-135m-instruct --suite questions.jsonl
  feilun eval --suite questions.jsonl --limit 100 --json
  feilun eval --suite capability
  feilun eval --model gemma3-270m --suite questions.jsonl --against smollm2-135m-instruct
  feilun eval capability > capability.jsonl
  feilun eval list
  feilun eval show 3fa2 --item question-7")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    engine: EngineArgs,
    /// The suite: a file of JSON lines; or `capability`, which `feilun eval capability` prints
    #[arg(long, value_name = "FILE", required = true)]
    suite: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    gate: GateArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What decides the results, beside suite and model.
#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Ask only the first N items
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Start of the random numbers of answers, and of the intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Randomness of answers: 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Most tokens that a prediction sees; the model's context, but at most 4096, where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// Evaluate anew what is stored already
    #[arg(long)]
    again: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the evaluations
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an evaluation: its figures, or what came of its items
    #[command(after_help = "\
Examples:
  feilun eval show 3fa2
  feilun eval show 3fa2 --items
  feilun eval show 3fa2 --item question-7")]
    Show(show::ShowArgs),
    /// Make a suite of seven skills in English and Chinese, from a seed
    ///
    /// Recall, paraphrase, abstraction, arithmetic, planning, changed conditions and false
    /// premises: short questions with four choices, so chance is 25 %. The same seed makes the same
    /// suite on every machine.
    #[command(after_help = "\
Examples:
  feilun eval capability > capability.jsonl
  feilun eval capability --seed 7 --per-skill 100 --language zh > chinese.jsonl")]
    Capability(capability::CapabilityArgs),
}

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    match &args.action {
        Some(Action::List { json }) => show::list(session, *json),
        Some(Action::Show(args)) => show::show(session, args),
        Some(Action::Capability(args)) => capability::run(args),
        None => evaluate(&args, session),
    }
}

fn evaluate(args: &Args, session: &Session) -> Outcome {
    let Some(path) = &args.suite else { return Err(Failure::usage("--suite is missing")) };
    if !args.gate.is_wanted() && args.gate.needs_comparison() {
        return Err(Failure::usage("--guardrail and --minimum-effect are about a comparison")
            .hint("name the model to compare with: --against MODEL"));
    }
    let guardrails = args.gate.guardrail.iter().map(|guardrail| guardrail.path.as_path());
    let paths = std::iter::once(path.as_path()).chain(guardrails);
    let suites = paths.map(open_suite).collect::<Outcome<Vec<Suite>>>()?;
    let evaluate = Evaluate { engine: &args.engine, how: &args.how, session };
    let model = args.engine.open(session)?;
    if args.gate.is_wanted() {
        let models = [model, args.gate.open(&args.engine, session)?];
        return against::run(&evaluate, &args.gate, models, &suites, args.json);
    }
    for evaluation in evaluate.model(model, &suites)? {
        show::tell_problems(&evaluation);
        show::write_card(session, &evaluation)?;
        if args.json {
            output::json(&show::evaluation_json(session, &evaluation, args.how.seed))?;
        } else {
            show::print_figures(&evaluation, args.how.seed)?;
            let id = &evaluation.manifest.id;
            output::talk(format!("evaluation {id}: feilun eval show {id}"));
        }
        all_failed(&evaluation)?;
    }
    Ok(())
}

/// Where nothing could be asked there is no result, however well the command went.
fn all_failed(evaluation: &Evaluation) -> Outcome {
    let answered = evaluation.results.iter().any(|result| !result.metrics.is_empty());
    if answered { Ok(()) } else { Err(Failure::failed("no item has a result")) }
}

/// The name stands for the suite that is built in; a file of this name is `./capability`.
fn open_suite(path: &Path) -> Outcome<Suite> {
    if path == Path::new("capability") {
        return capability::suite(&CapabilityOptions::default());
    }
    let opened = Suite::open(path).map_err(|error| Failure::from(error).into_usage());
    opened.doing(|| format!("the suite {}", path.display()))
}

/// The evaluations of the data directory.
fn evaluations(session: &Session) -> Evaluations {
    Evaluations::new(&session.data.evaluations())
}
