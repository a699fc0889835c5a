//! A run in a process of its own: this test program, started again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use feilun_train::run::{Outcome, Record};

use crate::trial::Trial;

const ROOT: &str = "FEILUN_TEST_RUN";

/// The arguments that make this program a child.
pub(crate) const ARGUMENTS: [&str; 4] =
    ["--exact", "child::child_process", "--ignored", "--nocapture"];

/// Trains in the directory that the environment names, and says how it goes.
#[test]
#[ignore = "the other tests start it as a child process"]
fn child_process() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut trial = Trial::new(Path::new(&root));
    let outcome = trial.go(|record| {
        if let Record::Step(step) = record {
            println!("child: step {}", step.step);
        }
    });
    match outcome {
        Ok((Outcome::Finished(summary), _)) => println!("child: digest {}", summary.values_digest),
        Ok((other, _)) => println!("child: {other:?}"),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            println!("child: error {error}: {}", source.unwrap_or_default());
        }
    }
}

/// A command that becomes a child working in `root`.
pub(crate) fn command(root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS);
    for_run(&mut command, root);
    command
}

/// Says where the child works.
pub(crate) fn for_run(command: &mut Command, root: &Path) {
    command.env(ROOT, root).stdout(Stdio::piped()).stderr(Stdio::null());
}

/// A child that trains, with what it says.
pub(crate) struct Training {
    pub(crate) process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Training {
    pub(crate) fn start(root: &Path) -> Training {
        let mut process = command(root).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Training { process, lines }
    }

    /// What it says next; nothing at its end.
    pub(crate) fn next(&mut self) -> Option<String> {
        // The first line shares its line with the name of the test.
        let said = |line: String| line.split_once("child: ").map(|(_, said)| said.to_owned());
        self.lines.by_ref().map_while(Result::ok).find_map(said)
    }

    /// Waits for a step.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, step: u64) {
        let number = |said: &str| said.strip_prefix("step ")?.parse::<u64>().ok();
        while let Some(said) = self.next() {
            if number(&said).is_some_and(|found| found >= step) {
                return;
            }
        }
        panic!("the child ended before step {step}");
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
