//! Tokenizers from `tokenizer.json`, the format of Hugging Face `tokenizers`.
//!
//! Supported are BPE (over bytes, or over characters with byte fallback) and Unigram, with the
//! steps listed in `json_steps.rs`.

use std::borrow::Cow;

use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::Value;

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Alphabet, Bpe};
use super::bytelevel::bytes_of;
use super::encoder::{Encoder, Model};
use super::error::{TokenizerError, short};
use super::gguf::single_bytes;
use super::json_model::{JsonModel, JsonVocab};
use super::json_steps::Steps;
use super::merge::Join;
use super::normalize::{Place, normalize};
use super::unigram::Unigram;
use super::vocab::{
    NUM_TOKENS_MAX, TokenIndex, TokenKind, Vocab, byte_token, check_size, with_spaces,
};
use super::{END_OF_TURN_NAMES, Parts, SpecialIds, Tokenizer};

/// The largest files in use have 35 MB.
const JSON_BYTES_MAX: usize = 1 << 28;
const NUM_ADDED_MAX: usize = 1 << 16;
/// Ids without a token that may lie between those of a vocabulary.
const NUM_HOLES_MAX: usize = 1 << 16;

#[derive(Deserialize)]
pub(super) struct File<'j> {
    #[serde(borrow)]
    pub(super) model: JsonModel<'j>,
    #[serde(default)]
    pub(super) added_tokens: Vec<Added>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
}

#[derive(Deserialize)]
pub(super) struct Added {
    id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl Tokenizer {
    /// Builds a tokenizer from the bytes of a `tokenizer.json` and, if there is one, of the
    /// `tokenizer_config.json` beside it, which names BOS, EOS and padding.
    pub fn from_json(json: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
        let file = read_file(json)?;
        let steps = Steps::of_file(&file)?;
        let slots = Slots::new(&file)?;
        let vocab = slots.vocab(&file, &steps)?;
        let pieces = slots.pieces(&vocab);
        let model = match &file.model.vocab {
            JsonVocab::Ids(_) => {
                Model::Bpe(bpe(&file.model, &slots, &vocab, &pieces, steps.byte_level)?)
            }
            JsonVocab::Scores(list) => {
                let scores = scores(list, vocab.len())?;
                let unknown = slots.unknown;
                Model::Unigram(Unigram::new(&vocab, scores, unknown, slots.bytes.clone()))
            }
        };

        let (mut controls, mut raw, mut normalized) = (Vec::new(), Vec::new(), Vec::new());
        for added in &file.added_tokens {
            let mut token = AddedToken {
                // `Slots` checked the range.
                id: added.id as u32,
                text: added.content.clone(),
                lstrip: added.lstrip,
                rstrip: added.rstrip,
                single_word: added.single_word,
            };
            if vocab.kind(token.id) == Some(TokenKind::Control) {
                controls.push(token);
            } else if added.normalized {
                token.text = normalize(&steps.normalize, &token.text, Place::AfterText)?.into();
                normalized.push(token);
            } else {
                raw.push(token);
            }
        }
        let encoder = Encoder {
            user_defined: AddedTokens::new(raw)?,
            normalize: steps.normalize,
            user_defined_normalized: AddedTokens::new(normalized)?,
            split: steps.split,
            underscores_are_spaces: steps.underscores,
            model,
            vocab,
            pieces,
        };
        let mut parts = Parts {
            encoder,
            controls,
            ids: SpecialIds { unknown: slots.unknown, ..SpecialIds::default() },
            more_end_of_turn: Vec::new(),
            adds_bos: false,
            adds_eos: false,
            starts_with_space: steps.starts_with_space,
        };
        read_template(&file.post_processor, &slots, &mut parts);
        if let Some(config) = config {
            read_config(config, &slots, &mut parts)?;
        }
        Tokenizer::new(parts)
    }
}

/// The file within bounds, its model of a kind that is known.
pub(super) fn read_file(json: &[u8]) -> Result<File<'_>, TokenizerError> {
    check_size("length of tokenizer.json", json.len(), JSON_BYTES_MAX)?;
    let read = |source| TokenizerError::Json { file: "tokenizer.json", source };
    let file: File<'_> = serde_json::from_slice(json).map_err(read)?;
    check_size("number of added_tokens", file.added_tokens.len(), NUM_ADDED_MAX)?;
    check_model(&file.model)?;
    Ok(file)
}

fn check_model(model: &JsonModel<'_>) -> Result<(), TokenizerError> {
    let refuse = |what, found: &str, supported| {
        Err(TokenizerError::Unsupported { what, found: short(found), supported })
    };
    match (model.kind.as_deref(), &model.vocab) {
        (Some("BPE") | None, JsonVocab::Ids(_)) | (Some("Unigram"), JsonVocab::Scores(_)) => {}
        (kind, _) => {
            let supported = "BPE with a map of ids, Unigram with a list of scores";
            return refuse("model", kind.unwrap_or("without a type"), supported);
        }
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return refuse("dropout", &model.dropout.unwrap_or(0.0).to_string(), "none");
    }
    for (what, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
            return refuse(what, affix, "none");
        }
    }
    Ok(())
}

/// Which text has which id, before texts are turned into bytes.
pub(super) struct Slots<'f> {
    /// By id; `None` for an id without a token.
    pub(super) texts: Vec<Option<&'f str>>,
    pub(super) ids: HashMap<&'f str, u32>,
    pub(super) kinds: Vec<TokenKind>,
    unknown: Option<u32>,
    pub(super) bytes: Option<Box<[Option<u32>; 256]>>,
}

impl<'f> Slots<'f> {
    pub(super) fn new(file: &'f File<'_>) -> Result<Slots<'f>, TokenizerError> {
        let model: Vec<(&str, u64)> = match &file.model.vocab {
            JsonVocab::Ids(list) => list.iter().map(|(text, id)| (&**text, *id)).collect(),
            JsonVocab::Scores(list) => {
                list.iter().enumerate().map(|(id, (text, _))| (&**text, id as u64)).collect()
            }
        };
        let added = file.added_tokens.iter().map(|added| (added.content.as_str(), added.id));
        let num_texts = model.len() + file.added_tokens.len();
        let id_max = model.iter().copied().chain(added.clone()).map(|(_, id)| id).max();
        let Some(id_max) = id_max else {
            return Err(TokenizerError::Missing { what: "vocab" });
        };
        // An id far beyond the number of tokens would make room for millions.
        let vocab_size = num_texts.saturating_add(NUM_HOLES_MAX).min(NUM_TOKENS_MAX);
        if id_max >= vocab_size as u64 {
            return Err(TokenizerError::IdOutOfRange { what: "vocab", id: id_max, vocab_size });
        }
        let num_ids = id_max as usize + 1;
        let mut slots = Slots {
            texts: vec![None; num_ids],
            ids: HashMap::with_capacity(num_texts),
            kinds: vec![TokenKind::Unused; num_ids],
            unknown: None,
            bytes: None,
        };
        for (text, id) in model {
            slots.place(text, id as usize, false)?;
        }
        for (text, id) in added {
            slots.place(text, id as usize, true)?;
        }
        slots.find_kinds(file)?;
        Ok(slots)
    }

    /// An added token may repeat one of the model's, with the same id.
    fn place(&mut self, text: &'f str, id: usize, may_repeat: bool) -> Result<(), TokenizerError> {
        let first = self.ids.insert(text, id as u32).map(|first| first as usize);
        if let Some(first) = first.filter(|&first| !(may_repeat && first == id)) {
            let text = short(text);
            return Err(TokenizerError::Duplicate { what: "token", text, first, second: id });
        }
        match self.texts[id].replace(text) {
            Some(other) if other != text => {
                let reason = "another token has the same id";
                Err(TokenizerError::BadToken { id, text: short(text), reason })
            }
            _ => Ok(()),
        }
    }

    fn find_kinds(&mut self, file: &File<'_>) -> Result<(), TokenizerError> {
        let model = &file.model;
        for (kind, text) in self.kinds.iter_mut().zip(&self.texts) {
            if text.is_some() {
                *kind = TokenKind::Normal;
            }
        }
        if model.byte_fallback {
            let mut bytes = Box::new([None; 256]);
            for (id, text) in self.texts.iter().enumerate() {
                if let Some(byte) = text.and_then(byte_token) {
                    self.kinds[id] = TokenKind::Byte;
                    if let Some(first) = bytes[usize::from(byte)].replace(id as u32) {
                        return Err(TokenizerError::Duplicate {
                            what: "byte token",
                            text: short(text.unwrap_or("")),
                            first: first as usize,
                            second: id,
                        });
                    }
                }
            }
            self.bytes = Some(bytes);
        }
        for added in &file.added_tokens {
            // A token that ends turns is structure, whatever the file says: no user may write it.
            let ends_turn = END_OF_TURN_NAMES.contains(&added.content.as_str());
            self.kinds[added.id as usize] = match added.special || (ends_turn && !added.normalized)
            {
                true => TokenKind::Control,
                false => TokenKind::UserDefined,
            };
        }
        let vocab_size = self.texts.len();
        self.unknown = match (&model.unk_token, model.unk_id) {
            (Some(text), _) => {
                let id = self.ids.get(text.as_str()).copied();
                Some(id.ok_or(TokenizerError::Missing { what: "the token that unk_token names" })?)
            }
            (None, Some(id)) if id >= vocab_size as u64 => {
                return Err(TokenizerError::IdOutOfRange { what: "unk_id", id, vocab_size });
            }
            (None, Some(id)) => Some(id as u32),
            (None, None) => None,
        };
        if let Some(id) = self.unknown
            && self.kinds[id as usize] == TokenKind::Normal
        {
            self.kinds[id as usize] = TokenKind::Unknown;
        }
        Ok(())
    }

    fn vocab(&self, file: &File<'_>, steps: &Steps) -> Result<Vocab, TokenizerError> {
        let mut vocab = Vocab::with_capacity(self.texts.len())?;
        let is_added: HashMap<u64, ()> = file.added_tokens.iter().map(|a| (a.id, ())).collect();
        for (id, (text, &kind)) in self.texts.iter().zip(&self.kinds).enumerate() {
            let text = text.unwrap_or("");
            match kind {
                TokenKind::Byte => vocab.push(byte_token(text), kind)?,
                TokenKind::Control => vocab.push(text.bytes(), kind)?,
                _ if steps.underscores => vocab.push(with_spaces(text), kind)?,
                // Added tokens are written as they are.
                _ if steps.byte_level && !is_added.contains_key(&(id as u64)) => {
                    vocab.push(bytes_of(text), kind)?;
                }
                _ => vocab.push(text.bytes(), kind)?,
            }
        }
        Ok(vocab)
    }

    /// What the model may produce. Where `▁` and a space are both tokens, the text that reaches
    /// the model has the first.
    fn pieces(&self, vocab: &Vocab) -> TokenIndex {
        let mut pieces = TokenIndex::new();
        for with_space in [false, true] {
            for (id, kind) in vocab.ids() {
                let text = self.texts[id as usize].unwrap_or("");
                let wanted = matches!(kind, TokenKind::Normal | TokenKind::UserDefined);
                if wanted && text.contains(' ') == with_space && !vocab.bytes(id).is_empty() {
                    pieces.insert(vocab, id);
                }
            }
        }
        pieces
    }
}

fn bpe(
    model: &JsonModel<'_>,
    slots: &Slots<'_>,
    vocab: &Vocab,
    pieces: &TokenIndex,
    byte_level: bool,
) -> Result<Bpe, TokenizerError> {
    let alphabet = match byte_level {
        true => Alphabet::Bytes(single_bytes(vocab, pieces)),
        false => Alphabet::Characters {
            bytes: slots.bytes.clone(),
            unknown: slots.unknown,
            fuse_unknown: model.fuse_unk,
        },
    };
    let merges = &model.merges.0;
    let mut bpe = Bpe::new(alphabet, merges.len(), model.ignore_merges);
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        let middle = joined.len();
        joined.push_str(right);
        let id = |text: &str| slots.ids.get(text).copied();
        let (Some(left), Some(right), Some(whole)) =
            (id(&joined[..middle]), id(&joined[middle..]), id(&joined))
        else {
            let reason = "its parts or their union are not tokens";
            return Err(TokenizerError::BadMerge { index, text: short(&joined), reason });
        };
        // Text must not become a control token, so a merge that leads to one is left out.
        if [left, right, whole].iter().any(|&id| vocab.kind(id) == Some(TokenKind::Control)) {
            continue;
        }
        // Fits: NUM_MERGES_MAX is below u32::MAX.
        let join = Join { rank: index as u32, id: whole };
        if let Some(first) = bpe.add_merge(left, right, join) {
            let (first, text) = (first as usize, short(&joined));
            return Err(TokenizerError::Duplicate { what: "merge", text, first, second: index });
        }
    }
    Ok(bpe)
}

/// One score per token; added tokens are never part of a path.
fn scores(list: &[(Cow<'_, str>, f64)], num_tokens: usize) -> Result<Vec<f64>, TokenizerError> {
    for (id, (text, score)) in list.iter().enumerate() {
        if !score.is_finite() {
            let reason = "its score is not a finite number";
            return Err(TokenizerError::BadToken { id, text: short(text), reason });
        }
    }
    let lowest = list.iter().map(|&(_, score)| score).reduce(f64::min).unwrap_or(0.0);
    let mut scores: Vec<f64> = list.iter().map(|&(_, score)| score).collect();
    scores.resize(num_tokens, lowest);
    Ok(scores)
}

/// What the template of the post-processor puts around a text: a token before it is BOS, one
/// after it EOS.
fn read_template(post_processor: &Value, slots: &Slots<'_>, parts: &mut Parts) {
    let inner = post_processor["processors"].as_array().map(Vec::as_slice).unwrap_or_default();
    for step in std::iter::once(post_processor).chain(inner) {
        let mut before = true;
        for item in step["single"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = item["SpecialToken"]["id"].as_str();
            let id = name.and_then(|name| slots.ids.get(name)).copied();
            match (id, before) {
                (None, _) => before = false,
                (Some(id), true) => (parts.ids.bos, parts.adds_bos) = (Some(id), true),
                (Some(id), false) => (parts.ids.eos, parts.adds_eos) = (Some(id), true),
            }
        }
    }
}

fn read_config(json: &[u8], slots: &Slots<'_>, parts: &mut Parts) -> Result<(), TokenizerError> {
    check_size("length of tokenizer_config.json", json.len(), JSON_BYTES_MAX)?;
    let read = |source| TokenizerError::Json { file: "tokenizer_config.json", source };
    let config: Value = serde_json::from_slice(json).map_err(read)?;
    // A token is written as its text, or as an object with its text.
    let id = |key: &str| {
        let text = config[key].as_str().or_else(|| config[key]["content"].as_str())?;
        slots.ids.get(text).copied()
    };
    let ids = &mut parts.ids;
    ids.bos = id("bos_token").or(ids.bos);
    ids.eos = id("eos_token").or(ids.eos);
    ids.padding = id("pad_token").or(ids.padding);
    parts.adds_bos = config["add_bos_token"].as_bool().unwrap_or(parts.adds_bos);
    parts.adds_eos = config["add_eos_token"].as_bool().unwrap_or(parts.adds_eos);
    Ok(())
}
