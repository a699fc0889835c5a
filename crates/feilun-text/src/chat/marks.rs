//! Control tokens as private characters, from the source of a template to the rendered text.

use std::ops::Range;

use serde_json::Value;

use super::conversation::ChatError;
use crate::tokenizer::{Part, Tokenizer};

/// Private characters that are tried first; hardly any text has them.
const FIRST: u32 = 0x10f000;
/// The planes of private use, without the two characters at the end of each that are none.
const PLANES: [Range<u32>; 2] = [0x10_0000..0x10_fffe, 0xf_0000..0xf_fffe];

/// Which character stands for which control token.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    first: u32,
    ids: Vec<u32>,
}

impl Marks {
    /// Marks for the control tokens that a template's source spells out, and for `more`.
    pub(super) fn of(tokenizer: &Tokenizer, source: &str, more: &[u32]) -> Marks {
        let mut ids: Vec<u32> = spans(tokenizer, source).map(|(_, id)| id).collect();
        ids.extend(more);
        ids.sort_unstable();
        ids.dedup();
        Marks { first: FIRST, ids }
    }

    /// The source with each control token replaced by its mark.
    pub(super) fn replace(&self, tokenizer: &Tokenizer, source: &str) -> String {
        let mut marked = String::with_capacity(source.len());
        let mut done = 0;
        for (range, id) in spans(tokenizer, source) {
            if let Some(mark) = self.mark(id) {
                marked.push_str(&source[done..range.start]);
                marked.push(mark);
                done = range.end;
            }
        }
        marked.push_str(&source[done..]);
        marked
    }

    pub(super) fn mark(&self, id: u32) -> Option<char> {
        let index = self.ids.binary_search(&id).ok()?;
        char::from_u32(self.first + index as u32)
    }

    /// The control token that a character stands for.
    pub(super) fn id(&self, character: char) -> Option<u32> {
        let index = u32::from(character).checked_sub(self.first)?;
        self.ids.get(index as usize).copied()
    }

    /// The same marks, moved to characters that no text uses. `None` if they need not move.
    pub(super) fn moved_away(&self, texts: &Texts) -> Result<Option<Marks>, ChatError> {
        let num_marks = self.ids.len() as u32;
        let is_free = |first: u32| {
            let next = texts.private.partition_point(|&used| used < first);
            texts.private.get(next).is_none_or(|&used| used >= first + num_marks)
        };
        if is_free(self.first) {
            return Ok(None);
        }
        // A free run starts where a plane does, or right behind a used character.
        let starts = PLANES.iter().map(|plane| plane.start);
        let behind = texts.private.iter().map(|&used| used + 1);
        let first = starts.chain(behind).find(|&first| {
            let inside =
                |plane: &Range<u32>| plane.start <= first && first + num_marks <= plane.end;
            PLANES.iter().any(inside) && is_free(first)
        });
        match first {
            Some(first) => Ok(Some(Marks { first, ids: self.ids.clone() })),
            None => Err(ChatError::NoPrivateCharacter),
        }
    }

    /// The rendered text as people and transformers see it.
    pub(super) fn written_out(&self, tokenizer: &Tokenizer, marked: &str) -> String {
        let mut text = String::with_capacity(marked.len());
        for character in marked.chars() {
            match self.id(character) {
                Some(id) => text.push_str(&tokenizer.token_text(id)),
                None => text.push(character),
            }
        }
        text
    }

    /// The rendered text in parts: at marks, and at `cuts`, which are in rising order.
    pub(super) fn parts<'t>(&self, marked: &'t str, cuts: &[usize]) -> Vec<(Part<'t>, usize)> {
        let mut parts = Vec::new();
        let mut done = 0;
        let mut cuts = cuts.iter().copied().peekable();
        for (at, character) in marked.char_indices() {
            while let Some(cut) = cuts.next_if(|&cut| cut <= at) {
                if cut > done {
                    parts.push((Part::Text(&marked[done..cut]), done));
                    done = cut;
                }
            }
            if let Some(id) = self.id(character) {
                if at > done {
                    parts.push((Part::Text(&marked[done..at]), done));
                }
                parts.push((Part::Control(id), at));
                done = at + character.len_utf8();
            }
        }
        if done < marked.len() {
            parts.push((Part::Text(&marked[done..]), done));
        }
        parts
    }
}

/// The private characters that the inputs of a rendering use, in rising order.
#[derive(Debug, Default)]
pub(super) struct Texts {
    private: Vec<u32>,
}

impl Texts {
    pub(super) fn add(&mut self, text: &str) {
        // Bytes from 0xf3 on begin the characters from U+C0000 on; most texts have none.
        if text.bytes().all(|byte| byte < 0xf3) {
            return;
        }
        let private = text.chars().map(u32::from).filter(|&code| code >= PLANES[1].start);
        self.private.extend(private);
        self.private.sort_unstable();
        self.private.dedup();
    }

    /// Adds all texts in a JSON value; its depth is bounded by the caller.
    pub(super) fn add_json(&mut self, json: &Value) {
        match json {
            Value::String(text) => self.add(text),
            Value::Array(items) => items.iter().for_each(|item| self.add_json(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    self.add(key);
                    self.add_json(value);
                }
            }
            _ => {}
        }
    }
}

/// Control tokens in a source. One that looks like a word could be a variable, so it stays.
fn spans<'s>(
    tokenizer: &Tokenizer,
    source: &'s str,
) -> impl Iterator<Item = (Range<usize>, u32)> + use<'s> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c.is_whitespace();
    tokenizer
        .control_spans(source)
        .into_iter()
        .filter(move |(range, _)| !source[range.clone()].chars().all(is_word))
}
