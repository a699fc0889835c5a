//! `feilun bench train`: the speed of whole training steps.

use clap::ValueEnum;
use feilun_kernels::Pool;
use feilun_kernels::gemm::Precision;
use feilun_model::ModelFiles;
use feilun_model::train::{LoraOptions, Method, Trainee, TraineeOptions};
use feilun_train::bench::{StepSeconds, TrainTest, train_seconds};
use serde::Serialize;

use crate::commands::Session;
use crate::failure::Outcome;
use crate::{machine, output, resolve};

/// Measure training steps on made-up tokens: forward, backward, clipping, AdamW
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// An installed model, a digest's beginning, or a path
    #[arg(long)]
    model: Option<String>,
    /// What is trained
    #[arg(long, value_enum, default_value_t = MethodArg::Full)]
    method: MethodArg,
    /// LoRA: width of the adapter
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,
    /// Sequences of a step
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    sequences: u16,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    tokens: u32,
    /// Steps to measure, after one that warms up; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Compute in f32 instead of bf16
    #[arg(long)]
    f32: bool,
    /// Compute the MLPs' first half again instead of keeping it
    #[arg(long)]
    save_memory: bool,
    /// Threads to compute with [default: FEILUN_THREADS, or one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// All weights
    Full,
    /// A low-rank adapter beside every linear layer
    Lora,
}

#[derive(Serialize)]
struct Report {
    test: &'static str,
    model: String,
    threads: usize,
    isa: &'static str,
    sequences: u16,
    tokens: u32,
    /// Of the median step.
    tokens_per_second: f64,
    step_seconds: Vec<f64>,
    /// Share of the median step in clipping and AdamW.
    optimizer_share: f64,
    peak_memory_bytes: Option<u64>,
}

pub(crate) fn run(args: &TrainArgs, session: &Session) -> Outcome {
    let threads = super::threads(args.threads, session)?;
    let path = resolve::find(session, args.model.as_deref())?.path;
    let isa = machine::isa(&session.environment)?;
    let test = TrainTest {
        sequences: args.sequences.into(),
        tokens: args.tokens as usize,
        steps: args.steps.into(),
    };
    let is_lora = args.method == MethodArg::Lora;
    let rank = usize::from(args.rank);
    let lora = LoraOptions { rank, alpha: 32.0, targets: LoraOptions::ALL_LINEAR.to_vec() };
    let options = TraineeOptions {
        method: if is_lora { Method::Lora(lora) } else { Method::Full },
        precision: if args.f32 { Precision::F32 } else { Precision::Bf16 },
        isa,
        max_tokens: test.sequences * test.tokens,
        recompute_mlp: args.save_memory,
    };
    let files = ModelFiles::open(&path)?;
    let mut trainee = Trainee::open(&files, Pool::new(threads)?, &options)?;
    if is_lora {
        trainee.initialize_adapter(0);
    }
    let mut steps: Vec<StepSeconds> = train_seconds(&mut trainee, test)?;
    let step_seconds = steps.iter().map(|step| step.total).collect();
    steps.sort_by(|a, b| a.total.total_cmp(&b.total));
    let median = steps[steps.len() / 2];
    let report = Report {
        test: if is_lora { "lora" } else { "full" },
        model: path.display().to_string(),
        threads,
        isa: isa.name(),
        sequences: args.sequences,
        tokens: args.tokens,
        tokens_per_second: (test.sequences * test.tokens) as f64 / median.total,
        step_seconds,
        optimizer_share: median.optimizer / median.total,
        peak_memory_bytes: machine::peak_memory(),
    };
    if args.json {
        return output::json(&report);
    }
    output::data(format!(
        "{} {} x {}: {:.0} tokens/s, {threads} threads, {}; the optimizer takes {:.1} %; {} of \
         memory",
        report.test,
        args.sequences,
        args.tokens,
        report.tokens_per_second,
        report.isa,
        100.0 * report.optimizer_share,
        report.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), output::bytes)
    ))
}
