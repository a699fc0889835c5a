//! Byte pair encoding with a list of merges: GPT-2, Llama 3, Qwen and SmolLM2 over bytes;
//! the `tokenizer.json` of Llama 2, Mistral and Gemma over characters.

use hashbrown::HashMap;

use super::error::TokenizerError;
use super::merge::{Join, Merger, Symbol};
use super::vocab::{TokenIndex, Vocab};

/// What a word is before any merge.
#[derive(Debug)]
pub(super) enum Alphabet {
    /// One symbol for each byte. A byte without a token is left out, as the reference does
    /// (SmolLM2 has no tokens for some control characters).
    Bytes(Box<[Option<u32>; 256]>),
    /// One symbol for each character.
    Characters {
        /// The tokens `<0x00>` to `<0xFF>`, for characters without a token.
        bytes: Option<Box<[Option<u32>; 256]>>,
        /// For what has no bytes either; where this is missing too, it is left out.
        unknown: Option<u32>,
        /// Several unknown characters in a row are one token.
        fuse_unknown: bool,
    },
}

/// Merges by pair, in the order of the list.
#[derive(Debug)]
pub(super) struct Bpe {
    merges: HashMap<(u32, u32), Join>,
    alphabet: Alphabet,
    /// A word that is a token needs no merges (Llama 3).
    whole_words: bool,
}

impl Bpe {
    pub(super) fn new(alphabet: Alphabet, num_merges: usize, whole_words: bool) -> Bpe {
        Bpe { merges: HashMap::with_capacity(num_merges), alphabet, whole_words }
    }

    /// Appends a merge, unless the pair has one: then the rank of that one is returned.
    pub(super) fn add_merge(&mut self, left: u32, right: u32, join: Join) -> Option<u32> {
        match self.merges.entry((left, right)) {
            hashbrown::hash_map::Entry::Occupied(there) => Some(there.get().rank),
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert(join);
                None
            }
        }
    }

    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        pieces: &TokenIndex,
        word: &str,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if self.whole_words
            && let Some(id) = pieces.get(vocab, word.as_bytes())
        {
            out.push(id);
            return Ok(());
        }
        merger.clear();
        match &self.alphabet {
            Alphabet::Bytes(tokens) => {
                for (at, byte) in word.bytes().enumerate() {
                    if let Some(id) = tokens[usize::from(byte)] {
                        merger.push(symbol(at, at + 1, id));
                    }
                }
            }
            Alphabet::Characters { bytes, unknown, fuse_unknown } => {
                let mut after_unknown = false;
                for (start, character) in word.char_indices() {
                    let end = start + character.len_utf8();
                    let text = &word.as_bytes()[start..end];
                    if let Some(id) = pieces.get(vocab, text) {
                        merger.push(symbol(start, end, id));
                        after_unknown = false;
                    } else if let Some(ids) = byte_ids(bytes.as_deref(), text) {
                        for (offset, id) in ids.into_iter().enumerate() {
                            merger.push(symbol(start + offset, start + offset + 1, id));
                        }
                        after_unknown = false;
                    } else if let Some(id) = *unknown {
                        if !(after_unknown && *fuse_unknown) {
                            merger.push(symbol(start, end, id));
                        }
                        after_unknown = true;
                    }
                }
            }
        }
        merger.run(|left, right| self.merges.get(&(left.id?, right.id?)).copied(), |_, _, _| {});
        out.extend(merger.symbols().filter_map(|symbol| symbol.id));
        Ok(())
    }
}

fn symbol(start: usize, end: usize, id: u32) -> Symbol {
    // Texts are shorter than u32::MAX, see `TEXT_BYTES_MAX`.
    Symbol { start: start as u32, end: end as u32, id: Some(id) }
}

/// The tokens of all bytes, or `None` if one of them has no token.
pub(super) fn byte_ids(tokens: Option<&[Option<u32>; 256]>, text: &[u8]) -> Option<Vec<u32>> {
    let tokens = tokens?;
    text.iter().map(|&byte| tokens[usize::from(byte)]).collect()
}
