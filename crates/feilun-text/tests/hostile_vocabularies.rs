//! Vocabularies that lie: each is a named error or harmless, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

mod common;

use feilun_text::{EncodeOptions, GgufVocab, Tokenizer, TokenizerError};

fn spm<'a>(tokens: &[&'a str], types: &[i32]) -> GgufVocab<'a> {
    GgufVocab {
        model: "llama",
        tokens: tokens.to_vec(),
        token_types: Some(types.to_vec()),
        scores: Some(vec![0.0; tokens.len()]),
        ..GgufVocab::default()
    }
}

fn bpe<'a>(tokens: &[&'a str], merges: &[&'a str]) -> GgufVocab<'a> {
    GgufVocab {
        model: "gpt2",
        tokens: tokens.to_vec(),
        merges: Some(merges.to_vec()),
        ..GgufVocab::default()
    }
}

#[track_caller]
fn refused(vocab: GgufVocab<'_>, expected: &str) {
    let error = Tokenizer::from_gguf(vocab).unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    assert!(error.len() < 400, "the message repeats what a hostile file says: {error}");
}

#[test]
fn lying_vocabularies_are_refused() {
    refused(GgufVocab::default(), "tokenizer.ggml.tokens is missing");
    refused(spm(&["a", "a"], &[1, 1]), "token \"a\" appears twice, at 0 and at 1");
    refused(spm(&["a", "b"], &[1]), "tokenizer.ggml.token_type: found 1 elements, expected 2");
    refused(
        GgufVocab { scores: Some(vec![0.0; 3]), ..spm(&["a"], &[1]) },
        "tokenizer.ggml.scores: found 3 elements, expected 1",
    );
    refused(GgufVocab { scores: None, ..spm(&["a"], &[1]) }, "scores is missing");
    refused(GgufVocab { scores: Some(vec![f32::NAN]), ..spm(&["a"], &[1]) }, "finite");
    refused(GgufVocab { scores: Some(vec![f32::INFINITY]), ..spm(&["a"], &[1]) }, "finite");
    refused(spm(&["a"], &[7]), "token 0 \"a\": its type");
    refused(spm(&["a"], &[i32::MIN]), "its type");
    for byte in ["<0x-1>", "<0x100>", "<0x>", "0", "", "<0xZZ>"] {
        refused(spm(&[byte], &[6]), "a byte token is written <0xNN>");
    }
    refused(spm(&["<0x0a>", "<0x0A>"], &[6, 6]), "byte token \"<0x0A>\" appears twice");
    let huge = "x".repeat(1 << 15);
    refused(spm(&[&huge], &[1]), "length of a token: 32768 is more than the limit");
    refused(GgufVocab { bos: Some(1), ..spm(&["a"], &[1]) }, "bos_token_id: id 1 is outside");
    refused(GgufVocab { eos: Some(u32::MAX), ..spm(&["a"], &[1]) }, "eos_token_id: id 4294967295");
    refused(GgufVocab { model: "rwkv", ..spm(&["a"], &[1]) }, "\"rwkv\" is not supported");
    refused(GgufVocab { model: &huge, ..spm(&["a"], &[1]) }, "is not supported");

    refused(GgufVocab { merges: None, ..bpe(&["a"], &[]) }, "merges is missing");
    refused(GgufVocab { pre: Some("plamo2"), ..bpe(&["a"], &[]) }, "tokenizer.ggml.pre \"plamo2\"");
    refused(bpe(&["a", "b"], &["a b"]), "merge 0 \"a b\": not made of normal tokens");
    refused(bpe(&["a", "b", "ab"], &["ab"]), "expected two tokens with a space between");
    refused(bpe(&["a", "b", "ab"], &["a b", "a b"]), "merge \"a b\" appears twice, at 0 and at 1");
    refused(bpe(&["a", "aa"], &["a  a"]), "not made of normal tokens");
    // Text may not merge into a control token.
    let control =
        GgufVocab { token_types: Some(vec![1, 1, 3]), ..bpe(&["a", "b", "ab"], &["a b"]) };
    refused(control, "not made of normal tokens");

    let table: &[u8] = &[255, 255, 255, 255];
    let charsmap = GgufVocab { precompiled_charsmap: Some(table), ..spm(&["a"], &[1]) };
    refused(GgufVocab { model: "t5", ..charsmap }, "precompiled_charsmap");
}

#[test]
fn many_tokens_are_refused_before_they_are_copied() {
    let names: Vec<String> = (0..(1 << 21) + 1).map(|i| i.to_string()).collect();
    let tokens: Vec<&str> = names.iter().map(String::as_str).collect();
    refused(GgufVocab { scores: None, token_types: None, ..spm(&tokens, &[]) }, "missing");
    let scores = Some(vec![0.0; tokens.len()]);
    refused(GgufVocab { scores, token_types: None, ..spm(&tokens, &[]) }, "number of tokens");
}

#[test]
fn empty_and_odd_tokens_do_no_harm() {
    let vocab = spm(&["", "a", "\u{0}", "▁", "<0x-1>"], &[4, 1, 3, 1, 1]);
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    let ids = tokenizer.encode("aa a", EncodeOptions::default()).unwrap();
    assert_eq!(ids, [3, 1, 1, 3, 1]);
    assert_eq!(tokenizer.decode(&ids, true), "aa a");
    assert_eq!(tokenizer.decode(&[u32::MAX, 1], false), "a");
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    let error = tokenizer.encode("b", EncodeOptions::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::NoToken { character: 'b' }), "{error}");
}

#[test]
fn long_texts_are_refused_or_encoded_in_time() {
    let tokenizer = &common::GEMMA3;
    let limit = feilun_text::tokenizer::TEXT_BYTES_MAX;
    let error = tokenizer.encode(&"a".repeat(limit + 1), EncodeOptions::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::TooLarge { .. }), "{error}");
    for text in ["a".repeat(limit / 4), " ".repeat(limit / 4), "aé🦀<eos>▁".repeat(limit / 64)]
    {
        for tokenizer in [tokenizer, &*common::SMOLLM2] {
            let started = std::time::Instant::now();
            tokenizer.encode(&text, EncodeOptions::default()).unwrap();
            assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        }
    }
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    for tokenizer in [&*common::SMOLLM2, &*common::GEMMA3] {
        let all: String = tokenizer.controls().map(|(_, text)| text).collect();
        let ids = tokenizer.encode(&all, EncodeOptions::default()).unwrap();
        assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));
        assert_eq!(tokenizer.decode(&ids, true), all);
        let options = EncodeOptions { parse_special: true, ..EncodeOptions::default() };
        let ids = tokenizer.encode(&all, options).unwrap();
        let expected: Vec<u32> = tokenizer.controls().map(|(id, _)| id).collect();
        assert_eq!(ids, expected);
    }
}

#[test]
fn special_ids_of_the_real_models() {
    let smollm2 = &common::SMOLLM2;
    assert_eq!((smollm2.bos(), smollm2.eos()), (Some(1), Some(2)));
    assert_eq!(smollm2.end_of_turn(), [0, 2]);
    assert!(!smollm2.adds_bos());
    assert_eq!(smollm2.vocab_size(), 49_152);
    assert_eq!(smollm2.token_id("<|im_end|>"), Some(2));
    let gemma3 = &common::GEMMA3;
    // `</s>` is HTML to Gemma and ends nothing.
    assert_eq!(gemma3.end_of_turn(), [1, 106]);
    assert!(gemma3.adds_bos());
    assert_eq!(gemma3.token_bytes(gemma3.token_id(" the").unwrap()), b" the");
}
