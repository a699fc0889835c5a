//! `cargo xtask bench infer`: our engine and llama.cpp on the same files, in alternation.

mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use serde_json::Value;

use crate::peer::{self, Build};
use crate::side_by_side::{self, Row, Samples};
use crate::{models, say};
use report::Report;

/// Measure decoding and prompt processing side by side with llama.cpp
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Model files to measure, by their test name
    #[arg(long, value_delimiter = ',', default_value = "smollm2,gemma3")]
    models: Vec<String>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Tests to run: all whose name begins like one of these
    #[arg(long, value_delimiter = ',', default_value = "prefill,decode,batch,depth")]
    tests: Vec<String>,
    /// Turns of each engine in each case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeat: u64,
    /// The feilun program; built in release mode where not given
    #[arg(long)]
    feilun: Option<PathBuf>,
    /// Measure only the peer
    #[arg(long, conflicts_with = "feilun")]
    peer_only: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One thing to measure. With tokens to generate it is a decode of `sequences` in parallel after
/// `depth` tokens of context each, else the processing of a prompt.
pub(crate) struct Case {
    pub(crate) test: &'static str,
    pub(crate) prompt_tokens: usize,
    pub(crate) generate_tokens: usize,
    pub(crate) sequences: usize,
    pub(crate) depth: usize,
}

const fn prefill(test: &'static str, prompt_tokens: usize) -> Case {
    Case { test, prompt_tokens, generate_tokens: 0, sequences: 1, depth: 0 }
}

const fn decode(
    test: &'static str,
    generate_tokens: usize,
    sequences: usize,
    depth: usize,
) -> Case {
    Case { test, prompt_tokens: 0, generate_tokens, sequences, depth }
}

/// The cases of the project's goals for speed.
const CASES: [Case; 7] = [
    prefill("prefill-512", 512),
    decode("decode", 128, 1, 0),
    decode("batch-2", 48, 2, 16),
    decode("batch-4", 48, 4, 16),
    decode("batch-16", 48, 16, 16),
    decode("depth-128", 32, 1, 128),
    decode("depth-4096", 32, 1, 4096),
];

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = models::fetch()?;
    let feilun = match arguments.peer_only {
        true => None,
        false => Some(side_by_side::feilun(arguments.feilun.as_deref())?),
    };
    let builds = peer::set_up()?;
    let mut report = Report::new();
    for model in &arguments.models {
        let path = folder.join(format!("{model}.gguf"));
        if !path.exists() {
            bail!("no model `{model}`: {} does not exist", path.display());
        }
        for &threads in &arguments.threads {
            for case in CASES.iter().filter(|case| arguments.wants(case)) {
                say(&format!("{model}, {threads} threads, {}", case.test));
                let samples =
                    alternate(arguments, feilun.as_deref(), &builds, &path, threads, case);
                report.rows.push(Row {
                    model: model.clone(),
                    threads,
                    test: case.test,
                    samples: samples?,
                });
            }
        }
    }
    let text = if arguments.json { report.json()? } else { report.table() };
    crate::say_to_stdout(&text);
    Ok(())
}

impl Arguments {
    fn wants(&self, case: &Case) -> bool {
        self.tests.iter().any(|test| case.test.starts_with(test.as_str()))
    }
}

/// Ours, each variant of the peer, ours, and so on.
fn alternate(
    arguments: &Arguments,
    feilun: Option<&Path>,
    builds: &[Build],
    model: &Path,
    threads: usize,
    case: &Case,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..arguments.repeat {
        if let Some(feilun) = feilun {
            samples.add_ours(measure_ours(feilun, model, threads, case)?)?;
        }
        for build in builds {
            for variant in Build::variants(case) {
                let name = format!("{} {variant}", build.name);
                match build.measure(model, threads, case, variant) {
                    Ok(speed) => samples.add_peer(&name, speed),
                    Err(error) => say(&format!("{} {name}: {error:#}", peer::PEER.name)),
                }
            }
        }
    }
    Ok(samples)
}

/// What `feilun bench infer` says of one run.
fn measure_ours(feilun: &Path, model: &Path, threads: usize, case: &Case) -> anyhow::Result<Value> {
    let mut command = Command::new(feilun);
    command.args(["bench", "infer", "--json", "--repeat", "1", "--model"]).arg(model);
    for (flag, number) in [
        ("--threads", threads),
        ("--prompt-tokens", case.prompt_tokens),
        ("--generate-tokens", case.generate_tokens),
        ("--sequences", case.sequences),
        ("--depth", case.depth),
    ] {
        command.args([flag, &number.to_string()]);
    }
    side_by_side::json_of(&mut command)
}
