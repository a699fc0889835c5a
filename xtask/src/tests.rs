//! `cargo xtask test`: all tests, with the model files and the PostgreSQL that some of them need.

use crate::{cargo, models, postgres, run};

/// Runs `cargo test --workspace` with `extra` arguments, after the model files are there and
/// PostgreSQL answers.
pub(crate) fn run_with_models(extra: &[String]) -> anyhow::Result<()> {
    let folder = models::fetch()?;
    let postgres = postgres::Server::ready()?;
    let mut command = cargo(&["test", "--locked"]);
    // `-p CRATE` and `--workspace` exclude each other.
    if !extra.iter().any(|arg| arg == "-p" || arg == "--package") {
        command.arg("--workspace");
    }
    command.env(models::FOLDER_VARIABLE, folder).env(postgres::URL_VARIABLE, postgres.url());
    run(command.args(extra))
}
