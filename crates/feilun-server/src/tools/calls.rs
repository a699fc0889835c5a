//! Finds calls in an answer while it is written: text is passed on, a call when it is whole.

use serde_json::Value;

use super::{CLOSE, OPEN};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Call {
        name: String,
        /// A JSON object, written as a text.
        arguments: String,
    },
}

/// Reads one answer.
#[derive(Debug, Default)]
pub(crate) struct CallParser {
    /// What is not decided yet: the beginning of a tag, or a call that is not whole.
    held: String,
    in_call: bool,
    num_calls: usize,
}

impl CallParser {
    /// Reads on.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held += text;
        let mut pieces = Vec::new();
        loop {
            let tag = if self.in_call { CLOSE } else { OPEN };
            let Some(at) = self.held.find(tag) else { break };
            let rest = self.held.split_off(at + tag.len());
            let mut before = std::mem::replace(&mut self.held, rest);
            before.truncate(at);
            if self.in_call {
                pieces.push(self.call(&before));
            } else {
                self.say(before, &mut pieces);
            }
            self.in_call = !self.in_call;
        }
        if !self.in_call {
            let keep = begun(&self.held, OPEN);
            let tail = self.held.split_off(self.held.len() - keep);
            let said = std::mem::replace(&mut self.held, tail);
            self.say(said, &mut pieces);
        }
        pieces
    }

    /// The answer has ended. A call that is not whole is text: it was cut off.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.held);
        let mut pieces = Vec::new();
        if self.in_call {
            pieces.push(Piece::Text(format!("{OPEN}{rest}")));
        } else {
            self.say(rest, &mut pieces);
        }
        pieces
    }

    fn say(&self, text: String, pieces: &mut Vec<Piece>) {
        // Line breaks between calls are no text.
        let is_gap = self.num_calls > 0 && text.trim().is_empty();
        if !text.is_empty() && !is_gap {
            pieces.push(Piece::Text(text));
        }
    }

    fn call(&mut self, body: &str) -> Piece {
        let parsed = serde_json::from_str::<Value>(body.trim()).ok();
        let field = |name| parsed.as_ref().and_then(|call| call.get(name));
        match (field("name").and_then(Value::as_str), field("arguments")) {
            (Some(name), Some(arguments @ Value::Object(_))) => {
                self.num_calls += 1;
                Piece::Call { name: name.to_owned(), arguments: arguments.to_string() }
            }
            _ => Piece::Text(format!("{OPEN}{body}{CLOSE}")),
        }
    }
}

/// Length of the longest end of `text` that begins `tag`.
fn begun(text: &str, tag: &str) -> usize {
    let longest = tag.len().min(text.len() + 1);
    (1..longest).rev().find(|&len| text.ends_with(&tag[..len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&str]) -> Vec<Piece> {
        let mut parser = CallParser::default();
        let mut found: Vec<Piece> = Vec::new();
        let all = pieces.iter().flat_map(|piece| parser.push(piece)).collect::<Vec<_>>();
        for piece in all.into_iter().chain(parser.finish()) {
            match (found.last_mut(), piece) {
                (Some(Piece::Text(text)), Piece::Text(more)) => *text += &more,
                (_, piece) => found.push(piece),
            }
        }
        found
    }

    fn call(name: &str, arguments: &str) -> Piece {
        Piece::Call { name: name.into(), arguments: arguments.into() }
    }

    const TWO: &str = "Let me see.<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": \"<é>\"}}\n\
                       </tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>";

    #[test]
    fn calls_are_found_however_the_text_is_cut() {
        let expected =
            [Piece::Text("Let me see.".into()), call("a", "{\"x\":\"<é>\"}"), call("b", "{}")];
        assert_eq!(run(&[TWO]), expected);
        let chars: Vec<String> = TWO.chars().map(String::from).collect();
        let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
        assert_eq!(run(&chars), expected);
        for size in 2..30 {
            let cut: Vec<String> = chars.chunks(size).map(|part| part.concat()).collect();
            assert_eq!(run(&cut.iter().map(String::as_str).collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn what_is_no_whole_call_is_text() {
        for text in ["a < b <tool", "<tool_call>\n{\"name\": \"a\"", "<tool_call>oops</tool_call>!"]
        {
            assert_eq!(run(&[text]), [Piece::Text(text.into())]);
        }
        assert_eq!(run(&[""]), []);
    }

    #[test]
    fn text_is_not_held_back_longer_than_a_tag_may_begin() {
        let mut parser = CallParser::default();
        assert_eq!(parser.push("a <to"), [Piece::Text("a ".into())]);
        assert_eq!(parser.push("e"), [Piece::Text("<toe".into())]);
    }
}
