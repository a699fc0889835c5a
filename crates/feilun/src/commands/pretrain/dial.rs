//! Where the one dial stands: what `--depth` says, or what `--hours` comes to on this machine.

use feilun_kernels::{Isa, Pool};
use feilun_model::train::{Method, Trainee, TraineeOptions};
use feilun_train::bench::{TrainTest, train_seconds};
use feilun_train::depth::{self, MAX_PASSES, Recipe, Shape};
use feilun_train::run::RunFiles;
use serde::{Deserialize, Serialize};

use super::Args;
use super::config::RunConfig;
use crate::commands::Session;
use crate::failure::Outcome;
use crate::output;

/// Evaluations, checkpoints and the sample take the rest.
const TRAINING_SHARE: f64 = 0.95;
/// A depth that takes a moment to try, and whose products are of fair size.
const PROBED_DEPTH: usize = 4;
/// A depth is given up if the time has room for less than this share of its tokens.
const ENOUGH: f64 = 0.9;

/// What the choice depends on.
pub(super) struct Setting {
    pub(super) vocab_size: usize,
    pub(super) data_tokens: u64,
    pub(super) isa: Isa,
    pub(super) threads: usize,
}

/// As it stands in the run's configuration: a run that goes on does not choose again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dial {
    pub(crate) depth: usize,
    /// What was asked for, where that was a time.
    pub(crate) hours: Option<f64>,
    /// Of the whole run.
    pub(crate) tokens: u64,
}

/// Reads the dial, or finds out where it should stand.
pub(super) fn choose(args: &Args, session: &Session, setting: &Setting) -> Outcome<Dial> {
    let Some(hours) = args.hours else {
        let depth = args.depth.map_or(1, usize::from);
        let shape = shape(args, depth, setting);
        let tokens = args.tokens.unwrap_or_else(|| shape.tokens(setting.data_tokens));
        return Ok(Dial { depth, hours: None, tokens });
    };
    let begun = RunFiles::new(&session.data.run(&args.out)).config::<RunConfig>();
    if let Ok(begun) = begun
        && begun.dial.hours == Some(hours)
    {
        return Ok(begun.dial);
    }
    output::talk("measuring how fast this machine is");
    let seconds = TRAINING_SHARE * 3600.0 * hours;
    let probed = shape(args, PROBED_DEPTH, setting);
    let flops_per_second = probed.flops_per_token() * tokens_per_second(args, setting, &probed)?;
    let (vocab_size, data_tokens) = (setting.vocab_size, setting.data_tokens);
    let mut depth = depth::deepest(vocab_size, data_tokens, seconds, flops_per_second);
    loop {
        let shape = shape(args, depth, setting);
        let affordable = seconds * tokens_per_second(args, setting, &shape)?;
        if depth > 1 && affordable < ENOUGH * shape.tokens(data_tokens) as f64 {
            depth -= 1;
            continue;
        }
        // What time is left beyond what the depth asks for is used too, while the data last.
        let most = data_tokens.saturating_mul(MAX_PASSES).max(1);
        return Ok(Dial { depth, hours: Some(hours), tokens: (affordable as u64).clamp(1, most) });
    }
}

fn shape(args: &Args, depth: usize, setting: &Setting) -> Shape {
    let shape = Shape::of_depth(depth, setting.vocab_size);
    Shape { context: args.context.map_or(shape.context, |context| context as usize), ..shape }
}

fn recipe(args: &Args, shape: &Shape, tokens: u64) -> Recipe {
    let usual = shape.recipe(tokens);
    Recipe {
        tokens,
        batch_tokens: args.batch_tokens.map_or(usual.batch_tokens, |tokens| tokens as usize),
        learning_rate: args.learning_rate.unwrap_or(usual.learning_rate),
    }
}

impl Dial {
    pub(super) fn shape(&self, args: &Args, setting: &Setting) -> Shape {
        shape(args, self.depth, setting)
    }

    pub(super) fn recipe(&self, args: &Args, shape: &Shape) -> Recipe {
        recipe(args, shape, self.tokens)
    }
}

/// The speed of whole steps: a few rows on made-up tokens.
fn tokens_per_second(args: &Args, setting: &Setting, shape: &Shape) -> Outcome<f64> {
    let recipe = recipe(args, shape, shape.tokens(setting.data_tokens));
    let row_tokens = shape.row_tokens(recipe.batch_tokens);
    let options = TraineeOptions {
        method: Method::Full,
        precision: args.training.precision(),
        isa: setting.isa,
        max_tokens: row_tokens,
        recompute_mlp: args.training.save_memory,
    };
    let pool = Pool::new(setting.threads)?;
    let mut trainee = Trainee::plan(&shape.config(), None, pool, &options)?;
    trainee.initialize(0);
    let sequences = row_tokens / shape.context;
    let test = TrainTest { sequences, tokens: shape.context, steps: 2 };
    let steps = train_seconds(&mut trainee, test)?;
    let mean = |seconds: &dyn Fn(usize) -> f64| {
        (0..steps.len()).map(seconds).sum::<f64>() / steps.len().max(1) as f64
    };
    let update = mean(&|step| steps[step].optimizer);
    let row = mean(&|step| steps[step].total) - update;
    let rows_per_step = recipe.batch_tokens.div_ceil(row_tokens) as f64;
    let step_tokens = rows_per_step * row_tokens as f64;
    Ok(step_tokens / (rows_per_step * row + update).max(1e-9))
}
