//! `cargo xtask ci`: every check, cheapest first, with the time each took.

use std::time::Instant;

use anyhow::Context as _;

use crate::{arrows, cargo, dependencies, run, say, tests};

type Check = fn() -> anyhow::Result<()>;

/// The tests come last: they cost most, and a runner's closing lines then close the output.
const CHECKS: [(&str, Check); 7] = [
    ("format", format),
    ("arrows", arrows::check),
    ("licences and dependencies", dependencies::check),
    ("clippy", clippy),
    ("rustdoc", rustdoc),
    ("build", build),
    ("tests and doc tests", all_tests),
];

pub(crate) fn run_all() -> anyhow::Result<()> {
    let start = Instant::now();
    for (index, (name, check)) in CHECKS.iter().enumerate() {
        say(&format!("== {}/{} {name}", index + 1, CHECKS.len()));
        let step_start = Instant::now();
        check().with_context(|| format!("ci: check `{name}` failed"))?;
        say(&format!("== {name}: ok, {:.1} s", step_start.elapsed().as_secs_f64()));
    }
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("ci: all {} checks passed in {seconds:.0} s", CHECKS.len()));
    Ok(())
}

fn format() -> anyhow::Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> anyhow::Result<()> {
    run(&mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn rustdoc() -> anyhow::Result<()> {
    let mut command = cargo(&["doc", "--locked", "--workspace", "--no-deps"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn build() -> anyhow::Result<()> {
    run(&mut cargo(&["build", "--locked", "--workspace"]))
}

fn all_tests() -> anyhow::Result<()> {
    tests::run_with_models(&[])
}
