//! The two real vocabularies, read from GGUF files, and a small one over bytes.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use feilun_infer::model_text::gguf_vocab;
use feilun_model::gguf::Gguf;
use feilun_model::gguf_vocabulary::GgufVocabulary;
use feilun_model::mapped_file::MappedFile;
use feilun_text::{GgufVocab, Tokenizer};

/// Where a model file of the tests is. A missing one is a failure: nothing is skipped silently.
pub(crate) fn model_path(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{name} is missing: run the tests with `cargo xtask test`");
    path
}

pub(crate) fn with_gguf<T>(name: &str, read: impl FnOnce(&Gguf<MappedFile>) -> T) -> T {
    let file = MappedFile::open(&model_path(name)).unwrap();
    read(&Gguf::parse(file).unwrap())
}

fn load(name: &str) -> Arc<Tokenizer> {
    with_gguf(name, |gguf| {
        let file = GgufVocabulary::read(gguf).unwrap();
        Arc::new(Tokenizer::from_gguf(gguf_vocab(file)).unwrap())
    })
}

pub(crate) static SMOLLM2: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load("smollm2.gguf"));
pub(crate) static GEMMA3: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load("gemma3.gguf"));

/// The template inside the SmolLM2 file.
pub(crate) static SMOLLM2_TEMPLATE: LazyLock<String> = LazyLock::new(|| {
    with_gguf("smollm2.gguf", |gguf| {
        gguf.string("tokenizer.chat_template").unwrap().unwrap().to_string()
    })
});

/// The character of the byte-level alphabet for a byte.
pub(crate) fn byte_character(byte: u8) -> char {
    let code = match byte {
        0..=32 => 0x100 + u32::from(byte),
        127..=160 => 0x121 + u32::from(byte) - 127,
        173 => 0x143,
        _ => u32::from(byte),
    };
    char::from_u32(code).unwrap()
}

/// All 256 bytes, a few merges, and control tokens; the first of them is BOS, the second EOS.
pub(crate) fn byte_tokenizer(controls: &[&str]) -> Arc<Tokenizer> {
    let bytes: Vec<String> = (0..=255).map(|byte| byte_character(byte).to_string()).collect();
    let mut tokens: Vec<&str> = bytes.iter().map(String::as_str).collect();
    let merges = ["Ċ Ċ", "Ġ a", "e r", "u s", "us er"];
    let merged: Vec<String> = merges.iter().map(|merge| merge.replace(' ', "")).collect();
    tokens.extend(merged.iter().map(String::as_str));
    let mut types = vec![1; tokens.len()];
    let first = tokens.len() as u32;
    tokens.extend(controls);
    types.resize(tokens.len(), 3);
    let vocab = GgufVocab {
        model: "gpt2",
        pre: Some("llama-bpe"),
        tokens,
        token_types: Some(types),
        merges: Some(merges.to_vec()),
        bos: Some(first),
        eos: Some(first + 1),
        ..GgufVocab::default()
    };
    Arc::new(Tokenizer::from_gguf(vocab).unwrap())
}
