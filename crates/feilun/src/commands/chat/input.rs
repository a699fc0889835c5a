//! Lines from the user: edited at a terminal, plain from anywhere else.

use std::io::{BufRead as _, IsTerminal as _, StdinLock};

use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, history::History as _};

use crate::failure::Outcome;
use crate::output;

/// What the user did.
pub(super) enum Line {
    Text(String),
    /// Twice Ctrl-C at an empty prompt.
    Interrupted,
    End,
}

/// Where lines come from.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(StdinLock<'static>),
}

const PROMPT: &str = "> ";

impl Input {
    pub(super) fn open() -> Outcome<Input> {
        if std::io::stdin().is_terminal() && output::is_interactive() {
            let mut editor = DefaultEditor::new()?;
            editor.history_mut().ignore_dups(true)?;
            return Ok(Input::Terminal(Box::new(editor)));
        }
        Ok(Input::Pipe(std::io::stdin().lock()))
    }

    pub(super) fn line(&mut self) -> Outcome<Line> {
        match self {
            Input::Terminal(editor) => edited_line(editor),
            Input::Pipe(stdin) => {
                let mut line = String::new();
                if stdin.read_line(&mut line)? == 0 { Ok(Line::End) } else { Ok(Line::Text(line)) }
            }
        }
    }
}

fn edited_line(editor: &mut DefaultEditor) -> Outcome<Line> {
    let mut was_interrupted = false;
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                editor.add_history_entry(line.as_str())?;
                return Ok(Line::Text(line));
            }
            Err(ReadlineError::Eof) => return Ok(Line::End),
            Err(ReadlineError::Interrupted) if was_interrupted => return Ok(Line::Interrupted),
            Err(ReadlineError::Interrupted) => {
                was_interrupted = true;
                output::talk("(Ctrl-C again, or /quit, to leave)");
            }
            Err(error) => return Err(error.into()),
        }
    }
}
