//! Tokens that are found in a text as a whole, before the model sees what lies between them:
//! control tokens such as `<|im_end|>`, and pieces that a vocabulary's author wants kept intact.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::{TokenizerError, short};
use super::vocab::check_size;

/// All texts together; a matcher takes some ten bytes for each of theirs.
const ADDED_BYTES_MAX: usize = 1 << 22;

/// One such token. The switches are those of `tokenizer.json`.
#[derive(Clone, Debug, Default)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) text: String,
    /// Take the white space before it too.
    pub(super) lstrip: bool,
    /// Take the white space after it too.
    pub(super) rstrip: bool,
    /// Only between characters that are not part of a word.
    pub(super) single_word: bool,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'t> {
    /// Nothing was found here.
    Text(&'t str),
    /// A token was.
    Token(u32),
}

/// Finds the leftmost and, of several that start there, the longest token.
#[derive(Debug)]
pub(super) struct AddedTokens {
    matcher: AhoCorasick,
    tokens: Vec<AddedToken>,
}

impl AddedTokens {
    /// `None` without tokens. Empty texts are left out: they would be found everywhere.
    pub(super) fn new(mut tokens: Vec<AddedToken>) -> Result<Option<AddedTokens>, TokenizerError> {
        tokens.retain(|token| !token.text.is_empty());
        if tokens.is_empty() {
            return Ok(None);
        }
        let num_bytes = tokens.iter().map(|token| token.text.len()).sum();
        check_size("length of all added tokens", num_bytes, ADDED_BYTES_MAX)?;
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|token| token.text.as_bytes()))
            .map_err(|error| TokenizerError::Regex {
                pattern: "added tokens".into(),
                reason: short(&error.to_string()),
            })?;
        Ok(Some(AddedTokens { matcher, tokens }))
    }

    /// Cuts a text into tokens and what lies between them.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<Found<'t>> {
        let mut parts = Vec::new();
        let mut done = 0;
        for found in self.matcher.find_iter(text) {
            let token = &self.tokens[found.pattern().as_usize()];
            let (before, after) = (&text[..found.start()], &text[found.end()..]);
            let touches_word = before.chars().next_back().is_some_and(is_word)
                || after.chars().next().is_some_and(is_word);
            if token.single_word && touches_word {
                continue;
            }
            let (mut start, mut end) = (found.start(), found.end());
            if token.lstrip {
                start = before.trim_end().len();
            }
            if token.rstrip {
                end = text.len() - after.trim_start().len();
            }
            // White space may have been taken by the token before.
            let start = start.max(done);
            if start > done {
                parts.push(Found::Text(&text[done..start]));
            }
            parts.push(Found::Token(token.id));
            done = end.max(start);
        }
        if done < text.len() {
            parts.push(Found::Text(&text[done..]));
        }
        parts
    }

    /// Where tokens are spelled out, with their ids; the switches do not matter.
    pub(super) fn spans(&self, text: &str) -> Vec<(std::ops::Range<usize>, u32)> {
        let found = self.matcher.find_iter(text);
        found.map(|found| (found.range(), self.tokens[found.pattern().as_usize()].id)).collect()
    }

    /// Id and text of all tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.tokens.iter().map(|token| (token.id, token.text.as_str()))
    }
}

/// Cuts a text at the tokens, if there are any tokens.
pub(super) fn split<'t>(tokens: &Option<AddedTokens>, text: &'t str) -> Vec<Found<'t>> {
    match tokens {
        Some(tokens) => tokens.split(text),
        None if text.is_empty() => Vec::new(),
        None => vec![Found::Text(text)],
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, text: &str) -> AddedToken {
        AddedToken { id, text: text.into(), ..AddedToken::default() }
    }

    fn found(tokens: Vec<AddedToken>, text: &str) -> String {
        format!("{:?}", split(&AddedTokens::new(tokens).unwrap(), text))
    }

    #[test]
    fn the_longest_token_wins() {
        let tokens = vec![token(1, "<a>"), token(2, "<a><b>"), token(3, "")];
        assert_eq!(found(tokens, "x<a><b><a>"), "[Text(\"x\"), Token(2), Token(1)]");
    }

    #[test]
    fn white_space_is_taken_once() {
        let strip = |id, text| AddedToken { lstrip: true, rstrip: true, ..token(id, text) };
        let tokens = vec![strip(1, "<a>"), strip(2, "<b>")];
        assert_eq!(found(tokens, "x <a> <b>  y"), "[Text(\"x\"), Token(1), Token(2), Text(\"y\")]");
    }

    #[test]
    fn a_single_word_stands_alone() {
        let tokens = vec![AddedToken { single_word: true, ..token(1, "ab") }];
        assert_eq!(
            found(tokens, "ab cab ab."),
            "[Token(1), Text(\" cab \"), Token(1), Text(\".\")]"
        );
    }
}
