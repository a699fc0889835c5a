//! The configuration of a pretraining run, as it stands in its `config.json`: whatever decides the
//! weights that come out.

use std::path::PathBuf;

use feilun_train::data::{Plan, PlanOptions};
use feilun_train::depth::{Recipe, Shape};
use feilun_train::optimizer::AdamWSettings;
use feilun_train::run::TrainingSettings;
use serde::{Deserialize, Serialize};

use super::Args;
use super::dial::Dial;
use super::vocabulary::Vocabulary;
use crate::training::Usual;

/// Large batches average much of the noise away, and a long memory then only lags (Radford et al.
/// 2021, and every recipe since).
const BETA2: f64 = 0.95;
/// Steps of warm-up, however short the run.
const WARMUP_MIN: u64 = 10;
/// Of the peak, where the decay ends.
const FINAL_FRACTION: f64 = 0.1;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// The program's version: another one may compute other bits.
    pub(crate) version: String,
    pub(crate) tokenizer: TokenizerConfig,
    pub(crate) data: DataConfig,
    pub(crate) dial: Dial,
    pub(crate) model: Shape,
    /// Matrix work in f32 instead of bf16.
    pub(crate) is_f32: bool,
    pub(crate) recompute_mlp: bool,
    pub(crate) training: TrainingSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizerConfig {
    pub(crate) label: String,
    pub(crate) digest: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    pub(crate) paths: Vec<PathBuf>,
    /// Of the tokens, their order, and everything that makes rows of them.
    pub(crate) digest: String,
    pub(crate) plan: PlanOptions,
}

impl RunConfig {
    pub(super) fn new(
        args: &Args,
        vocabulary: &Vocabulary,
        plan: &Plan,
        dial: Dial,
        model: Shape,
        recipe: &Recipe,
    ) -> RunConfig {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let step_tokens = plan.rows_per_step() * plan.options().row_tokens as u64;
        RunConfig {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tokenizer: TokenizerConfig {
                label: vocabulary.name().to_owned(),
                digest: vocabulary.digest(),
            },
            data: DataConfig {
                paths: args.data.iter().map(absolute).collect(),
                digest: plan.digest().to_hex().to_string(),
                plan: *plan.options(),
            },
            dial,
            model,
            is_f32: args.training.f32,
            recompute_mlp: args.training.save_memory,
            training: args.training.settings(Usual {
                num_steps: (recipe.tokens / step_tokens.max(1)).max(1),
                learning_rate: recipe.learning_rate,
                final_fraction: FINAL_FRACTION,
                adamw: AdamWSettings {
                    beta2: BETA2,
                    weight_decay: args.weight_decay,
                    ..AdamWSettings::default()
                },
                width: model.width,
                evaluates: !plan.held_out().is_empty(),
                warmup_min: WARMUP_MIN,
            }),
        }
    }
}
