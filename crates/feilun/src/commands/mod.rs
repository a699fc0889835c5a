//! The commands, one file each.

mod bench;
mod chat;
mod complete;
mod doctor;
mod eval;
mod export;
mod forget;
mod keys;
mod models;
mod pretrain;
mod pull;
mod quantize;
mod runs;
mod score;
pub(crate) mod tune;
mod up;

use std::path::PathBuf;

use clap::Subcommand;

use crate::data_dir::DataDir;
use crate::environment::Environment;
use crate::failure::Outcome;
use crate::interrupt::Interrupt;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(up::Args),
    Chat(chat::Args),
    Complete(complete::Args),
    Score(score::Args),
    Eval(eval::Args),
    Tune(tune::Args),
    Pretrain(pretrain::Args),
    Pull(pull::Args),
    Models(models::Args),
    Runs(runs::Args),
    Keys(keys::Args),
    Forget(forget::Args),
    Export(export::Args),
    Quantize(quantize::Args),
    #[command(subcommand)]
    Bench(bench::Bench),
    Doctor(doctor::Args),
}

impl Command {
    /// The data directory that the command line names. Where training data are the matter,
    /// `--data` names those, and `--data-dir` the directory.
    pub(crate) fn data_dir(&self, data: Option<PathBuf>) -> Option<PathBuf> {
        match self {
            Command::Tune(args) => args.training.data_dir.clone(),
            Command::Pretrain(args) => args.training.data_dir.clone(),
            _ => data,
        }
    }
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) data: DataDir,
    pub(crate) environment: Environment,
    pub(crate) interrupt: Interrupt,
}

impl Session {
    /// `data` is what `--data` said.
    pub(crate) fn new(
        data: Option<PathBuf>,
        environment: Environment,
        interrupt: Interrupt,
    ) -> Outcome<Session> {
        let path = data.map_or_else(|| environment.default_data_dir(), Ok)?;
        Ok(Session { data: DataDir::new(path), environment, interrupt })
    }
}

pub(crate) fn run(command: Command, session: &Session) -> Outcome {
    match command {
        Command::Up(args) => up::run(args, session),
        Command::Chat(args) => chat::run(args, session),
        Command::Complete(args) => complete::run(&args, session),
        Command::Score(args) => score::run(&args, session),
        Command::Eval(args) => eval::run(args, session),
        Command::Tune(args) => tune::run(&args, session),
        Command::Pretrain(args) => pretrain::run(&args, session),
        Command::Pull(args) => pull::run(&args, session),
        Command::Models(args) => models::run(args, session),
        Command::Runs(args) => runs::run(args, session),
        Command::Keys(args) => keys::run(args, session),
        Command::Forget(args) => forget::run(&args, session),
        Command::Export(args) => export::run(&args, session),
        Command::Quantize(args) => quantize::run(&args, session),
        Command::Bench(bench) => bench::run(&bench, session),
        Command::Doctor(args) => doctor::run(&args, session),
    }
}
