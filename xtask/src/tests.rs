//! `cargo xtask test`: all tests, with the model files that some of them need.

use crate::{cargo, models, run};

/// Runs `cargo test --workspace` with `extra` arguments, after the model files are there.
pub(crate) fn run_with_models(extra: &[String]) -> anyhow::Result<()> {
    let folder = models::fetch()?;
    let mut command = cargo(&["test", "--locked"]);
    // `-p CRATE` and `--workspace` exclude each other.
    if !extra.iter().any(|arg| arg == "-p" || arg == "--package") {
        command.arg("--workspace");
    }
    run(command.args(extra).env(models::FOLDER_VARIABLE, folder))
}
