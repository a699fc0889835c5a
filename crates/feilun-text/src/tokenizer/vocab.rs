//! The vocabulary: the bytes that each token stands for, and what kind of token it is.
//!
//! Texts lie one after the other in a single buffer: 262,144 tokens of Gemma take 3 MB here and
//! would take 20 MB as separate strings. A space is stored as a space also where the file writes
//! `▁` (SentencePiece) or `Ġ` (byte-level BPE), so these are the exact bytes that a token adds to
//! a decoded text.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::error::{TokenizerError, short};

/// No vocabulary in use has more than about 300,000 tokens.
pub(super) const NUM_TOKENS_MAX: usize = 1 << 21;
/// The longest tokens in use are runs of a few hundred spaces or dashes.
pub(super) const TOKEN_BYTES_MAX: usize = 1 << 14;
/// All texts of a vocabulary together.
const VOCAB_BYTES_MAX: usize = 1 << 27;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Structure, such as begin and end of a turn. Never produced from plain text.
    Control,
    /// A piece of text that is matched before all others.
    UserDefined,
    /// Never produced, except as a step on the way to longer pieces; or an id without a token.
    Unused,
    /// One byte, for characters that have no piece.
    Byte,
}

/// Texts and kinds of all tokens, by id.
#[derive(Debug, Default)]
pub(super) struct Vocab {
    bytes: Vec<u8>,
    /// Where each token's text ends in `bytes`; it starts where the one before it ends.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl Vocab {
    pub(super) fn with_capacity(num_tokens: usize) -> Result<Vocab, TokenizerError> {
        if num_tokens > NUM_TOKENS_MAX {
            return Err(TokenizerError::TooLarge {
                what: "number of tokens",
                found: num_tokens,
                limit: NUM_TOKENS_MAX,
            });
        }
        Ok(Vocab {
            bytes: Vec::new(),
            ends: Vec::with_capacity(num_tokens),
            kinds: Vec::with_capacity(num_tokens),
        })
    }

    /// Appends the token with the next id.
    pub(super) fn push(
        &mut self,
        text: impl IntoIterator<Item = u8>,
        kind: TokenKind,
    ) -> Result<(), TokenizerError> {
        let start = self.bytes.len();
        self.bytes.extend(text);
        check_size("length of a token", self.bytes.len() - start, TOKEN_BYTES_MAX)?;
        check_size("length of all tokens", self.bytes.len(), VOCAB_BYTES_MAX)?;
        // Fits: VOCAB_BYTES_MAX is below u32::MAX.
        self.ends.push(self.bytes.len() as u32);
        self.kinds.push(kind);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The token's bytes; empty for an id outside the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (u32, TokenKind)> + '_ {
        self.kinds.iter().enumerate().map(|(id, &kind)| (id as u32, kind))
    }
}

pub(super) fn check_size(
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), TokenizerError> {
    if found > limit {
        return Err(TokenizerError::TooLarge { what, found, limit });
    }
    Ok(())
}

/// Finds a token by its bytes.
///
/// Which tokens are inside is the caller's choice: the tables that encoders search hold no control
/// tokens, and this is why plain text cannot become one. The hash is seeded at random, so that
/// a file cannot choose texts that collide.
#[derive(Debug)]
pub(super) struct TokenIndex {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The longest text inside; a longer one need not be looked up.
    bytes_max: usize,
}

impl TokenIndex {
    pub(super) fn new() -> TokenIndex {
        TokenIndex { table: HashTable::new(), hasher: DefaultHashBuilder::default(), bytes_max: 0 }
    }

    /// An index of the tokens that `wanted` accepts. Of two with equal bytes the first one stays
    /// (two tokens may differ in the file and be equal here: `▁▁` and two spaces).
    pub(super) fn of(vocab: &Vocab, wanted: impl Fn(u32, TokenKind) -> bool) -> TokenIndex {
        let mut index = TokenIndex::new();
        let hasher = index.hasher.clone();
        index.table.reserve(vocab.len(), |&id| hasher.hash_one(vocab.bytes(id)));
        for (id, kind) in vocab.ids() {
            if wanted(id, kind) && !vocab.bytes(id).is_empty() {
                index.insert(vocab, id);
            }
        }
        index
    }

    /// Adds a token, unless one with the same bytes is there: then that one is returned.
    pub(super) fn insert(&mut self, vocab: &Vocab, id: u32) -> Option<u32> {
        let text = vocab.bytes(id);
        let hasher = &self.hasher;
        let entry = self.table.entry(
            hasher.hash_one(text),
            |&other| vocab.bytes(other) == text,
            |&other| hasher.hash_one(vocab.bytes(other)),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(there) => Some(*there.get()),
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(id);
                self.bytes_max = self.bytes_max.max(text.len());
                None
            }
        }
    }

    pub(super) fn get(&self, vocab: &Vocab, text: &[u8]) -> Option<u32> {
        if text.len() > self.bytes_max {
            return None;
        }
        self.table.find(self.hasher.hash_one(text), |&id| vocab.bytes(id) == text).copied()
    }
}

/// Refuses a list of token texts in which one appears twice.
pub(super) fn check_distinct(texts: &[&str]) -> Result<(), TokenizerError> {
    let mut seen = hashbrown::HashMap::with_capacity(texts.len());
    for (second, &text) in texts.iter().enumerate() {
        if let Some(first) = seen.insert(text, second) {
            let text = short(text);
            return Err(TokenizerError::Duplicate { what: "token", text, first, second });
        }
    }
    Ok(())
}

/// Reads `<0xNN>`: exactly two hexadecimal digits, nothing else.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    // `from_str_radix` would accept a sign.
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The bytes of a SentencePiece text: `▁` means a space.
pub(super) fn with_spaces(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.split('▁').enumerate().flat_map(|(index, part)| {
        let space = (index > 0).then_some(b' ');
        space.into_iter().chain(part.bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_read_strictly() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        for hostile in ["<0x-1>", "<0x+1>", "<0x1>", "<0x100>", "<0x0A", "0x0A", "<0x 1>", ""] {
            assert_eq!(byte_token(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn underscores_are_spaces() {
        let bytes: Vec<u8> = with_spaces("▁the▁▁x").collect();
        assert_eq!(bytes, b" the  x");
    }

    #[test]
    fn tokens_are_found_by_their_bytes_and_the_first_of_equals_stays() {
        let mut vocab = Vocab::with_capacity(3).unwrap();
        for text in ["a", "bc", "a"] {
            vocab.push(text.bytes(), TokenKind::Normal).unwrap();
        }
        let index = TokenIndex::of(&vocab, |_, _| true);
        assert_eq!(index.get(&vocab, b"a"), Some(0));
        assert_eq!(index.get(&vocab, b"bc"), Some(1));
        assert_eq!(index.get(&vocab, b"c"), None);
        assert_eq!(vocab.bytes(3), b"");
    }

    #[test]
    fn a_huge_token_is_refused() {
        let mut vocab = Vocab::with_capacity(1).unwrap();
        let huge = std::iter::repeat_n(b'a', TOKEN_BYTES_MAX + 1);
        let error = vocab.push(huge, TokenKind::Normal).unwrap_err();
        assert!(matches!(error, TokenizerError::TooLarge { found: 16_385, .. }), "{error}");
    }
}
