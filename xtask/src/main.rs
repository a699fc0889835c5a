//! The project's own chores: the one check command, the tests and the model files they need.
//!
//! Start it as `cargo xtask COMMAND`. It knows the workspace, never the inside of a crate.

mod arrows;
mod bench_infer;
mod bench_serve;
mod bench_steady;
mod bench_train;
mod ci;
mod clients;
mod dependencies;
mod lm_eval;
mod metadata;
mod models;
mod peer;
mod postgres;
mod server;
mod side_by_side;
mod tests;

use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use anyhow::{Context as _, bail};
use clap::Parser;

/// Checks and measurements of the Feilun workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Run every check, cheapest first, and stop at the first that fails
    Ci,
    /// Fetch the model files and start the PostgreSQL that tests need, then run all tests and
    /// doc tests
    Test {
        /// Arguments for `cargo test --workspace`, such as `-p feilun-text` or a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fetch the model files that tests need and print their folder
    Models,
    /// Ask a real server with OpenAI's own client and with schemathesis, both fetched with pip
    Clients,
    /// Score a real server with EleutherAI's lm-eval, fetched with pip
    LmEval,
    /// Measure side by side with other engines
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(clap::Subcommand)]
enum Bench {
    Infer(bench_infer::Arguments),
    Serve(bench_serve::Arguments),
    Steady(bench_steady::Arguments),
    Train(bench_train::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse() {
        Xtask::Ci => ci::run_all(),
        Xtask::Test { args } => tests::run_with_models(&args),
        Xtask::Bench(Bench::Infer(arguments)) => bench_infer::run(&arguments),
        Xtask::Bench(Bench::Serve(arguments)) => bench_serve::run(&arguments),
        Xtask::Bench(Bench::Steady(arguments)) => bench_steady::run(&arguments),
        Xtask::Bench(Bench::Train(arguments)) => bench_train::run(&arguments),
        Xtask::Clients => clients::run_all(),
        Xtask::LmEval => lm_eval::run_all(),
        Xtask::Models => models::fetch().map(|folder| say_to_stdout(&folder.display().to_string())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The cargo that started us, so that a toolchain override holds for what we start.
static CARGO: LazyLock<String> =
    LazyLock::new(|| std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));

/// A cargo command in the workspace's root.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(&*CARGO);
    command.args(args).current_dir(metadata::workspace_root());
    command
}

/// Runs `command` to its end; an error names it and its exit status.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[expect(clippy::print_stderr, reason = "the one place where xtask talks")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "the one place where xtask prints data")]
fn say_to_stdout(line: &str) {
    println!("{line}");
}
