//! The arguments that say how a run is trained, whatever it trains.

use std::path::PathBuf;

use clap::ValueEnum;
use feilun_kernels::gemm::Precision;
use feilun_train::depth;
use feilun_train::guard::OutlierSettings;
use feilun_train::optimizer::{AdamWSettings, MuonSettings, OptimizerSettings};
use feilun_train::run::{CheckpointSettings, TrainingSettings};
use feilun_train::schedule::Shape;

use crate::commands::Session;
use crate::failure::{Outcome, OutcomeExt as _};
use crate::machine;

#[derive(Debug, clap::Args)]
pub(crate) struct TrainingArgs {
    /// Keep models and state in this directory [default: FEILUN_DATA_DIR, or the usual place]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Steps until the highest learning rate is reached [default: 3 % of the steps]
    #[arg(long, value_name = "N")]
    warmup_steps: Option<u64>,
    /// How it goes on
    #[arg(long, value_enum, default_value_t = ScheduleArg::Cosine)]
    schedule: ScheduleArg,
    /// What is done with the gradient
    #[arg(long, value_enum, default_value_t = OptimizerArg::Adamw)]
    pub(crate) optimizer: OptimizerArg,
    /// A longer gradient is shortened to this; 0 for never
    #[arg(long, default_value_t = 1.0)]
    clip_norm: f64,
    /// Of the order of the data and of the first values
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Steps between checkpoints; 0 for the end only
    #[arg(long, value_name = "N", default_value_t = 50)]
    save_every: u64,
    /// Steps between evaluations on what was kept back; 0 for never
    #[arg(long, value_name = "N", default_value_t = 50)]
    evaluate_every: u64,
    /// Compute in f32: slow, and the reference
    #[arg(long)]
    pub(crate) f32: bool,
    /// Compute the MLPs' first half again instead of keeping it: less memory, more time
    #[arg(long)]
    pub(crate) save_memory: bool,
    /// Threads to compute with, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Compute only when nobody else wants to: idle priority for processor and disk
    #[arg(long)]
    pub(crate) background: bool,
    /// Most memory to allocate, in GiB; beyond it the run ends
    #[arg(long, value_name = "GIB")]
    pub(crate) memory: Option<f64>,
    /// End, with the state saved, when standard input does: for whoever starts this program and
    /// may go away without a word
    #[arg(long, hide = true)]
    pub(crate) attached: bool,
    /// Skip lines that cannot be used, and count them, instead of refusing the file
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
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
pub(crate) enum OptimizerArg {
    /// For all weights
    Adamw,
    /// Muon for the matrices of layers, AdamW for the rest; not for adapters
    Muon,
}

/// What a command sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    pub(crate) num_steps: u64,
    /// Of AdamW. Muon's follows from it and from the width.
    pub(crate) learning_rate: f64,
    /// Of the peak, where the decay ends.
    pub(crate) final_fraction: f64,
    pub(crate) adamw: AdamWSettings,
    /// Width of the model, for Muon.
    pub(crate) width: usize,
    /// Whether there is something to evaluate on.
    pub(crate) evaluates: bool,
    /// Fewest steps of warm-up.
    pub(crate) warmup_min: u64,
}

impl TrainingArgs {
    /// Makes this process what the arguments say, before it makes threads or takes memory.
    pub(crate) fn settle(&self, session: &Session) -> Outcome {
        if self.background {
            feilun_kernels::background::enter().doing(|| "cannot lower the priority".to_owned())?;
        }
        if let Some(gibibytes) = self.memory {
            machine::limit_memory(gibibytes)?;
        }
        if self.attached {
            session.interrupt.end_with_stdin()?;
        }
        Ok(())
    }

    pub(crate) fn threads(&self, session: &Session) -> Outcome<usize> {
        self.threads.map_or_else(|| machine::threads(&session.environment), |n| Ok(n.into()))
    }

    pub(crate) fn precision(&self) -> Precision {
        if self.f32 { Precision::F32 } else { Precision::Bf16 }
    }

    pub(crate) fn settings(&self, usual: Usual) -> TrainingSettings {
        let Usual { num_steps, learning_rate, final_fraction, adamw, .. } = usual;
        let usual_warmup = num_steps.div_ceil(33).max(usual.warmup_min).min(num_steps);
        let warmup_steps = self.warmup_steps.unwrap_or(usual_warmup);
        TrainingSettings {
            seed: self.seed,
            num_steps,
            learning_rate,
            warmup_steps,
            schedule: match self.schedule {
                ScheduleArg::Constant => Shape::Constant {},
                ScheduleArg::Linear => Shape::Linear { final_fraction },
                ScheduleArg::Cosine => Shape::Cosine { final_fraction },
                ScheduleArg::Wsd => {
                    let decay_steps = (num_steps / 5).min(num_steps.saturating_sub(warmup_steps));
                    Shape::WarmupStableDecay { decay_steps, final_fraction }
                }
            },
            optimizer: match self.optimizer {
                OptimizerArg::Adamw => OptimizerSettings::AdamW(adamw),
                OptimizerArg::Muon => OptimizerSettings::Muon(muon(adamw, usual.width)),
            },
            clip_norm: self.clip_norm,
            outliers: OutlierSettings { sigmas: 6.0, window: 128 },
            checkpoints: CheckpointSettings {
                every: self.save_every,
                keep_last: 2,
                keep_best: usual.evaluates,
                evaluate_every: if usual.evaluates { self.evaluate_every } else { 0 },
            },
        }
    }
}

/// Muon beside AdamW: matrices move as far, and lose as much of their weight.
fn muon(rest: AdamWSettings, width: usize) -> MuonSettings {
    let matrix_rate = depth::muon_rate(width);
    let weight_decay = rest.weight_decay / matrix_rate;
    MuonSettings { matrix_rate, weight_decay, rest, ..MuonSettings::default() }
}
