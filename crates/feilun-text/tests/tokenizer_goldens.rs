//! Token ids equal to those of the reference tokenizers on a torture set, made by
//! `scripts/goldens/make.py tokenizers`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

mod common;

use feilun_infer::model_text::gguf_vocab;
use feilun_model::gguf_vocabulary::GgufVocabulary;
use feilun_text::{EncodeOptions, GgufTexts, Tokenizer, TokenizerFiles};
use serde_json::Value;

fn check(tokenizer: &Tokenizer, golden: &str) {
    let path = format!("{}/tests/goldens/{golden}", env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read_to_string(&path).unwrap();
    let golden_file: Value = serde_json::from_str(&json).unwrap();
    let items = golden_file["items"].as_array().unwrap();
    assert!(items.len() > 50, "{golden} has only {} items", items.len());
    for item in items {
        let text = item["text"].as_str().unwrap();
        let options = EncodeOptions {
            // The file says whether BOS is asked for; SmolLM2 adds none.
            add_bos: item["add_bos"].as_bool().unwrap() && tokenizer.adds_bos(),
            parse_special: item["parse_special"].as_bool().unwrap(),
        };
        let expected: Vec<u32> =
            item["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let found = tokenizer.encode(text, options).unwrap();
        assert_eq!(found, expected, "{golden} {text:?} {options:?}");
    }
}

#[test]
fn smollm2_equals_the_reference() {
    check(&common::SMOLLM2, "tokenizer_smollm2.json");
}

#[test]
fn smollm2_equals_the_reference_by_way_of_tokenizer_json() {
    let texts = common::with_gguf("smollm2.gguf", |gguf| {
        let vocab = gguf_vocab(GgufVocabulary::read(gguf).unwrap());
        let files = TokenizerFiles::from_gguf(&vocab, 8192).unwrap();
        let (json, config) = (files.tokenizer.as_bytes(), files.config.as_bytes());
        let ends: Vec<u32> = vocab.eos.into_iter().collect();
        let texts = GgufTexts::from_json(json, Some(config), vocab.tokens.len(), &ends).unwrap();
        assert_eq!(texts.vocab().pre, vocab.pre);
        assert_eq!(texts.vocab().token_types, vocab.token_types);
        texts
    });
    check(&Tokenizer::from_gguf(texts.vocab()).unwrap(), "tokenizer_smollm2.json");
}

#[test]
fn gemma3_equals_the_reference() {
    check(&common::GEMMA3, "tokenizer_gemma3.json");
}
