//! `feilun tune`: train an installed model on examples.

pub(crate) mod config;
mod learner;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use feilun_kernels::Pool;
use feilun_text::ChatFormat;
use feilun_train::data::{Examples, LongExamples, Plan, Renderer};
use feilun_train::run::RunDirectory;

use self::config::RunConfig;
use crate::commands::Session;
use crate::engine::OpenModel;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::model_name::ModelName;
use crate::training::{self, Job, OptimizerArg, Reading, TrainingArgs};
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
    /// Tokens of a step
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(16..))]
    batch_tokens: u32,
    /// Examples of a step, about, instead of tokens
    #[arg(long, value_name = "N", conflicts_with = "batch_tokens",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_examples: Option<u32>,
    /// Most tokens of an example [default: the model's context, at most 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..))]
    context: Option<u32>,
    /// What to do with longer examples
    #[arg(long, value_enum, default_value_t = LongArg::Refuse)]
    long: LongArg,
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
    /// Share of a target's probability that is spread over all tokens
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f32,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
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

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    args.training.settle(session)?;
    if args.training.optimizer == OptimizerArg::Muon && args.method == MethodArg::Lora {
        return Err(Failure::usage("muon is for whole matrices, and an adapter has thin ones")
            .hint("add --method full, or leave out --optimizer"));
    }
    let model = OpenModel::open(resolve::find(session, args.base.as_deref())?)?;
    let format = match model.chat_format()? {
        Some(format) => format,
        None => ChatFormat::plain(Arc::clone(&model.tokenizer))?,
    };
    let plan = read_data(args, &model, format)?;
    let config = RunConfig::new(args, &model, &plan)?;
    let threads = args.training.threads(session)?;
    let isa = machine::isa(&session.environment)?;
    let mut learner = learner::open(&config, &model, isa, Pool::new(threads)?)?;
    training::check(&plan, &config.training, &learner, &config.base.digest, model.context())?;
    let directory = RunDirectory::begin(&session.data.run(&args.out), &config)
        .hint("the run's name is what --out says; another name begins another run")?;
    let settings = &config.training;
    let job = Job { directory: &directory, settings, learner: &mut learner, plan: &plan };
    let summary = job.train(session)?;
    let path = learner::save(&config, &model, &learner, &directory)?;
    if args.training.json {
        return output::json(&training::summary_json(&args.out, &path, &summary, &plan));
    }
    training::print_summary(&summary, &plan);
    output::data(path.display())
}

fn read_data(args: &Args, model: &OpenModel, format: ChatFormat) -> Outcome<Plan> {
    let renderer = Renderer::new(Arc::new(format));
    let options = config::read_options(args);
    let mut bar = Reading::new();
    let examples = Examples::open(&args.data, renderer, options, &mut |done, all| {
        bar.see(done, all);
    })?;
    bar.finish();
    let report = examples.report();
    let of = format!("of {} lines", report.num_lines);
    training::tell_skipped(&report.skipped, report.num_skipped, &of);
    let batch_tokens = match args.batch_examples {
        Some(number) => examples.mean_tokens().saturating_mul(number as usize),
        None => args.batch_tokens as usize,
    };
    let options = config::plan_options(args, model.context(), batch_tokens);
    Ok(Plan::of_examples(examples, options)?)
}
