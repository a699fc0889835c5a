//! The text side of a model: the tokenizer, the chat format and the end tokens that its files
//! name. The one place where `feilun-model`'s plain data become `feilun-text`'s types.

use std::sync::Arc;

use feilun_model::gguf_vocabulary::GgufVocabulary;
use feilun_model::{ModelFileError, ModelFiles, TokenizerSource};
use feilun_text::{
    ChatError, ChatFormat, EncodeOptions, GgufVocab, StreamDecoder, TokenKind, Tokenizer,
    TokenizerError,
};

use crate::vocabulary::{TextStream, Vocabulary};

/// Why the text side of a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelTextError {
    /// The files cannot be read.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// They hold no tokenizer that can be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// They hold a chat template that cannot be used.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

/// A model's tokenizer, and what else generation needs to know of text.
#[derive(Clone, Debug)]
pub struct ModelText {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end an answer: the tokenizer's, and those that the files name besides.
    end_tokens: Arc<[u32]>,
}

impl ModelText {
    /// Reads the tokenizer of a model.
    ///
    /// # Errors
    /// When the files have none, or one that is broken or of an unknown kind.
    pub fn open(files: &ModelFiles) -> Result<ModelText, ModelTextError> {
        let tokenizer = match files.tokenizer()? {
            TokenizerSource::TokenizerJson(json) => {
                Tokenizer::from_json(&json, files.tokenizer_config()?.as_deref())?
            }
            TokenizerSource::Gguf(fields) => Tokenizer::from_gguf(gguf_vocab(fields))?,
        };
        Ok(ModelText::new(Arc::new(tokenizer), &files.special_tokens()?.eos))
    }

    /// A tokenizer, and end tokens besides its own.
    pub fn new(tokenizer: Arc<Tokenizer>, more_ends: &[u32]) -> ModelText {
        let mut end_tokens = tokenizer.end_of_turn().to_vec();
        end_tokens.extend(more_ends);
        end_tokens.sort_unstable();
        end_tokens.dedup();
        ModelText { tokenizer, end_tokens: end_tokens.into() }
    }

    /// The chat format of the model whose files these are, or `None` where they have no template.
    ///
    /// # Errors
    /// When the template cannot be used.
    pub fn chat_format(&self, files: &ModelFiles) -> Result<Option<ChatFormat>, ModelTextError> {
        let Some(template) = files.chat_template()? else { return Ok(None) };
        Ok(Some(ChatFormat::new(Arc::clone(&self.tokenizer), &template)?))
    }

    /// The tokenizer as generation sees it.
    pub fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        let tokenizer = Arc::clone(&self.tokenizer);
        Arc::new(TokenizerVocabulary { tokenizer, end_tokens: Arc::clone(&self.end_tokens) })
    }

    /// The tokens of a text on its own, with BOS where the model wants one. What looks like a
    /// control token in it stays text.
    ///
    /// # Errors
    /// When the text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let add_bos = self.tokenizer.adds_bos();
        self.tokenizer.encode(text, EncodeOptions { add_bos, ..EncodeOptions::default() })
    }
}

/// The fields of a GGUF file in the words of the tokenizer.
pub fn gguf_vocab(fields: GgufVocabulary<'_>) -> GgufVocab<'_> {
    GgufVocab {
        model: fields.model,
        pre: fields.pre,
        tokens: fields.tokens,
        token_types: fields.token_types,
        scores: fields.scores,
        merges: fields.merges,
        add_bos: fields.add_bos,
        add_eos: fields.add_eos,
        add_space_prefix: fields.add_space_prefix,
        remove_extra_whitespaces: fields.remove_extra_whitespaces,
        precompiled_charsmap: None,
        bos: fields.bos,
        eos: fields.eos,
        eot: fields.eot,
        eom: fields.eom,
        unknown: fields.unknown,
        padding: fields.padding,
    }
}

/// The fields for a GGUF file to be written, from those of the tokenizer.
pub fn gguf_fields(vocab: GgufVocab<'_>) -> GgufVocabulary<'_> {
    GgufVocabulary {
        model: vocab.model,
        pre: vocab.pre,
        tokens: vocab.tokens,
        token_types: vocab.token_types,
        scores: vocab.scores,
        merges: vocab.merges,
        add_bos: vocab.add_bos,
        add_eos: vocab.add_eos,
        add_space_prefix: vocab.add_space_prefix,
        remove_extra_whitespaces: vocab.remove_extra_whitespaces,
        bos: vocab.bos,
        eos: vocab.eos,
        eot: vocab.eot,
        eom: vocab.eom,
        unknown: vocab.unknown,
        padding: vocab.padding,
    }
}

struct TokenizerVocabulary {
    tokenizer: Arc<Tokenizer>,
    end_tokens: Arc<[u32]>,
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
