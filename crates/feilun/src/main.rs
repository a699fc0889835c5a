//! `feilun`: the command line. One file per command in [`commands`]; the rest is what commands
//! share. It knows files, the network and the terminal; the engine's crates know none of them.

mod catalog;
mod cli;
mod commands;
mod data_dir;
mod engine;
mod environment;
mod failure;
mod generation;
mod interrupt;
mod kernel_choice;
mod machine;
mod manifest;
mod model_name;
mod output;
mod pull;
mod resolve;
mod save_model;
mod shelf;
mod store;
mod stored_model;
mod trainer;
mod training;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::environment::Environment;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = Environment::read();
    match run(cli, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.kind().exit_code())
        }
    }
}

fn run(cli: Cli, environment: Environment) -> failure::Outcome {
    let interrupt = interrupt::Interrupt::install()?;
    let data = cli.command.data_dir(cli.data);
    let session = commands::Session::new(data, environment, interrupt)?;
    commands::run(cli.command, &session)
}
