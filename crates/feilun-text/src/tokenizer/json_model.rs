//! The `model` of a `tokenizer.json`, read with bounds and without a tree of JSON values: a
//! vocabulary of 262,144 tokens with half a million merges is common.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::vocab::{NUM_TOKENS_MAX, TOKEN_BYTES_MAX};

/// Merges in use number about twice the tokens.
const NUM_MERGES_MAX: usize = NUM_TOKENS_MAX * 2;

/// The fields of `BPE` and `Unigram`; others of theirs change nothing here.
#[derive(Deserialize)]
pub(super) struct JsonModel<'j> {
    /// Missing in old files, which are BPE.
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    #[serde(borrow)]
    pub(super) vocab: JsonVocab<'j>,
    #[serde(borrow, default)]
    pub(super) merges: JsonMerges<'j>,
    #[serde(default)]
    pub(super) dropout: Option<f64>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) unk_id: Option<u64>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
}

/// A text that borrows from the file where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'j>(#[serde(borrow)] pub(super) Cow<'j, str>);

/// `{"token": id}` of BPE or `[["token", score]]` of Unigram.
pub(super) enum JsonVocab<'j> {
    Ids(Vec<(Cow<'j, str>, u64)>),
    Scores(Vec<(Cow<'j, str>, f64)>),
}

impl<'de: 'j, 'j> Deserialize<'de> for JsonVocab<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = JsonVocab<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id, or a list of pairs of token and score")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ids = Vec::new();
                while let Some((Text(token), id)) = map.next_entry::<Text<'de>, u64>()? {
                    bound::<A::Error>(ids.len(), NUM_TOKENS_MAX, &token)?;
                    ids.push((token, id));
                }
                Ok(JsonVocab::Ids(ids))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut scores = Vec::new();
                while let Some((Text(token), score)) = seq.next_element::<(Text<'de>, f64)>()? {
                    bound::<A::Error>(scores.len(), NUM_TOKENS_MAX, &token)?;
                    scores.push((token, score));
                }
                Ok(JsonVocab::Scores(scores))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

/// `["left right"]` or `[["left", "right"]]`, best first.
#[derive(Default)]
pub(super) struct JsonMerges<'j>(pub(super) Vec<(Cow<'j, str>, Cow<'j, str>)>);

impl<'de: 'j, 'j> Deserialize<'de> for JsonMerges<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges;
        impl<'de> Visitor<'de> for Merges {
            type Value = JsonMerges<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut merges = Vec::new();
                while let Some(Merge(left, right)) = seq.next_element::<Merge<'de>>()? {
                    bound::<A::Error>(merges.len(), NUM_MERGES_MAX, &left)?;
                    bound::<A::Error>(0, 1, &right)?;
                    merges.push((left, right));
                }
                Ok(JsonMerges(merges))
            }
        }
        deserializer.deserialize_seq(Merges)
    }
}

struct Merge<'j>(Cow<'j, str>, Cow<'j, str>);

impl<'de: 'j, 'j> Deserialize<'de> for Merge<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"left right\" or [\"left\", \"right\"]")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                let (left, right) = halves(text)?;
                Ok(Merge(left.into(), right.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let (left, right) = halves(text)?;
                Ok(Merge(left.to_string().into(), right.to_string().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut next = |index| {
                    seq.next_element::<Text<'de>>()?
                        .ok_or_else(|| Error::invalid_length(index, &Pair))
                };
                let (Text(left), Text(right)) = (next(0)?, next(1)?);
                match seq.next_element::<Text<'de>>()? {
                    None => Ok(Merge(left, right)),
                    Some(_) => Err(Error::invalid_length(3, &Pair)),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

fn halves<E: Error>(text: &str) -> Result<(&str, &str), E> {
    text.split_once(' ')
        .filter(|(_, right)| !right.contains(' '))
        .ok_or_else(|| Error::custom("a merge is two tokens with a space between"))
}

/// Stops reading as soon as there is too much.
fn bound<E: Error>(num: usize, num_max: usize, text: &str) -> Result<(), E> {
    if num >= num_max {
        return Err(Error::custom(format_args!("more than {num_max} elements")));
    }
    if text.len() > TOKEN_BYTES_MAX {
        return Err(Error::custom(format_args!("a token is longer than {TOKEN_BYTES_MAX} bytes")));
    }
    Ok(())
}
