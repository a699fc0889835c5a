//! The vocabulary of a GGUF file from a `tokenizer.json`, so that a model that came as a Hugging
//! Face folder can be written as GGUF. The way back is `gguf_json.rs`.
//!
//! GGUF has names for ways of cutting text into words, not the ways themselves; and SentencePiece
//! has scores where `tokenizer.json` has a list of merges. A tokenizer that these cannot say is
//! refused: one that is almost right would be worse than none.

use hashbrown::{HashMap, HashSet};

use super::Tokenizer;
use super::error::{TokenizerError, short};
use super::gguf::{GgufVocab, word_rule};
use super::json::{File, Slots, read_file};
use super::json_steps::Steps;
use super::normalize::Normalize;
use super::split::{Behaviour, Split};
use super::vocab::TokenKind;

/// One name for each way of cutting that GGUF files know.
const WORD_RULES: [&str; 5] = ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"];

/// What the fields `tokenizer.ggml.*` borrow from.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTexts {
    model: &'static str,
    pre: &'static str,
    tokens: Vec<String>,
    token_types: Vec<i32>,
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    add_space_prefix: Option<bool>,
    ids: Ids,
}

#[derive(Clone, Debug, PartialEq)]
struct Ids {
    bos: Option<u32>,
    eos: Option<u32>,
    /// Ends of a turn besides `eos`; GGUF has room for two.
    more_ends: [Option<u32>; 2],
    unknown: Option<u32>,
    padding: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
}

impl GgufTexts {
    /// The vocabulary for a model whose embedding has `num_rows` rows; rows without a token get
    /// one that nothing produces. `ends` are the tokens that the model's files say end an answer,
    /// the first of them as EOS.
    ///
    /// # Errors
    /// For what [`Tokenizer::from_json`] refuses, and for what GGUF cannot say.
    pub fn from_json(
        json: &[u8],
        config: Option<&[u8]>,
        num_rows: usize,
        ends: &[u32],
    ) -> Result<GgufTexts, TokenizerError> {
        let tokenizer = Tokenizer::from_json(json, config)?;
        let file = read_file(json)?;
        let (steps, slots) = (Steps::of_file(&file)?, Slots::new(&file)?);
        check_added(&file)?;
        if slots.texts.len() > num_rows {
            let id = slots.texts.len() as u64 - 1;
            let what = "tokenizer.json, of a model with fewer rows,";
            return Err(TokenizerError::IdOutOfRange { what, id, vocab_size: num_rows });
        }
        let (tokens, token_types) = padded(&slots, num_rows);
        let mut texts = GgufTexts {
            model: "gpt2",
            pre: "default",
            tokens,
            token_types,
            scores: None,
            merges: None,
            add_space_prefix: None,
            ids: Ids::of(&tokenizer, ends),
        };
        if steps.byte_level {
            texts.pre = name_of_rule(&steps, file.model.ignore_merges)?;
            texts.merges = Some(merges(&file, &slots));
        } else {
            texts.model = "llama";
            texts.add_space_prefix = Some(space_prefix(&steps)?);
            texts.scores = Some(scores(&file, &slots, num_rows)?);
        }
        // Whoever reads the file has to come to a tokenizer.
        Tokenizer::from_gguf(texts.vocab())?;
        Ok(texts)
    }

    /// The fields, as a GGUF file has them.
    pub fn vocab(&self) -> GgufVocab<'_> {
        fn texts(list: &[String]) -> Vec<&str> {
            list.iter().map(String::as_str).collect()
        }
        GgufVocab {
            model: self.model,
            pre: Some(self.pre),
            tokens: texts(&self.tokens),
            token_types: Some(self.token_types.clone()),
            scores: self.scores.clone(),
            merges: self.merges.as_deref().map(texts),
            add_bos: Some(self.ids.adds_bos),
            add_eos: Some(self.ids.adds_eos),
            add_space_prefix: self.add_space_prefix,
            remove_extra_whitespaces: None,
            precompiled_charsmap: None,
            bos: self.ids.bos,
            eos: self.ids.eos,
            eot: self.ids.more_ends[0],
            eom: self.ids.more_ends[1],
            unknown: self.ids.unknown,
            padding: self.ids.padding,
        }
    }
}

impl Ids {
    fn of(tokenizer: &Tokenizer, ends: &[u32]) -> Ids {
        let eos = ends.first().copied().or(tokenizer.eos());
        // Those that end a turn by their name alone do so in a GGUF file too.
        let mut more = ends.iter().copied().chain(tokenizer.eos()).filter(|&id| Some(id) != eos);
        let eot = more.next();
        let eom = more.find(|&id| Some(id) != eot);
        Ids {
            bos: tokenizer.bos(),
            eos,
            more_ends: [eot, eom],
            unknown: tokenizer.unknown(),
            padding: tokenizer.padding(),
            adds_bos: tokenizer.adds_bos(),
            adds_eos: tokenizer.adds_eos(),
        }
    }
}

fn refused(what: &'static str, found: &str, supported: &'static str) -> TokenizerError {
    TokenizerError::Unsupported { what, found: short(found), supported }
}

/// Flags of added tokens that GGUF has no room for.
fn check_added(file: &File<'_>) -> Result<(), TokenizerError> {
    let flagged = |added: &&super::json::Added| added.single_word || added.lstrip || added.rstrip;
    match file.added_tokens.iter().find(flagged) {
        None => Ok(()),
        Some(added) => Err(refused(
            "added token, to be written as GGUF,",
            &added.content,
            "tokens without single_word, lstrip and rstrip",
        )),
    }
}

/// The tokens with their GGUF types, and fillers for rows without one.
fn padded(slots: &Slots<'_>, num_rows: usize) -> (Vec<String>, Vec<i32>) {
    let mut taken: HashSet<String> = slots.texts.iter().flatten().map(|&t| t.to_owned()).collect();
    let mut filler = |id: usize| {
        let mut text = format!("[PAD{id}]");
        while !taken.insert(text.clone()) {
            text.push('_');
        }
        text
    };
    (0..num_rows)
        .map(|id| match slots.texts.get(id).copied().flatten() {
            Some(text) => (text.to_owned(), type_number(slots.kinds[id])),
            None => (filler(id), type_number(TokenKind::Unused)),
        })
        .unzip()
}

fn type_number(kind: TokenKind) -> i32 {
    match kind {
        TokenKind::Normal => 1,
        TokenKind::Unknown => 2,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
        TokenKind::Unused => 5,
        TokenKind::Byte => 6,
    }
}

/// The name under which GGUF files know this way of cutting text into words.
fn name_of_rule(steps: &Steps, whole_words: bool) -> Result<&'static str, TokenizerError> {
    let nfc = match steps.normalize.as_slice() {
        [] => false,
        [Normalize::Nfc] => true,
        _ => return Err(refused("normalizer, to be written as GGUF,", "another", "none, NFC")),
    };
    let (each_digit, words) = match steps.split.as_slice() {
        [Split::Digits { each: true }, words] => (true, Some(words)),
        [words] => (false, Some(words)),
        _ => (false, None),
    };
    let pattern = match words {
        Some(Split::Pattern { pattern, behaviour: Behaviour::Isolated, invert: false }) => {
            pattern.source()
        }
        // What lies between the matches goes, and the expression leaves nothing between them.
        Some(Split::Pattern { pattern, behaviour: Behaviour::Removed, invert: true }) => {
            pattern.source()
        }
        _ => "other steps than digits and an expression",
    };
    for name in WORD_RULES {
        let rule = word_rule(name)?;
        if (rule.each_digit, rule.pattern, rule.nfc, rule.whole_words)
            == (each_digit, pattern, nfc, whole_words)
        {
            return Ok(name);
        }
    }
    let supported = "those of GPT-2, SmolLM, Llama 3, Qwen 2 and Mistral Nemo";
    Err(refused("pre_tokenizer, to be written as GGUF,", pattern, supported))
}

/// The merges between normal tokens. Others never come to pass: the spelling of an added token is
/// found before the text is cut.
fn merges(file: &File<'_>, slots: &Slots<'_>) -> Vec<String> {
    let mut joined = String::new();
    let all = file.model.merges.0.iter();
    all.filter(|(left, right)| {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        [left, right, joined.as_str()].iter().all(|&text| is_normal(slots, text))
    })
    .map(|(left, right)| format!("{left} {right}"))
    .collect()
}

fn is_normal(slots: &Slots<'_>, text: &str) -> bool {
    slots.ids.get(text).is_some_and(|&id| slots.kinds[id as usize] == TokenKind::Normal)
}

/// Whether a space goes before every text; the other steps have to be those of SentencePiece.
fn space_prefix(steps: &Steps) -> Result<bool, TokenizerError> {
    // There are no spaces left to cut at.
    let cuts_nothing = |split: &Split| matches!(split, Split::Pattern { pattern, invert: false, .. } if pattern.source() == " ");
    let underscores = |step: &Normalize| matches!(step, Normalize::Replace { from, to } if from == " " && to == "▁");
    let refuse = || {
        let what = "steps, to be written as GGUF,";
        Err(refused(what, "others", "spaces replaced by ▁, at most one put before the text"))
    };
    if !steps.split.iter().all(cuts_nothing) {
        return refuse();
    }
    match steps.normalize.as_slice() {
        [replace] if underscores(replace) => Ok(false),
        [Normalize::Prepend(first), replace] if first == "▁" && underscores(replace) => Ok(true),
        _ => refuse(),
    }
}

/// A score for each token that joins in the order of the merges.
///
/// SentencePiece joins any two neighbours that are a piece together, the best piece first. So all
/// merges to one piece have to stand together, and no two pieces may make a third without one.
fn scores(file: &File<'_>, slots: &Slots<'_>, num_rows: usize) -> Result<Vec<f32>, TokenizerError> {
    if file.model.ignore_merges || slots.bytes.is_none() {
        let supported = "BPE over bytes, or over characters with byte_fallback";
        return Err(refused("model, to be written as GGUF,", "another", supported));
    }
    let mut place_of: HashMap<u32, usize> = HashMap::new();
    let mut pairs: HashSet<(u32, u32)> = HashSet::new();
    let mut before = None;
    let mut joined = String::new();
    for (index, (left, right)) in file.model.merges.0.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |text: &str| slots.ids.get(text).copied();
        // Merges of what is no token were refused when the tokenizer was made.
        let (Some(left), Some(right), Some(whole)) = (id(left), id(right), id(&joined)) else {
            continue;
        };
        pairs.insert((left, right));
        if before != Some(whole) && place_of.insert(whole, place_of.len()).is_some() {
            let reason = "merges to the same token do not stand together, which scores cannot say";
            return Err(TokenizerError::BadMerge { index, text: short(&joined), reason });
        }
        before = Some(whole);
    }
    for (text, kind) in slots.texts.iter().zip(&slots.kinds) {
        let Some(text) = text.filter(|_| *kind == TokenKind::Normal) else { continue };
        let mut cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let joins_alone = cuts.any(|(left, right)| {
            let pair = (slots.ids.get(left), slots.ids.get(right));
            let is_piece = |id: u32| slots.kinds[id as usize] == TokenKind::Normal;
            matches!(pair, (Some(&a), Some(&b)) if is_piece(a) && is_piece(b) && !pairs.contains(&(a, b)))
        });
        if joins_alone {
            let what = "token that is two others but has no merge";
            return Err(refused(what, text, "a merge for each pair of tokens that make a token"));
        }
    }
    // Exact in f32: there are fewer than 2^24 tokens.
    let mut scores = vec![0.0; num_rows];
    for (id, place) in place_of {
        scores[id as usize] = -(place as f32);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{EncodeOptions, TokenizerFiles};

    fn converted(json: &Value, num_rows: usize) -> Result<GgufTexts, TokenizerError> {
        GgufTexts::from_json(json.to_string().as_bytes(), None, num_rows, &[])
    }

    /// Both ways of reading give the same ids.
    fn check(json: &Value, num_rows: usize, texts: &[&str]) -> GgufTexts {
        let found = converted(json, num_rows).unwrap();
        let from_json = Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap();
        let from_gguf = Tokenizer::from_gguf(found.vocab()).unwrap();
        assert_eq!(from_gguf.vocab_size(), num_rows);
        for text in texts {
            for parse_special in [false, true] {
                let options = EncodeOptions { parse_special, add_bos: from_json.adds_bos() };
                let expected = from_json.encode(text, options).unwrap();
                assert_eq!(from_gguf.encode(text, options).unwrap(), expected, "{text:?}");
                assert_eq!(from_gguf.decode(&expected, false), from_json.decode(&expected, false));
            }
        }
        found
    }

    fn byte_level() -> Value {
        json!({
            "added_tokens": [
                { "id": 9, "content": "<|im_end|>", "special": true },
                { "id": 10, "content": "<tool>", "special": false },
            ],
            "normalizer": null,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Digits", "individual_digits": true },
                { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
            ]},
            "decoder": { "type": "ByteLevel" },
            "model": {
                "type": "BPE",
                "vocab": { "a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4, "1": 5, "2": 6, "12": 7 },
                "merges": ["a b", "Ġ ab", "1 2"],
            },
        })
    }

    #[test]
    fn bytes_keep_their_merges() {
        let texts = ["ab ab  ab", "12 1", "a<tool>b", "ab<|im_end|>ab", ""];
        let found = check(&byte_level(), 12, &texts);
        let vocab = found.vocab();
        assert_eq!((vocab.model, vocab.pre), ("gpt2", Some("smollm")));
        // Id 8 has no token, and the embedding has a row more than the tokenizer.
        assert_eq!((vocab.tokens[8], vocab.tokens[11]), ("[PAD8]", "[PAD11]"));
        assert_eq!(vocab.token_types.unwrap()[8..], [5, 3, 4, 5]);
    }

    #[test]
    fn there_and_back_is_the_same() {
        let there = converted(&byte_level(), 12).unwrap();
        let files = TokenizerFiles::from_gguf(&there.vocab(), 64).unwrap();
        let config = files.config.as_bytes();
        let back = GgufTexts::from_json(files.tokenizer.as_bytes(), Some(config), 12, &[]).unwrap();
        assert_eq!(back.vocab().merges, there.vocab().merges);
        assert_eq!(back.vocab().pre, there.vocab().pre);
        assert_eq!(back.vocab().token_types.unwrap()[..8], [1; 8]);
    }

    fn sentence_piece(merges: &Value) -> Value {
        let mut vocab = json!({
            "<unk>": 0, "<bos>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6, "▁a": 7, "abab": 8,
        });
        for byte in 0..=255 {
            vocab[format!("<0x{byte:02X}>")] = json!(9 + byte);
        }
        json!({
            "added_tokens": [{ "id": 1, "content": "<bos>", "special": true }],
            "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            "pre_tokenizer": {
                "type": "Split",
                "pattern": { "String": " " },
                "behavior": "MergedWithPrevious",
                "invert": false,
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{ "SpecialToken": { "id": "<bos>" } }, { "Sequence": { "id": "A" } }],
            },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
                { "type": "ByteFallback" },
                { "type": "Fuse" },
            ]},
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "fuse_unk": true,
                "byte_fallback": true,
                "vocab": vocab,
                "merges": merges,
            },
        })
    }

    #[test]
    fn merges_become_scores() {
        let merges = json!([["a", "b"], ["▁", "a"], ["▁", "ab"], ["▁a", "b"], ["ab", "ab"]]);
        let texts = ["ab abab b a", " a", "aab  ab", "é<bos>ab", ""];
        let found = check(&sentence_piece(&merges), 265, &texts);
        let vocab = found.vocab();
        assert_eq!((vocab.model, vocab.add_space_prefix), ("llama", Some(false)));
        assert_eq!((vocab.add_bos, vocab.bos), (Some(true), Some(1)));
        let scores = vocab.scores.unwrap();
        assert_eq!(scores[5..9], [0.0, -2.0, -1.0, -3.0]);
    }

    #[test]
    fn what_scores_cannot_say_is_refused() {
        let refused = |merges: &Value| converted(&sentence_piece(merges), 265).unwrap_err();
        let apart = json!([["▁", "ab"], ["a", "b"], ["▁", "a"], ["▁a", "b"], ["ab", "ab"]]);
        assert!(refused(&apart).to_string().contains("stand together"), "{}", refused(&apart));
        let missing = json!([["a", "b"], ["▁", "a"], ["▁", "ab"], ["ab", "ab"]]);
        assert!(refused(&missing).to_string().contains("▁ab"), "{}", refused(&missing));
    }

    #[test]
    fn what_gguf_has_no_name_for_is_refused() {
        let refused = |pointer: &str, value: Value, num_rows: usize, word: &str| {
            let mut json = byte_level();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = converted(&json, num_rows).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        let lowercase = json!({ "type": "Lowercase" });
        refused("/normalizer", lowercase, 12, "normalizer");
        let pattern = json!({ "Regex": "x+" });
        let split = json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated" });
        refused("/pre_tokenizer/pretokenizers/0", split, 12, "pre_tokenizer");
        refused(
            "/added_tokens/1",
            json!({ "id": 10, "content": "x", "lstrip": true }),
            12,
            "\"x\"",
        );
        refused("/normalizer", json!(null), 10, "10");
    }
}
