//! Text to token ids and back.
//!
//! [`Tokenizer::from_json`] reads a `tokenizer.json`, [`Tokenizer::from_gguf`] the vocabulary of
//! a GGUF file. Both lead to the same few parts:
//!
//! ```text
//! text → control tokens → user-defined tokens → normalize → words → model → ids
//!        added.rs          added.rs             normalize   split   bpe (byte-level and characters)
//!                                               charsmap    pattern spm (SentencePiece scores)
//!                                                                   unigram
//! ```
//!
//! # Plain text stays plain
//!
//! With `parse_special: false` no text becomes a control token, not even its exact spelling:
//! control tokens are not in the index that the models search (see `encoder.rs`). What comes from
//! users must be encoded this way; [`chat`](crate::chat) does so.
//!
//! # Why not the `tokenizers` crate
//!
//! It is the reference, and tests compare with it on random texts. But a model file is untrusted
//! input here, and its loader trusts the file: a merge of two long tokens writes outside a buffer
//! (a panic), a bad `precompiled_charsmap` panics, a regular expression that gives up silently ends
//! the text. The parts that open models need are small, run faster over bytes, and take a
//! fraction of the memory.

mod added;
mod bpe;
mod bytelevel;
mod charsmap;
mod encoder;
mod error;
mod gguf;
mod gguf_json;
mod json;
mod json_gguf;
mod json_model;
mod json_steps;
mod merge;
mod normalize;
mod pattern;
mod split;
mod spm;
mod unigram;
mod vocab;

use std::borrow::Cow;

use hashbrown::HashMap;

pub use self::error::TokenizerError;
pub use self::gguf::GgufVocab;
pub use self::gguf_json::TokenizerFiles;
pub use self::json_gguf::GgufTexts;
pub use self::vocab::TokenKind;

use self::added::{AddedToken, AddedTokens, Found};
use self::encoder::Encoder;
use self::normalize::Place;
use self::vocab::{TokenIndex, check_size};

/// The longest text that is encoded at once: about a million tokens.
pub const TEXT_BYTES_MAX: usize = 1 << 22;

/// Names under which models end a turn. They count only if the vocabulary has them as control
/// tokens: Gemma's `</s>`, for example, is a piece of HTML.
const END_OF_TURN_NAMES: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
];

/// How to encode a text. The default is plain text on its own, without BOS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Begin with the BOS token, if the vocabulary has one. Whether the model wants one is
    /// [`Tokenizer::adds_bos`].
    pub add_bos: bool,
    /// Let the spelling of a control token in the text become that token. Only for text that is
    /// ours or the model author's, never for what users write.
    pub parse_special: bool,
}

/// A part of a text whose structure is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Plain text: never becomes a control token. Two such parts in a row are encoded apart, so
    /// that no token spans both.
    Text(&'t str),
    /// A control token.
    Control(u32),
}

/// Ids with a special meaning.
#[derive(Clone, Copy, Debug, Default)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
}

/// A vocabulary with the way to use it. Building one takes tens of milliseconds, so share it.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    controls: Option<AddedTokens>,
    control_index: TokenIndex,
    /// The few control tokens that take white space around them (left, right).
    stripping: HashMap<u32, (bool, bool)>,
    ids: SpecialIds,
    end_of_turn: Vec<u32>,
    adds_bos: bool,
    adds_eos: bool,
    /// The encoder put a space before the text, so the decoder takes it away.
    starts_with_space: bool,
}

/// What the readers of files hand over.
struct Parts {
    encoder: Encoder,
    controls: Vec<AddedToken>,
    ids: SpecialIds,
    more_end_of_turn: Vec<u32>,
    adds_bos: bool,
    adds_eos: bool,
    starts_with_space: bool,
}

impl Tokenizer {
    fn new(parts: Parts) -> Result<Tokenizer, TokenizerError> {
        let Parts {
            encoder,
            controls,
            ids,
            more_end_of_turn,
            adds_bos,
            adds_eos,
            starts_with_space,
        } = parts;
        let vocab = &encoder.vocab;
        let control_index = TokenIndex::of(vocab, |_, kind| kind == TokenKind::Control);
        let mut end_of_turn: Vec<u32> = END_OF_TURN_NAMES
            .iter()
            .filter_map(|name| control_index.get(vocab, name.as_bytes()))
            .chain(ids.eos)
            .chain(more_end_of_turn)
            .collect();
        end_of_turn.sort_unstable();
        end_of_turn.dedup();
        let stripping = controls
            .iter()
            .filter(|token| token.lstrip || token.rstrip)
            .map(|token| (token.id, (token.lstrip, token.rstrip)))
            .collect();
        Ok(Tokenizer {
            controls: AddedTokens::new(controls)?,
            encoder,
            control_index,
            stripping,
            ids,
            end_of_turn,
            adds_bos,
            adds_eos,
            starts_with_space,
        })
    }

    /// Encodes a text.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        check_size("length of a text", text.len(), TEXT_BYTES_MAX)?;
        let parts = match options.parse_special {
            true => self.find_controls(text),
            false => vec![Part::Text(text)],
        };
        let mut ids = self.encode_parts(&parts)?;
        // Not one of the parts: the text still starts at its start.
        if let Some(bos) = self.ids.bos.filter(|_| options.add_bos) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Encodes a text whose control tokens are given, not searched for.
    pub fn encode_parts(&self, parts: &[Part<'_>]) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.encode_parts_with_ends(parts)?.0)
    }

    /// As [`encode_parts`](Self::encode_parts), and for each part how many ids there are up to
    /// its end.
    pub fn encode_parts_with_ends(
        &self,
        parts: &[Part<'_>],
    ) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let num_bytes = parts.iter().fold(0usize, |sum, part| match part {
            Part::Text(text) => sum.saturating_add(text.len()),
            Part::Control(_) => sum,
        });
        check_size("length of a text", num_bytes, TEXT_BYTES_MAX)?;
        let mut out = Vec::with_capacity(num_bytes / 3 + parts.len());
        let mut ends = Vec::with_capacity(parts.len());
        let mut place = Place::Start;
        for (index, part) in parts.iter().enumerate() {
            match *part {
                Part::Control(id) => {
                    let vocab_size = self.vocab_size();
                    if id as usize >= vocab_size {
                        let what = "control token";
                        return Err(TokenizerError::IdOutOfRange {
                            what,
                            id: id.into(),
                            vocab_size,
                        });
                    }
                    out.push(id);
                    place = Place::AfterControl;
                }
                Part::Text(text) => {
                    let text =
                        self.strip(text, parts.get(index.wrapping_sub(1)), parts.get(index + 1));
                    if !text.is_empty() {
                        self.encoder.encode(text, place, &mut out)?;
                        place = Place::AfterText;
                    }
                }
            }
            ends.push(out.len());
        }
        Ok((out, ends))
    }

    /// Takes the white space from a text that the control tokens beside it swallow.
    fn strip<'t>(
        &self,
        mut text: &'t str,
        before: Option<&Part<'_>>,
        after: Option<&Part<'_>>,
    ) -> &'t str {
        let strips = |part: Option<&Part<'_>>| match part {
            Some(Part::Control(id)) => self.stripping.get(id).copied().unwrap_or_default(),
            _ => (false, false),
        };
        if strips(before).1 {
            text = text.trim_start();
        }
        if strips(after).0 {
            text = text.trim_end();
        }
        text
    }

    /// Cuts a text at every spelling of a control token. Only for text that may have control
    /// tokens; see [`EncodeOptions::parse_special`].
    pub fn find_controls<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        added::split(&self.controls, text)
            .into_iter()
            .map(|found| match found {
                Found::Text(text) => Part::Text(text),
                Found::Token(id) => Part::Control(id),
            })
            .collect()
    }

    /// Where a text spells out control tokens, with their ids.
    pub(crate) fn control_spans(&self, text: &str) -> Vec<(std::ops::Range<usize>, u32)> {
        self.controls.as_ref().map_or_else(Vec::new, |controls| controls.spans(text))
    }

    /// The text of the tokens, with U+FFFD for bytes that are not UTF-8. Ids outside the
    /// vocabulary add nothing; with `skip_special` neither do control tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                bytes.extend_from_slice(self.encoder.vocab.bytes(id));
            }
        }
        let text = if self.starts_with_space {
            bytes.strip_prefix(b" ").unwrap_or(&bytes)
        } else {
            &bytes
        };
        String::from_utf8_lossy(text).into_owned()
    }

    /// The exact bytes that a token adds to a text: for a control token its spelling, for an id
    /// outside the vocabulary nothing.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.encoder.vocab.bytes(id)
    }

    /// As [`token_bytes`](Self::token_bytes), for messages.
    pub fn token_text(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.token_bytes(id))
    }

    /// The number of ids, also of those without a token. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.encoder.vocab.len()
    }

    /// What a token is for; `None` outside the vocabulary.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.encoder.vocab.kind(id)
    }

    /// Whether a token is structure and not text: a control token or the unknown token.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// The token that adds exactly this text; a control token by its spelling, first.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let vocab = &self.encoder.vocab;
        self.control_index
            .get(vocab, text.as_bytes())
            .or_else(|| self.encoder.pieces.get(vocab, text.as_bytes()))
    }

    /// All control tokens that text can name: id and spelling.
    pub fn controls(&self) -> impl Iterator<Item = (u32, &str)> {
        self.controls.iter().flat_map(AddedTokens::iter)
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.ids.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.ids.eos
    }

    /// The token for text without a token.
    pub fn unknown(&self) -> Option<u32> {
        self.ids.unknown
    }

    /// The token that fills up a batch.
    pub fn padding(&self) -> Option<u32> {
        self.ids.padding
    }

    /// Whether the model was trained with BOS before each text.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether the model was trained with EOS after each text.
    pub fn adds_eos(&self) -> bool {
        self.adds_eos
    }

    /// The tokens that end an answer: EOS and those that end a turn or a message, in rising order.
    pub fn end_of_turn(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// Whether a token ends an answer.
    pub fn is_end_of_turn(&self, id: u32) -> bool {
        self.end_of_turn.binary_search(&id).is_ok()
    }

    /// Whether decoding takes away one space at the start (Llama 2).
    pub(crate) fn starts_with_space(&self) -> bool {
        self.starts_with_space
    }
}
