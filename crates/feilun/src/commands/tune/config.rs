//! The configuration of a tuning run, as it stands in its `config.json`: whatever decides the
//! weights that come out.

use std::path::PathBuf;

use feilun_train::data::{BadLines, Plan, PlanOptions, ReadOptions, Shape};
use feilun_train::objective::{Dpo, Kto, Objective};
use feilun_train::optimizer::AdamWSettings;
use feilun_train::run::TrainingSettings;
use serde::{Deserialize, Serialize};

use super::{Args, MethodArg, ObjectiveArg};
use crate::engine::OpenModel;
use crate::failure::Outcome;
use crate::training::Usual;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// The program's version: another one may compute other bits.
    pub(crate) version: String,
    pub(crate) base: BaseConfig,
    pub(crate) data: DataConfig,
    pub(crate) objective: Objective,
    /// `None`: all weights are trained.
    pub(crate) lora: Option<LoraConfig>,
    pub(crate) label_smoothing: f32,
    /// Matrix work in f32 instead of bf16.
    pub(crate) is_f32: bool,
    pub(crate) recompute_mlp: bool,
    pub(crate) training: TrainingSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseConfig {
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) digest: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    pub(crate) files: Vec<PathBuf>,
    /// Of the files, their order, and everything that makes rows of them.
    pub(crate) digest: String,
    pub(crate) read: ReadOptions,
    pub(crate) plan: PlanOptions,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoraConfig {
    pub(crate) rank: usize,
    pub(crate) alpha: f32,
}

/// Longer rows cost attention in their square, and few examples need them.
const MAX_DEFAULT_CONTEXT: usize = 1024;

/// The learning rate where none is given.
pub(crate) fn usual_rate(is_lora: bool, of_pairs: bool) -> f64 {
    match (is_lora, of_pairs) {
        (true, false) => 2e-4,
        (false, false) => 2e-5,
        (true, true) => 2e-5,
        (false, true) => 2e-6,
    }
}

pub(super) fn read_options(args: &Args) -> ReadOptions {
    let shape = match args.objective {
        ObjectiveArg::Sft => Shape::Chat,
        ObjectiveArg::Dpo => Shape::Pairs,
        ObjectiveArg::Kto => Shape::Answers,
    };
    let bad_lines = if args.training.skip_bad { BadLines::Skip } else { BadLines::Refuse };
    ReadOptions { bad_lines, ..ReadOptions::new(shape) }
}

/// `model_context` is the longest sequence that the model was made for.
pub(super) fn plan_options(args: &Args, model_context: usize, batch_tokens: usize) -> PlanOptions {
    let context = match args.context {
        Some(context) => context as usize,
        None => model_context.min(MAX_DEFAULT_CONTEXT),
    };
    // A pair shares a row, so that its two log-probabilities meet.
    let documents = if args.objective == ObjectiveArg::Dpo { 2 } else { 1 };
    PlanOptions {
        seed: args.training.seed,
        document_tokens_max: context.min(model_context),
        tokens_per_step: batch_tokens.max(1),
        long_examples: args.long.into(),
        held_out: args.held_out,
        ..PlanOptions::new(context * documents)
    }
}

impl RunConfig {
    pub(super) fn new(args: &Args, model: &OpenModel, plan: &Plan) -> Outcome<RunConfig> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let num_steps = args.steps.unwrap_or_else(|| plan.num_steps(args.epochs)).max(1);
        let is_lora = args.method == MethodArg::Lora;
        let usual_rate = usual_rate(is_lora, args.objective != ObjectiveArg::Sft);
        let rank = usize::from(args.rank);
        Ok(RunConfig {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            base: BaseConfig {
                label: model.found.label.clone(),
                path: absolute(&model.found.path)?,
                digest: model.files.digest()?.to_hex().to_string(),
            },
            data: DataConfig {
                files: args.data.iter().map(absolute).collect::<Result<_, _>>()?,
                digest: plan.digest().to_hex().to_string(),
                read: read_options(args),
                plan: *plan.options(),
            },
            objective: match args.objective {
                ObjectiveArg::Sft => Objective::Tokens,
                ObjectiveArg::Dpo => Objective::Dpo(Dpo { beta: args.beta }),
                ObjectiveArg::Kto => Objective::Kto(Kto { beta: args.beta, ..Kto::default() }),
            },
            lora: is_lora.then_some(LoraConfig { rank, alpha: args.alpha }),
            label_smoothing: args.label_smoothing,
            is_f32: args.training.f32,
            recompute_mlp: args.training.save_memory,
            training: args.training.settings(Usual {
                num_steps,
                learning_rate: args.learning_rate.unwrap_or(usual_rate),
                final_fraction: 0.0,
                adamw: AdamWSettings {
                    weight_decay: args.weight_decay,
                    ..AdamWSettings::default()
                },
                width: model.files.config().hidden_size,
                evaluates: args.held_out > 0.0,
                warmup_min: 1,
            }),
        })
    }
}
