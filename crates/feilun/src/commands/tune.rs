//! `feilun tune`: train an installed model on examples.

mod config;
mod learner;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use feilun_kernels::Pool;
use feilun_text::ChatFormat;
use feilun_train::data::{Examples, LongExamples, Plan, Renderer};
use feilun_train::guard;
use feilun_train::learner::Learner as _;
use feilun_train::planner;
use feilun_train::run::{Outcome as RunOutcome, Parts, Run, RunDirectory, Summary};
use feilun_train::trainee::ModelLearner;

use self::config::RunConfig;
use crate::commands::Session;
use crate::engine::OpenModel;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::model_name::ModelName;
use crate::{machine, output, resolve};

/// Train a model on examples: an adapter beside it (LoRA), or all of it
///
/// The data are JSONL in OpenAI's shapes: `{"messages": [...]}` for `sft`, `{"prompt": [...],
/// "chosen": [...], "rejected": [...]}` for `dpo`, `{"prompt": [...], "completion": [...],
/// "label": true}` for `kto`. Everything is read and checked before the first step. A run that
/// was broken off goes on from its last checkpoint when the same command is given again, and ends
/// with the same weights, bit for bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun tune --data examples.jsonl --out my-adapter
  feilun tune --base gemma3-270m --data pairs.jsonl --objective dpo --out polite
  feilun tune --data examples.jsonl --method full --learning-rate 2e-5 --epochs 3 --out mine")]
pub(crate) struct Args {
    /// The model to begin from: an installed name, the beginning of a digest, or a path
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Files of examples
    #[arg(long, required = true, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Keep models and state in this directory [default: FEILUN_DATA_DIR, or the usual place]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What is minimised
    #[arg(long, value_enum, default_value_t = ObjectiveArg::Sft)]
    objective: ObjectiveArg,
    /// What is trained
    #[arg(long, value_enum, default_value_t = MethodArg::Lora)]
    method: MethodArg,
    /// The name of the run and of what comes out of it
    #[arg(long, value_name = "NAME", value_parser = ModelName::from_text)]
    out: ModelName,
    /// Passes over the data
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    epochs: u64,
    /// Steps, instead of passes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// The highest learning rate [default: 2e-4 for lora, 2e-5 for full, a tenth of it for pairs]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps until it is reached [default: 3 % of the steps]
    #[arg(long)]
    warmup_steps: Option<u64>,
    /// How it goes on
    #[arg(long, value_enum, default_value_t = ScheduleArg::Cosine)]
    schedule: ScheduleArg,
    /// Tokens of a step
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..))]
    batch_tokens: u32,
    /// Most tokens of an example [default: the model's context, at most 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..))]
    context: Option<u32>,
    /// What to do with longer examples
    #[arg(long, value_enum, default_value_t = LongArg::Refuse)]
    long: LongArg,
    /// Skip lines that cannot be used, and count them, instead of refusing the file
    #[arg(long)]
    skip_bad: bool,
    /// Share of the examples that is kept back to measure on
    #[arg(long, default_value_t = 0.05)]
    held_out: f64,
    /// LoRA: width of the adapter
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,
    /// LoRA: the adapter's factor is alpha / rank
    #[arg(long, default_value_t = 32.0)]
    alpha: f32,
    /// dpo and kto: how dear it is to leave the base
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    /// Share of the weight that a step at learning rate 1 takes away
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// A longer gradient is shortened to this; 0 for never
    #[arg(long, default_value_t = 1.0)]
    clip_norm: f64,
    /// Share of a target's probability that is spread over all tokens
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f32,
    /// Of the order of the data and of an adapter's first values
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps between checkpoints; 0 for the end only
    #[arg(long, default_value_t = 50)]
    save_every: u64,
    /// Steps between evaluations on what was kept back; 0 for never
    #[arg(long, default_value_t = 50)]
    evaluate_every: u64,
    /// Compute in f32: slow, and the reference
    #[arg(long)]
    f32: bool,
    /// Compute the MLPs' first half again instead of keeping it: less memory, more time
    #[arg(long)]
    save_memory: bool,
    /// Threads to compute with, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ObjectiveArg {
    /// Supervised fine-tuning: to answer as the examples do
    Sft,
    /// Direct preference optimization: to prefer the chosen answers
    Dpo,
    /// Kahneman-Tversky optimization: towards liked answers, away from others
    Kto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// A low-rank adapter beside every linear layer
    Lora,
    /// All weights
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    Constant,
    Linear,
    Cosine,
    /// Warm-up, stable, decay over the last fifth
    Wsd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LongArg {
    Refuse,
    Crop,
    Drop,
}

impl From<LongArg> for LongExamples {
    fn from(long: LongArg) -> LongExamples {
        match long {
            LongArg::Refuse => LongExamples::Refuse,
            LongArg::Crop => LongExamples::Crop,
            LongArg::Drop => LongExamples::Drop,
        }
    }
}

/// How long the planner measures.
const MEASURE: Duration = Duration::from_secs(4);

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let model = OpenModel::open(resolve::find(session, args.base.as_deref())?)?;
    let format = match model.chat_format()? {
        Some(format) => format,
        None => ChatFormat::plain(Arc::clone(&model.tokenizer))?,
    };
    let plan = read_data(args, &model, format)?;
    let config = RunConfig::new(args, &model, &plan)?;
    let directory = RunDirectory::begin(&session.data.run(&args.out), &config)
        .hint("the run's name is what --out says; another name begins another run")?;

    let threads = match args.threads {
        Some(threads) => threads.into(),
        None => machine::threads(&session.environment)?,
    };
    let isa = machine::isa(&session.environment)?;
    let mut learner = learner::open(&config, &model, isa, Pool::new(threads)?)?;
    check(&config, &model, &plan, &learner)?;
    let mut pool = Pool::new(threads)?;
    let parts = Parts {
        directory: &directory,
        settings: &config.training,
        learner: &mut learner,
        batches: &plan,
        pool: &mut pool,
        isa,
        peak_memory: &machine::peak_memory,
    };
    let (mut run, refused) = Run::open(parts)?;
    for refused in refused {
        output::talk(format!("{} {refused}", output::yellow("warning:")));
    }
    let done = run.state().step;
    if done > 0 && done < config.training.num_steps {
        output::talk(format!("goes on after step {done} of {}", config.training.num_steps));
    }
    if done < config.training.num_steps {
        progress::print_plan(&run.plan(MEASURE)?, config.training.num_steps - done);
    }
    session.interrupt.spare_one();
    let stop = session.interrupt.flag();
    let mut progress = progress::Progress::new(config.training.num_steps);
    let outcome = run.train(&stop, &mut |record| progress.see(record));
    progress.finish();
    match outcome? {
        RunOutcome::Finished(summary) => {
            let path = learner::save(&config, &model, &learner, &directory)?;
            report(args, &summary, &path, &plan)
        }
        RunOutcome::Interrupted { step, checkpoint } => {
            let saved = checkpoint
                .map_or_else(String::new, |path| format!("; saved as {}", path.display()));
            Err(Failure::interrupted(format!("after step {step}{saved}"))
                .hint("the same command goes on from there"))
        }
        RunOutcome::Refused { refusal, checkpoint } => {
            let failure = Failure::refused(refusal);
            Err(match checkpoint {
                Some(path) => failure.hint(format!("the last good checkpoint: {}", path.display())),
                None => failure,
            })
        }
    }
}

fn read_data(args: &Args, model: &OpenModel, format: ChatFormat) -> Outcome<Plan> {
    let renderer = Renderer::new(Arc::new(format));
    let options = config::read_options(args);
    let mut bar = progress::Reading::new();
    let examples = Examples::open(&args.data, renderer, options, &mut |done, all| {
        bar.see(done, all);
    })?;
    bar.finish();
    let report = examples.report();
    for skipped in &report.skipped {
        let place = format!("{}:{}", skipped.path.display(), skipped.line);
        output::talk(format!("{} {place}: {}", output::yellow("skipped"), skipped.problem));
    }
    if report.num_skipped > 0 {
        output::talk(format!("{} of {} lines skipped", report.num_skipped, report.num_lines));
    }
    Ok(Plan::of_examples(examples, config::plan_options(args, model.context()))?)
}

/// What must be right before the first step.
fn check(config: &RunConfig, model: &OpenModel, plan: &Plan, learner: &ModelLearner) -> Outcome {
    let ledger = plan.ledger();
    let tokens = ledger.tokens();
    let facts = guard::Facts {
        num_examples: plan.examples().map_or(0, Examples::len),
        num_learned_tokens: tokens.trained,
        num_too_long: 0, // refused, cropped or dropped by the plan
        longest_example: 0,
        context_length: model.context(),
        learning_rate: config.training.learning_rate,
        learning_rates: guard::ADAMW_LEARNING_RATES,
        adapter_base: None,
        base: config.base.digest.clone(),
        needed_bytes: planner::formula_bytes(learner.values().len(), learner.other_bytes(), 0),
        available_bytes: machine::memory_bytes().map_or(u64::MAX, |(_, available)| available),
    };
    let errors = guard::check(&facts);
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::refused(lines.join("; ")))
}

fn report(args: &Args, summary: &Summary, path: &std::path::Path, plan: &Plan) -> Outcome {
    if args.json {
        return output::json(&serde_json::json!({
            "run": args.out.as_str(),
            "path": path.display().to_string(),
            "steps": summary.step,
            "steps_skipped": summary.num_skipped,
            "tokens": summary.num_tokens,
            "seconds": summary.seconds,
            "tokens_per_second": summary.num_tokens as f64 / summary.seconds.max(1e-9),
            "loss": summary.last_loss,
            "best_held_out_loss": summary.best.as_ref().map(|best| best.loss),
            "values_digest": summary.values_digest,
            "prediction": summary.score,
            "ledger": plan.ledger(),
        }));
    }
    let tokens = plan.ledger().tokens();
    output::talk(format!(
        "tokens of the data: {} trained, {} masked, {} cropped, {} dropped, {} held out",
        tokens.trained, tokens.masked, tokens.cropped, tokens.dropped, tokens.held_out
    ));
    if let Some(score) = &summary.score {
        progress::print_score(score);
    }
    output::data(path.display())
}
