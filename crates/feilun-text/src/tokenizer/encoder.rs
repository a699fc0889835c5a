//! From plain text to token ids: added tokens, normalization, words, model.
//!
//! Control tokens cannot come out of here. The index that the models search holds none, and no
//! merge leads to one; so what a user writes stays text, whatever it looks like. (The one exception
//! is the unknown token, which stands for text.)

use std::borrow::Cow;

use super::added::{self, AddedTokens, Found};
use super::bpe::Bpe;
use super::error::TokenizerError;
use super::merge::Merger;
use super::normalize::{Normalize, Place, normalize};
use super::split::{Split, split};
use super::spm::Spm;
use super::unigram::Unigram;
use super::vocab::{TokenIndex, Vocab};

/// The kinds of model.
#[derive(Debug)]
pub(super) enum Model {
    Bpe(Bpe),
    Spm(Spm),
    Unigram(Unigram),
}

/// Everything that encoding needs.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) vocab: Vocab,
    /// The tokens that text may become.
    pub(super) pieces: TokenIndex,
    /// User-defined tokens that are found in the text as it is.
    pub(super) user_defined: Option<AddedTokens>,
    pub(super) normalize: Vec<Normalize>,
    /// User-defined tokens that are found after normalization.
    pub(super) user_defined_normalized: Option<AddedTokens>,
    pub(super) split: Vec<Split>,
    /// The text that reaches the model has `▁` for spaces; the vocabulary has spaces.
    pub(super) underscores_are_spaces: bool,
    pub(super) model: Model,
}

impl Encoder {
    pub(super) fn encode(
        &self,
        text: &str,
        place: Place,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut merger = Merger::default();
        for (place, found) in placed(added::split(&self.user_defined, text), place) {
            let text = match found {
                Found::Token(id) => {
                    out.push(id);
                    continue;
                }
                Found::Text(text) => normalize(&self.normalize, text, place)?,
            };
            let parts = added::split(&self.user_defined_normalized, &text);
            for (place, found) in placed(parts, place) {
                match found {
                    Found::Token(id) => out.push(id),
                    Found::Text(text) => {
                        for word in split(&self.split, text, place)? {
                            self.encode_word(&word, &mut merger, out)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn encode_word(
        &self,
        word: &str,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let word = if self.underscores_are_spaces && word.contains('▁') {
            Cow::Owned(word.replace('▁', " "))
        } else {
            Cow::Borrowed(word)
        };
        let (vocab, pieces) = (&self.vocab, &self.pieces);
        match &self.model {
            Model::Bpe(model) => model.encode(vocab, pieces, &word, merger, out),
            Model::Spm(model) => model.encode(vocab, pieces, &word, merger, out),
            Model::Unigram(model) => model.encode(vocab, pieces, &word, out),
        }
    }
}

/// The first part lies where the whole lies; the others follow a token.
fn placed(parts: Vec<Found<'_>>, place: Place) -> impl Iterator<Item = (Place, Found<'_>)> {
    parts
        .into_iter()
        .enumerate()
        .map(move |(index, part)| (if index == 0 { place } else { Place::AfterControl }, part))
}
