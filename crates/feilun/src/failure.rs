//! How a command fails: what kind of failure, its cause, and hints on what to do.
//! The kind alone picks the exit code.

use std::fmt::Display;
use std::io::ErrorKind;

use crate::output;

/// The result of everything that can end a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The work could not be done.
    Failed,
    /// The command line or the configuration is wrong; nothing was touched.
    Usage,
    /// A gate or a guard said no.
    Refused,
    /// The user broke it off.
    Interrupted,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::Interrupted => crate::interrupt::EXIT_CODE,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Kind::Failed => "error",
            Kind::Usage => "usage error",
            Kind::Refused => "refused",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// A failure on its way to the top.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
}

impl Failure {
    pub(crate) fn failed(message: impl Display) -> Failure {
        Failure { kind: Kind::Failed, error: anyhow::anyhow!("{message}"), hints: Vec::new() }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure { kind: Kind::Usage, ..Failure::failed(message) }
    }

    pub(crate) fn refused(message: impl Display) -> Failure {
        Failure { kind: Kind::Refused, ..Failure::failed(message) }
    }

    pub(crate) fn interrupted(message: impl Display) -> Failure {
        Failure { kind: Kind::Interrupted, ..Failure::failed(message) }
    }

    /// The same as a mistake of the command line or of a file that it names.
    pub(crate) fn into_usage(self) -> Failure {
        Failure { kind: Kind::Usage, ..self }
    }

    /// Adds a line that says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Display) -> Failure {
        self.hints.push(hint.to_string());
        self
    }

    /// Puts what was being done in front of the cause.
    pub(crate) fn context(mut self, doing: impl Display) -> Failure {
        self.error = self.error.context(doing.to_string());
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells of a failure that another way may mend, and returns it as a hint for later.
    pub(crate) fn tell_and_go_on(self, next: &str) -> String {
        output::talk(format!("{} {self}", output::yellow("warning:")));
        output::talk(format!("  {next}"));
        format!("before that, {self}")
    }

    /// Whether the reader of our output went away, as `head` does: no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let io = self.error.root_cause().downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    }

    /// What went wrong and each of its causes, without those that the line before ends with.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for cause in self.error.chain().map(ToString::to_string) {
            if !lines.last().is_some_and(|said| said.ends_with(&cause)) {
                lines.push(cause);
            }
        }
        lines
    }

    /// Prints the failure to stderr: one line for what, one for each cause, one for each hint.
    pub(crate) fn report(&self) {
        let label = output::red(&format!("{}:", self.kind.label()));
        let mut lines = self.lines().into_iter();
        output::talk(format!("{label} {}", lines.next().unwrap_or_default()));
        for cause in lines {
            output::talk(format!("  cause: {cause}"));
        }
        for hint in &self.hints {
            output::talk(format!("  hint: {hint}"));
        }
    }
}

/// What went wrong and why, on one line.
impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines().join(": "))
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { kind: Kind::Failed, error: error.into(), hints: Vec::new() }
    }
}

/// `context` and `hint` on results, for the way up.
pub(crate) trait OutcomeExt<T> {
    /// Says what was being done when it failed.
    fn doing(self, doing: impl FnOnce() -> String) -> Outcome<T>;
    /// Says what to do about it.
    fn hint(self, hint: impl Display) -> Outcome<T>;
}

impl<T, E: Into<Failure>> OutcomeExt<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| error.into().context(doing()))
    }

    fn hint(self, hint: impl Display) -> Outcome<T> {
        self.map_err(|error| error.into().hint(hint))
    }
}
