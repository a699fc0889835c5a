//! `feilun bench`: how fast this machine runs or trains a model, or the kernels or the server alone.

mod gemm;
mod serve;
mod train;

use std::sync::Arc;
use std::time::Duration;

use feilun_kernels::bench::matmul_rate;
use feilun_kernels::{BlockType, Pool, machine as kernel_machine};
use feilun_model::bench::{InferTest, infer_seconds};
use feilun_model::{Model, ModelFiles, Session as ModelSession, SessionOptions};
use serde::Serialize;

use crate::commands::Session;
use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::output;
use crate::resolve;

/// Measure how fast this machine runs or trains a model, or the kernels alone
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  feilun bench infer --model smollm2-135m-instruct
  feilun bench infer --prompt-tokens 512 --generate-tokens 0 --json
  feilun bench train --method lora --sequences 4 --tokens 512
  feilun bench serve --rate 200
  feilun bench kernels --type Q4_K
  feilun bench kernels --gemm")]
pub(crate) enum Bench {
    Infer(InferArgs),
    Train(train::TrainArgs),
    Serve(serve::ServeArgs),
    Kernels(KernelArgs),
}

/// Measure a model: reading a prompt (no tokens to generate), or generating
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// An installed model, a digest's beginning, or a path
    #[arg(long)]
    model: Option<String>,
    /// Threads to compute with [default: FEILUN_THREADS, or one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Tokens of each sequence's prompt
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    prompt_tokens: u32,
    /// Tokens to generate for each sequence; 0 measures the prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    generate_tokens: u32,
    /// Sequences that are computed together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    sequences: u16,
    /// Tokens of context before the measurement
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    depth: u32,
    /// Runs; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Measure the matrix kernels for each storage type
#[derive(Debug, clap::Args)]
pub(crate) struct KernelArgs {
    /// One storage type only, such as Q4_K
    #[arg(long = "type")]
    block_type: Option<String>,
    /// The matrix multiply of training instead
    #[arg(long, conflicts_with = "block_type")]
    gemm: bool,
    /// Threads to compute with [default: FEILUN_THREADS, or one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(bench: &Bench, session: &Session) -> Outcome {
    match bench {
        Bench::Infer(args) => infer(args, session),
        Bench::Train(args) => train::run(args, session),
        Bench::Serve(args) => serve::run(args, session),
        Bench::Kernels(args) => kernels(args, session),
    }
}

fn threads(args: Option<u16>, session: &Session) -> Outcome<usize> {
    args.map_or_else(|| machine::threads(&session.environment), |threads| Ok(threads.into()))
}

#[derive(Serialize)]
struct InferReport {
    test: &'static str,
    model: String,
    threads: usize,
    isa: &'static str,
    prompt_tokens: u32,
    generate_tokens: u32,
    sequences: u16,
    depth: u32,
    /// Median over the runs.
    tokens_per_second: f64,
    tokens_per_second_min: f64,
    tokens_per_second_max: f64,
    /// Weights that a decoding step reads, in 10⁹ bytes a second, and what the memory can give.
    weight_gigabytes_per_second: Option<f64>,
    memory_gigabytes_per_second: Option<f64>,
    /// Matrix operations of a prompt, in 10⁹ a second, and the peak of the 8-bit dot product.
    matrix_gigaops: Option<f64>,
    int8_peak_gigaops: Option<f64>,
}

fn infer(args: &InferArgs, session: &Session) -> Outcome {
    let test = InferTest {
        prompt_tokens: args.prompt_tokens as usize,
        generate_tokens: args.generate_tokens as usize,
        sequences: args.sequences.into(),
        depth: args.depth as usize,
    };
    if test.timed_tokens() == 0 {
        return Err(Failure::usage("there is nothing to measure: no prompt, nothing to generate"));
    }
    let num_threads = threads(args.threads, session)?;
    let path = resolve::find(session, args.model.as_deref())?.path;
    let files = ModelFiles::open(&path)?;
    let mut pool = Pool::new(num_threads)?;
    let model = Arc::new(Model::load(&files, &mut pool)?);
    let mut options = SessionOptions::new(files.config());
    options.kernels = machine::kernels(session, &mut pool)?;
    let isa = options.kernels.isa();
    options.num_blocks = test.num_blocks();
    options.max_rows = options.max_rows.max(test.sequences);
    options.max_logit_rows = options.max_logit_rows.max(test.sequences);
    let mut engine = ModelSession::new(Arc::clone(&model), pool, options)?;
    // The first run warms caches, page tables and the clock of the processor.
    infer_seconds(&mut engine, &test)?;
    let mut rates = Vec::new();
    for _ in 0..args.repeat {
        rates.push(test.timed_tokens() as f64 / infer_seconds(&mut engine, &test)?);
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    drop(engine);

    let is_prompt = test.generate_tokens == 0;
    let steps_per_second = median / test.sequences as f64;
    let peak = kernel_machine::measure_peak_rates(isa, Duration::from_millis(100));
    let report = InferReport {
        test: if is_prompt { "prefill" } else { "decode" },
        model: path.display().to_string(),
        threads: num_threads,
        isa: isa.name(),
        prompt_tokens: args.prompt_tokens,
        generate_tokens: args.generate_tokens,
        sequences: args.sequences,
        depth: args.depth,
        tokens_per_second: median,
        tokens_per_second_min: rates[0],
        tokens_per_second_max: rates[rates.len() - 1],
        weight_gigabytes_per_second: (!is_prompt)
            .then(|| steps_per_second * model.decode_bytes() as f64 / 1e9),
        memory_gigabytes_per_second: if is_prompt { None } else { Some(memory(num_threads)?) },
        matrix_gigaops: is_prompt.then(|| median * model.layer_operations() as f64 / 1e9),
        int8_peak_gigaops: peak
            .and_then(|peak| peak.int8_dot)
            .filter(|_| is_prompt)
            .map(|rate| rate * num_threads as f64 / 1e9),
    };
    if args.json {
        return output::json(&report);
    }
    output::data(format!(
        "{} {}: {median:.1} tokens/s ({:.1} to {:.1} in {} runs), {num_threads} threads, {}",
        report.test, report.model, rates[0], report.tokens_per_second_max, args.repeat, report.isa
    ))?;
    if let (Some(found), Some(roof)) =
        (report.weight_gigabytes_per_second, report.memory_gigabytes_per_second)
    {
        let share = 100.0 * found / roof;
        output::data(format!("weights read at {found:.1} of {roof:.1} GB/s ({share:.0} %)"))?;
    }
    if let (Some(found), Some(roof)) = (report.matrix_gigaops, report.int8_peak_gigaops) {
        let share = 100.0 * found / roof;
        output::data(format!(
            "matrices at {found:.0} Gop/s, {share:.0} % of the peak of 8-bit products ({roof:.0}; \
             activations of 14 bits take two)"
        ))?;
    }
    Ok(())
}

/// What the memory gives to so many threads, in 10⁹ bytes a second.
fn memory(threads: usize) -> Outcome<f64> {
    Ok(kernel_machine::measure_memory_bandwidth(threads, Duration::from_millis(300))? / 1e9)
}

#[derive(Serialize)]
struct KernelReport {
    block_type: &'static str,
    threads: usize,
    isa: &'static str,
    rows: usize,
    outputs: usize,
    inputs: usize,
    gigaops: f64,
    weight_gigabytes_per_second: f64,
}

fn kernels(args: &KernelArgs, session: &Session) -> Outcome {
    /// More than the last-level caches of the machines that this is for.
    const COLD_BYTES: usize = 100 << 20;
    let types: Vec<BlockType> = BlockType::ALL
        .into_iter()
        .filter(|block_type| {
            args.block_type.as_deref().is_none_or(|name| name == block_type.name())
        })
        .collect();
    if types.is_empty() {
        let known = BlockType::ALL.map(BlockType::name).join(", ");
        return Err(Failure::usage(format!("there is no such type; known are {known}")));
    }
    let isa = machine::isa(&session.environment)?;
    let num_threads = threads(args.threads, session)?;
    let mut pool = Pool::new(num_threads)?;
    if args.gemm {
        return gemm::gemm(&mut pool, isa, args.json);
    }
    let mut reports = Vec::new();
    for block_type in types {
        for rows in [1, 2, 4, 8, 16, 128] {
            let (outputs, inputs) = (1536, 768);
            let shape = (rows, outputs, inputs);
            let rate = matmul_rate(&mut pool, isa, block_type, shape, COLD_BYTES, 0.1)?;
            let report = KernelReport {
                block_type: block_type.name(),
                threads: num_threads,
                isa: isa.name(),
                rows,
                outputs,
                inputs,
                gigaops: rate.gops,
                weight_gigabytes_per_second: rate.gigabytes,
            };
            if !args.json {
                output::data(format!(
                    "{:5} {rows:4} rows x {outputs} x {inputs}: {:7.1} Gop/s, weights at {:5.1} GB/s",
                    report.block_type, rate.gops, rate.gigabytes
                ))?;
            }
            reports.push(report);
        }
    }
    if args.json { output::json(&reports) } else { Ok(()) }
}
