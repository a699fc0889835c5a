//! A `tokenizer.json` and a `tokenizer_config.json` from the vocabulary of a GGUF file, so that a
//! model that came as GGUF can be published as a Hugging Face folder.
//!
//! Byte-level BPE says the same in both formats. SentencePiece does not: its scores would have to
//! become a list of merges that joins in the same order, and runs of spaces need rules of their
//! own (see `spm`); such vocabularies are refused.

use serde_json::{Map, Value, json};

use super::error::{TokenizerError, short};
use super::gguf::{GgufVocab, check_lengths, kinds, word_rule};
use super::vocab::TokenKind;

/// Two files that belong together.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`.
    pub config: String,
}

impl TokenizerFiles {
    /// Both files for a byte-level BPE vocabulary. `context_length` is what the model was made
    /// for.
    ///
    /// # Errors
    /// For other kinds of vocabulary, and for what [`super::Tokenizer::from_gguf`] refuses.
    pub fn from_gguf(
        file: &GgufVocab<'_>,
        context_length: usize,
    ) -> Result<TokenizerFiles, TokenizerError> {
        if file.model != "gpt2" {
            return Err(TokenizerError::Unsupported {
                what: "tokenizer.ggml.model, to be written as tokenizer.json",
                found: short(file.model),
                supported: "gpt2 (byte-level BPE)",
            });
        }
        check_lengths(file)?;
        let rule = word_rule(file.pre.unwrap_or("default"))?;
        let adds_bos = file.add_bos.unwrap_or(rule.adds_bos);
        let name = |id: Option<u32>| id.and_then(|id| file.tokens.get(id as usize)).copied();
        let bos = adds_bos.then(|| name(file.bos)).flatten().zip(file.bos);
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens(file)?,
            "normalizer": rule.nfc.then(|| json!({ "type": "NFC" })),
            "pre_tokenizer": pre_tokenizer(rule.each_digit, rule.pattern),
            "post_processor": bos.map_or_else(byte_level, |(text, id)| begins_with(text, id)),
            "decoder": byte_level(),
            "model": model(file, rule.whole_words)?,
        });
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context_length,
            "clean_up_tokenization_spaces": false,
            "add_bos_token": adds_bos,
            "bos_token": name(file.bos),
            "eos_token": name(file.eos),
            "unk_token": name(file.unknown),
            "pad_token": name(file.padding),
        });
        Ok(TokenizerFiles { tokenizer: tokenizer.to_string(), config: format!("{config:#}\n") })
    }
}

/// Control tokens, which decoding may leave out, and tokens that are found as a whole.
fn added_tokens(file: &GgufVocab<'_>) -> Result<Vec<Value>, TokenizerError> {
    let added = kinds(file)?.into_iter().zip(&file.tokens).enumerate().filter_map(
        |(id, (kind, content))| {
            let is_special = match kind {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                _ => return None,
            };
            Some(json!({
                "id": id,
                "content": content,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": is_special,
            }))
        },
    );
    Ok(added.collect())
}

fn byte_level() -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": false,
    })
}

/// The words that a text is cut into, then their bytes in the byte-level alphabet.
fn pre_tokenizer(each_digit: bool, pattern: &str) -> Value {
    let digits = each_digit.then(|| json!({ "type": "Digits", "individual_digits": true }));
    let words = json!({
        "type": "Split",
        "pattern": { "Regex": pattern },
        "behavior": "Isolated",
        "invert": false,
    });
    let steps: Vec<Value> = digits.into_iter().chain([words, byte_level()]).collect();
    json!({ "type": "Sequence", "pretokenizers": steps })
}

/// One token before every text.
fn begins_with(text: &str, id: u32) -> Value {
    let bos = json!({ "SpecialToken": { "id": text, "type_id": 0 } });
    let sequence = |name| json!({ "Sequence": { "id": name, "type_id": 0 } });
    json!({
        "type": "TemplateProcessing",
        "single": [bos, sequence("A")],
        "pair": [bos, sequence("A"), sequence("B")],
        "special_tokens": { text: { "id": text, "ids": [id], "tokens": [text] } },
    })
}

fn model(file: &GgufVocab<'_>, whole_words: bool) -> Result<Value, TokenizerError> {
    let merges =
        file.merges.as_ref().ok_or(TokenizerError::Missing { what: "tokenizer.ggml.merges" })?;
    let merges = merges
        .iter()
        .enumerate()
        .map(|(index, text)| match text.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(TokenizerError::BadMerge {
                index,
                text: short(text),
                reason: "expected two tokens with a space between",
            }),
        })
        .collect::<Result<Vec<Value>, _>>()?;
    let vocab: Map<String, Value> =
        file.tokens.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id))).collect();
    Ok(json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": whole_words,
        "vocab": vocab,
        "merges": merges,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EncodeOptions, Tokenizer};

    fn vocab() -> GgufVocab<'static> {
        GgufVocab {
            model: "gpt2",
            pre: Some("smollm"),
            tokens: vec!["<s>", "a", "b", "ab", "Ġ", "Ġab", "1", "2", "12", "<tool>", "Ã", "©"],
            token_types: Some(vec![3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1, 1]),
            merges: Some(vec!["a b", "Ġ ab", "1 2"]),
            bos: Some(0),
            eos: Some(0),
            add_bos: Some(true),
            ..GgufVocab::default()
        }
    }

    #[test]
    fn the_files_give_the_same_tokenizer() {
        let files = TokenizerFiles::from_gguf(&vocab(), 64).unwrap();
        let config = files.config.as_bytes();
        let from_json = Tokenizer::from_json(files.tokenizer.as_bytes(), Some(config)).unwrap();
        let from_gguf = Tokenizer::from_gguf(vocab()).unwrap();
        for text in ["ab ab  ab", "12 1", "a<tool>b", "<s>ab", "é a", ""] {
            for parse_special in [false, true] {
                let options = EncodeOptions { parse_special, add_bos: true };
                let expected = from_gguf.encode(text, options).unwrap();
                assert_eq!(from_json.encode(text, options).unwrap(), expected, "{text:?}");
            }
        }
        assert_eq!((from_json.bos(), from_json.adds_bos()), (Some(0), true));
        assert_eq!(from_json.end_of_turn(), from_gguf.end_of_turn());
    }

    #[test]
    fn scores_are_refused() {
        let sentence_piece = GgufVocab { model: "llama", ..vocab() };
        let error = TokenizerFiles::from_gguf(&sentence_piece, 64).unwrap_err().to_string();
        assert!(error.contains("\"llama\""), "{error}");
    }
}
