//! The commands, one file each.

mod doctor;
mod models;
mod pull;

use std::path::PathBuf;

use clap::Subcommand;

use crate::data_dir::DataDir;
use crate::environment::Environment;
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(pull::Args),
    Models(models::Args),
    Doctor(doctor::Args),
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) data: DataDir,
    pub(crate) environment: Environment,
}

impl Session {
    /// `data` is what `--data` said.
    pub(crate) fn new(data: Option<PathBuf>, environment: Environment) -> Outcome<Session> {
        let path = data.map_or_else(|| environment.default_data_dir(), Ok)?;
        Ok(Session { data: DataDir::new(path), environment })
    }
}

pub(crate) fn run(command: Command, session: &Session) -> Outcome {
    match command {
        Command::Pull(args) => pull::run(&args, session),
        Command::Models(args) => models::run(args, session),
        Command::Doctor(args) => doctor::run(&args, session),
    }
}
