//! The tokenizer of a GGUF file as plain data: what is in the file, with types and lengths
//! checked. What it means is `feilun-text`'s to say.

use crate::gguf::{Gguf, GgufError};
use crate::gguf_value::{Array, Value};

/// The fields `tokenizer.ggml.*`, borrowed from the file where they are strings.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufVocabulary<'a> {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece), and kinds that may not be supported.
    pub model: &'a str,
    /// How `gpt2` splits text before BPE, such as `smollm` or `qwen2`.
    pub pre: Option<&'a str>,
    /// The pieces; index = token id. Not empty.
    pub tokens: Vec<&'a str>,
    /// One per token: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// One per token.
    pub scores: Option<Vec<f32>>,
    /// BPE merges in order, `left right`.
    pub merges: Option<Vec<&'a str>>,
    /// Whether a BOS token comes first.
    pub add_bos: Option<bool>,
    /// Whether an EOS token comes last.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece puts a space before the text.
    pub add_space_prefix: Option<bool>,
    /// Whether runs of spaces become one.
    pub remove_extra_whitespaces: Option<bool>,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of a turn, where it differs from `eos`.
    pub eot: Option<u32>,
    /// End of a message, where it differs from `eos`.
    pub eom: Option<u32>,
    /// Unknown.
    pub unknown: Option<u32>,
    /// Padding.
    pub padding: Option<u32>,
}

/// The ids that end or begin something.
pub(crate) struct SpecialIds {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) eot: Option<u32>,
    pub(crate) eom: Option<u32>,
}

impl<'a> GgufVocabulary<'a> {
    /// Tokens of a kind, and nothing said about them.
    pub fn of_tokens(model: &'a str, tokens: Vec<&'a str>) -> GgufVocabulary<'a> {
        GgufVocabulary {
            model,
            tokens,
            pre: None,
            token_types: None,
            scores: None,
            merges: None,
            add_bos: None,
            add_eos: None,
            add_space_prefix: None,
            remove_extra_whitespaces: None,
            bos: None,
            eos: None,
            eot: None,
            eom: None,
            unknown: None,
            padding: None,
        }
    }

    /// Number of tokens, without reading them.
    pub fn num_tokens<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<usize, GgufError> {
        let key = "tokenizer.ggml.tokens";
        let missing = || GgufError::MissingKey { key: key.into() };
        Ok(array(gguf, key)?.ok_or_else(missing)?.len())
    }

    /// The ids alone, without reading the tokens.
    pub(crate) fn special_ids<B: AsRef<[u8]>>(gguf: &Gguf<B>) -> Result<SpecialIds, GgufError> {
        let num_tokens = GgufVocabulary::num_tokens(gguf)?;
        let id = |name: &str| token_id(gguf, name, num_tokens);
        Ok(SpecialIds {
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            eom: id("eom_token_id")?,
        })
    }

    /// Reads and checks the fields.
    pub fn read<B: AsRef<[u8]>>(gguf: &'a Gguf<B>) -> Result<GgufVocabulary<'a>, GgufError> {
        let tokens = strings(gguf, "tokenizer.ggml.tokens")?
            .ok_or_else(|| GgufError::MissingKey { key: "tokenizer.ggml.tokens".into() })?;
        let num_tokens = tokens.len();
        if num_tokens == 0 {
            return Err(wrong_type(
                "tokenizer.ggml.tokens",
                "an empty array".into(),
                "at least one token",
            ));
        }
        let ids = GgufVocabulary::special_ids(gguf)?;
        Ok(GgufVocabulary {
            model: gguf.required_string("tokenizer.ggml.model")?,
            pre: gguf.string("tokenizer.ggml.pre")?,
            token_types: per_token(gguf, "tokenizer.ggml.token_type", num_tokens, |array| {
                array.integers().map(Iterator::collect)
            })?,
            scores: per_token(gguf, "tokenizer.ggml.scores", num_tokens, |array| {
                array.floats().map(Iterator::collect)
            })?,
            merges: strings(gguf, "tokenizer.ggml.merges")?,
            add_bos: gguf.boolean("tokenizer.ggml.add_bos_token")?,
            add_eos: gguf.boolean("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: gguf.boolean("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: gguf.boolean("tokenizer.ggml.remove_extra_whitespaces")?,
            bos: ids.bos,
            eos: ids.eos,
            eot: ids.eot,
            eom: ids.eom,
            unknown: token_id(gguf, "unknown_token_id", num_tokens)?,
            padding: token_id(gguf, "padding_token_id", num_tokens)?,
            tokens,
        })
    }
}

fn array<'a, B: AsRef<[u8]>>(gguf: &'a Gguf<B>, key: &str) -> Result<Option<Array<'a>>, GgufError> {
    match gguf.value(key)? {
        None => Ok(None),
        Some(Value::Array(array)) => Ok(Some(array)),
        Some(other) => Err(wrong_type(key, other.describe(), "an array")),
    }
}

fn strings<'a, B: AsRef<[u8]>>(
    gguf: &'a Gguf<B>,
    key: &str,
) -> Result<Option<Vec<&'a str>>, GgufError> {
    let Some(array) = array(gguf, key)? else { return Ok(None) };
    let Some(items) = array.strings() else {
        return Err(wrong_type(key, Value::Array(array).describe(), "an array of strings"));
    };
    // The length was checked against the bytes of the file: at least 8 for each string.
    let mut texts = Vec::with_capacity(array.len());
    for (index, bytes) in items.enumerate() {
        let text = std::str::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 {
            what: format!("element {index} of key {key:?}").into(),
            at: index,
        })?;
        texts.push(text);
    }
    Ok(Some(texts))
}

fn per_token<'a, T, B: AsRef<[u8]>>(
    gguf: &'a Gguf<B>,
    key: &str,
    num_tokens: usize,
    collect: impl FnOnce(&Array<'a>) -> Option<Vec<T>>,
) -> Result<Option<Vec<T>>, GgufError> {
    let Some(array) = array(gguf, key)? else { return Ok(None) };
    let found = || Value::Array(array).describe();
    if array.len() != num_tokens {
        return Err(wrong_type(key, found(), "one element per token"));
    }
    match collect(&array) {
        Some(values) => Ok(Some(values)),
        None => Err(wrong_type(key, found(), "an array of 32-bit integers (types) or floats")),
    }
}

fn token_id<B: AsRef<[u8]>>(
    gguf: &Gguf<B>,
    name: &str,
    num_tokens: usize,
) -> Result<Option<u32>, GgufError> {
    let key = format!("tokenizer.ggml.{name}");
    let Some(found) = gguf.integer(&key)? else { return Ok(None) };
    match u32::try_from(found) {
        Ok(id) if (id as usize) < num_tokens => Ok(Some(id)),
        // Converters write 0xffffffff for "none".
        Ok(u32::MAX) => Ok(None),
        _ => Err(wrong_type(&key, found.to_string(), "an id of the vocabulary")),
    }
}

fn wrong_type(key: &str, found: String, expected: &'static str) -> GgufError {
    GgufError::WrongType { key: key.into(), found, expected }
}
