//! A tokenizer as generation sees it.

use std::sync::Arc;

use feilun_infer::{TextStream, Vocabulary};
use feilun_text::{EncodeOptions, StreamDecoder, TokenKind, Tokenizer};

/// The tokenizer of a model, and the tokens that end its answers.
pub(crate) struct TokenizerVocabulary {
    tokenizer: Arc<Tokenizer>,
    end_tokens: Vec<u32>,
}

impl TokenizerVocabulary {
    /// `more_ends` are the end tokens that the model's files name besides the tokenizer's.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, more_ends: &[u32]) -> TokenizerVocabulary {
        let mut end_tokens = tokenizer.end_of_turn().to_vec();
        end_tokens.extend(more_ends);
        end_tokens.sort_unstable();
        end_tokens.dedup();
        TokenizerVocabulary { tokenizer, end_tokens }
    }
}

impl Vocabulary for TokenizerVocabulary {
    fn num_tokens(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    fn token_bytes(&self, token: u32) -> Option<Vec<u8>> {
        match self.tokenizer.kind(token)? {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => None,
            _ => Some(self.tokenizer.token_bytes(token).to_vec()),
        }
    }

    fn tokenize(&self, text: &str) -> Option<Vec<u32>> {
        let tokens = self.tokenizer.encode(text, EncodeOptions::default()).ok()?;
        // A tokenizer that puts a space before every text cannot say how it would go on in one.
        let spelt = tokens.iter().flat_map(|&token| self.tokenizer.token_bytes(token));
        spelt.eq(text.as_bytes()).then_some(tokens)
    }

    fn text_stream(&self) -> Box<dyn TextStream> {
        Box::new(Stream(StreamDecoder::continuing(Arc::clone(&self.tokenizer), true)))
    }
}

struct Stream(StreamDecoder);

impl TextStream for Stream {
    fn push(&mut self, token: u32) -> String {
        self.0.push(token)
    }

    fn finish(&mut self) -> String {
        self.0.finish()
    }
}
