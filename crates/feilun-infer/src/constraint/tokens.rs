//! The vocabulary as llguidance wants it: a trie of the tokens' bytes.

use std::sync::Arc;

use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::ConstraintError;
use crate::vocabulary::Vocabulary;

/// Longest token that a constraint may use, in bytes: the trie can hold paths of 1,024.
const TOKEN_BYTES_MAX: usize = 1000;
/// Most bytes of all tokens: the trie can hold 2^22 nodes, and has at most one for each byte.
const TRIE_BYTES_MAX: usize = (1 << 22) - 256;
/// A tokenizer that spells these otherwise (it normalises, or puts a space in front) cannot say
/// how the model would continue a text; then no spelling is forced.
const PROBES: [&str; 5] = ["a", " a", "{\"name\": \"", "true", "\n  ]"];
/// How much of a text that is forced is tokenized as the model would; the rest will be when it is
/// its turn. llguidance asks again after each token, for all that is still to come.
const CANONICAL_BYTES: usize = 512;
/// Ids are stored in 24 bits, of which the last value is taken.
const NUM_TOKENS_MAX: usize = (1 << 24) - 2;

/// Our tokenizer behind llguidance's interface.
pub(super) struct TokenEnvironment {
    trie: TokTrie,
    vocabulary: Arc<dyn Vocabulary>,
    canonical: bool,
}

impl TokenEnvironment {
    pub(super) fn new(vocabulary: Arc<dyn Vocabulary>) -> Result<Self, ConstraintError> {
        let num_tokens = vocabulary.num_tokens();
        if num_tokens > NUM_TOKENS_MAX {
            return Err(ConstraintError::VocabularyTooLarge {
                what: "tokens",
                found: num_tokens,
                max: NUM_TOKENS_MAX,
            });
        }
        let words: Vec<Vec<u8>> = (0..num_tokens as u32)
            .map(|token| {
                vocabulary.token_bytes(token).filter(|bytes| is_usable(bytes)).unwrap_or_default()
            })
            .collect();
        let num_bytes: usize = words.iter().map(Vec::len).sum();
        if num_bytes > TRIE_BYTES_MAX {
            return Err(ConstraintError::VocabularyTooLarge {
                what: "bytes",
                found: num_bytes,
                max: TRIE_BYTES_MAX,
            });
        }
        let mut end_tokens = vocabulary.end_tokens().to_vec();
        end_tokens.retain(|&token| (token as usize) < num_tokens);
        let first_end = end_tokens.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(num_tokens as u32, first_end), &words);
        if !end_tokens.is_empty() {
            trie = trie.with_eos_tokens(&end_tokens);
        }
        let canonical = PROBES.iter().all(|probe| {
            let tokens = vocabulary.tokenize(probe);
            tokens.is_some_and(|tokens| trie.decode_raw(&tokens) == probe.as_bytes())
        });
        Ok(TokenEnvironment { trie, vocabulary, canonical })
    }
}

/// Whether a token can be matched at all. 0xFF is not in any text; llguidance marks special
/// tokens with it.
fn is_usable(bytes: &[u8]) -> bool {
    bytes.len() <= TOKEN_BYTES_MAX && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER)
}

impl TokenizerEnv for TokenEnvironment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let tokenize = |text: &str| self.vocabulary.tokenize(text).unwrap_or_default();
        let (near, far) = bytes.split_at(bytes.len().min(CANONICAL_BYTES));
        let mut tokens = self.trie.tokenize_with_greedy_fallback(near, tokenize);
        // As with the probes: a spelling that is not this text is of no use.
        if self.trie.decode_raw(&tokens) != near {
            tokens = self.trie.greedy_tokenize(near);
        }
        tokens.extend(self.trie.greedy_tokenize(far));
        tokens
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
