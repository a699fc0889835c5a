//! `feilun pretrain`: make a model from nothing but texts.

mod config;
mod corpus;
mod dial;
mod result;
mod vocabulary;

use std::path::PathBuf;

use feilun_kernels::Pool;
use feilun_model::train::{Method, Trainee, TraineeOptions};
use feilun_train::data::{Plan, PlanOptions};
use feilun_train::depth::{self, Recipe, Shape};
use feilun_train::objective::Objective;
use feilun_train::run::RunDirectory;
use feilun_train::trainee::{ModelLearner, Reference};

use self::config::RunConfig;
use self::vocabulary::Vocabulary;
use crate::commands::Session;
use crate::failure::{Outcome, OutcomeExt as _};
use crate::model_name::ModelName;
use crate::training::{self, Job, TrainingArgs};
use crate::{machine, output};

/// Train a new model on texts
///
/// The depth decides: from it follow width, context, number of tokens, batch and learning rate
/// (`feilun-train/src/depth.rs` has the rules and their sources). With --hours, a few seconds of
/// measurement choose the depth. A folder is read with all that is in it: `.jsonl` has one
/// `{"text": ".."}` a line, `.tokens` is what an earlier run has made of texts, every other file
/// is one text in UTF-8. A run that was broken off goes on from its last checkpoint when the same
/// command is given again, and ends with the same weights, bit for bit.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("dial").required(true).args(["depth", "hours"])))]
#[command(after_help = "\
Examples:
  feilun pretrain --data texts --depth 4
  feilun pretrain --data texts --hours 8 --out overnight
  feilun complete --model DATA/runs/overnight/model --prompt 'The'")]
pub(crate) struct Args {
    /// Folders or files of texts
    #[arg(long, required = true, value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Layers of the model; everything else follows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=depth::MAX_DEPTH as i64))]
    depth: Option<u16>,
    /// The deepest model that is trained well in this time on this machine
    #[arg(long, value_name = "H", value_parser = hours)]
    hours: Option<f64>,
    /// The name of the run
    #[arg(long, value_name = "NAME", default_value = "pretrained", value_parser = ModelName::from_text)]
    out: ModelName,
    /// Whose tokens: a model, or a folder with a tokenizer.json [default: smollm2-135m-instruct]
    #[arg(long, value_name = "MODEL")]
    tokenizer: Option<String>,
    /// Tokens of the whole run, instead of what the depth asks for
    #[arg(long, value_name = "N", conflicts_with = "hours", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,
    /// Longest sequence, instead of what the depth asks for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1 << 16))]
    context: Option<u32>,
    /// Tokens of a step, instead of what the depth asks for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    batch_tokens: Option<u32>,
    /// The highest learning rate, instead of what the depth asks for
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Share of the weight that a step at learning rate 1 takes away
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    weight_decay: f64,
    /// Share of the documents that is kept back to measure on
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    held_out: f64,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
}

/// Tokens to measure on: enough for two digits, a small part of the time.
const HELD_OUT_TOKENS: usize = 1 << 16;
/// A month.
const MAX_HOURS: f64 = 744.0;

fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hours) if hours > 0.0 && hours <= MAX_HOURS => Ok(hours),
        _ => Err(format!("expected a number above 0 and up to {MAX_HOURS}")),
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    args.training.settle(session)?;
    let vocabulary = Vocabulary::open(session, args.tokenizer.as_deref())?;
    output::talk(format!("tokens: those of {}", vocabulary.label()));
    let corpus = corpus::open(args, &vocabulary.tokenizer, session)?;
    let threads = args.training.threads(session)?;
    let isa = machine::isa(&session.environment)?;
    let setting = dial::Setting {
        vocab_size: vocabulary.tokenizer.vocab_size(),
        data_tokens: corpus.num_tokens(),
        isa,
        threads,
    };
    let dial = dial::choose(args, session, &setting)?;
    let shape = dial.shape(args, &setting);
    let recipe = dial.recipe(args, &shape);
    print_dial(&shape, &recipe, setting.data_tokens);

    let mut plan = Plan::of_shards(corpus.shards, plan_options(args, &shape, &recipe))?;
    plan.count_bytes(|token| vocabulary.text_bytes(token));
    if plan.held_out().is_empty() {
        output::talk(format!(
            "{} no document is held out, so nothing is measured",
            output::yellow("warning:")
        ));
    }
    let config = RunConfig::new(args, &vocabulary, &plan, dial, shape, &recipe);
    let mut learner = learner(args, &setting, &config)?;
    training::check(&plan, &config.training, &learner, &config.tokenizer.digest, shape.context)?;
    let directory = RunDirectory::begin(&session.data.run(&args.out), &config)
        .hint("the run's name is what --out says; another name begins another run")?;
    let settings = &config.training;
    let job = Job { directory: &directory, settings, learner: &mut learner, plan: &plan };
    let summary = job.train(session)?;
    let path = result::save(&vocabulary, &learner, &directory)?;
    // Its memory is not needed for a sample.
    drop(learner);
    let bits_per_byte = result::bits_per_byte(&directory)?;
    let sample = result::sample(session, &path, &plan, &config)?;
    if args.training.json {
        let mut report = training::summary_json(&args.out, &path, &summary, &plan);
        report["parameters"] = shape.num_parameters().into();
        report["bits_per_byte"] = bits_per_byte.into();
        report["sample"] = serde_json::json!({ "prompt": sample.prompt, "text": sample.text });
        return output::json(&report);
    }
    training::print_summary(&summary, &plan);
    if let Some(bits) = bits_per_byte {
        output::talk(format!("held-out text: {bits:.4} bits per byte"));
    }
    output::talk(format!("a sample, after \"{}\":\n{}", sample.prompt.trim(), sample.text.trim()));
    output::data(path.display())
}

fn print_dial(shape: &Shape, recipe: &Recipe, data_tokens: u64) {
    let Recipe { tokens, batch_tokens, learning_rate } = *recipe;
    output::talk(format!(
        "depth {}: width {}, context {}, {:.1} million parameters",
        shape.depth,
        shape.width,
        shape.context,
        shape.num_parameters() as f64 / 1e6
    ));
    output::talk(format!(
        "{tokens} tokens, {:.1} passes over the {data_tokens} of the data, {batch_tokens} a step; \
         learning rate {learning_rate}",
        tokens as f64 / data_tokens.max(1) as f64,
    ));
}

fn plan_options(args: &Args, shape: &Shape, recipe: &Recipe) -> PlanOptions {
    let row_tokens = shape.row_tokens(recipe.batch_tokens);
    PlanOptions {
        seed: args.training.seed,
        document_tokens_max: shape.context,
        tokens_per_step: recipe.batch_tokens,
        held_out: args.held_out,
        held_out_rows_max: (HELD_OUT_TOKENS / row_tokens).max(1),
        ..PlanOptions::new(row_tokens)
    }
}

/// The learner as it is before the first step.
fn learner(args: &Args, setting: &dial::Setting, config: &RunConfig) -> Outcome<ModelLearner> {
    let options = TraineeOptions {
        method: Method::Full,
        precision: args.training.precision(),
        isa: setting.isa,
        max_tokens: config.data.plan.row_tokens,
        recompute_mlp: args.training.save_memory,
    };
    let pool = Pool::new(setting.threads)?;
    let mut trainee = Trainee::plan(&config.model.config(), None, pool, &options)?;
    trainee.initialize(args.training.seed);
    Ok(ModelLearner::new(trainee, Reference::Base, Objective::Tokens, 0.0)?)
}
