//! A look at a file of examples before anybody knows which model it is for: line by line as
//! training reads it, but for what only a tokenizer and a chat template can tell.

use std::io::{self, BufRead, BufReader, Read};

use super::error::LineProblem;
use super::example::{Example, Shape};
use super::examples::{BYTE_ORDER_MARK, ReadOptions};
use super::lines::Lines;

/// What a file of examples holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What each line holds.
    pub shape: Shape,
    /// Lines that are examples.
    pub num_examples: u64,
}

/// Why a file is none of examples.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum InspectError {
    #[error("cannot read the file")]
    Read(#[from] io::Error),
    #[error("line {line}: {problem}")]
    Line { line: u64, problem: LineProblem },
    #[error("no examples: expected at least one line with {expected}")]
    Empty { expected: &'static str },
}

/// Checks every line of a file. Without a shape, the first line's keys say which is meant.
///
/// # Errors
/// At the first line that is no example of the shape.
pub fn inspect(file: impl Read, shape: Option<Shape>) -> Result<Inspection, InspectError> {
    let limit = ReadOptions::new(Shape::Chat).line_bytes_max;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 18, file), limit);
    let (mut shape, mut num_examples, mut buffer) = (shape, 0, Vec::new());
    while let Some((number, start)) = next_example(&mut lines, limit, &mut buffer)? {
        let line = &buffer[start..];
        let of_line = shape.unwrap_or_else(|| Shape::of_line(line));
        Example::parse(line, of_line)
            .map_err(|problem| InspectError::Line { line: number, problem })?;
        shape = Some(of_line);
        num_examples += 1;
    }
    let expected = shape.unwrap_or(Shape::Chat);
    if num_examples == 0 {
        return Err(InspectError::Empty { expected: expected.describe() });
    }
    Ok(Inspection { shape: expected, num_examples })
}

/// The number of the next line with something in it, and where in the buffer that begins.
fn next_example(
    lines: &mut Lines<impl BufRead>,
    limit: usize,
    buffer: &mut Vec<u8>,
) -> Result<Option<(u64, usize)>, InspectError> {
    loop {
        let Some(line) = lines.next(buffer)? else { return Ok(None) };
        if line.num_bytes > buffer.len() as u64 {
            let problem = LineProblem::TooLong { found: line.num_bytes, limit };
            return Err(InspectError::Line { line: line.number, problem });
        }
        let is_marked = line.number == 1 && buffer.starts_with(BYTE_ORDER_MARK);
        let start = if is_marked { BYTE_ORDER_MARK.len() } else { 0 };
        if !buffer[start..].trim_ascii().is_empty() {
            return Ok(Some((line.number, start)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str =
        r#"{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}"#;
    const PAIR: &str = r#"{"prompt":"p","chosen":"c","rejected":"r"}"#;

    fn found(text: &str, shape: Option<Shape>) -> Result<Inspection, String> {
        inspect(text.as_bytes(), shape).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_line_says_what_is_meant_and_all_are_read() {
        let chats = format!("\u{feff}{CHAT}\n\n  \n{CHAT}");
        let expected = Inspection { shape: Shape::Chat, num_examples: 2 };
        assert_eq!(found(&chats, None), Ok(expected));
        assert_eq!(found(&format!("{PAIR}\r\n"), None).unwrap().shape, Shape::Pairs);
        let label = r#"{"prompt":"p","completion":"c","label":true}"#;
        assert_eq!(found(label, None).unwrap().shape, Shape::Answers);
        let openai = r#"{"input":{"messages":[{"role":"user","content":"p"}]},
            "preferred_output":[{"role":"assistant","content":"c"}],
            "non_preferred_output":[{"role":"assistant","content":"r"}]}"#;
        let openai = openai.replace('\n', "");
        assert_eq!(found(&openai, None).unwrap().shape, Shape::Pairs);
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let mixed = format!("{CHAT}\n\n{PAIR}\n");
        assert!(found(&mixed, None).unwrap_err().starts_with("line 3: found the keys"));
        assert!(found(PAIR, Some(Shape::Chat)).unwrap_err().starts_with("line 1: found the keys"));
        assert!(found("{\"messages\":", None).unwrap_err().starts_with("line 1: not JSON"));
        for empty in ["", "\n \n", "\u{feff}"] {
            assert!(found(empty, None).unwrap_err().starts_with("no examples"), "{empty:?}");
        }
        let long = "x".repeat((8 << 20) + 1);
        assert!(found(&long, None).unwrap_err().contains("bytes long"));
    }
}
