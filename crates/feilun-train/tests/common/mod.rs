//! The two real vocabularies, a small one over bytes, and files of examples.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use feilun_infer::model_text::gguf_vocab;
use feilun_model::gguf::Gguf;
use feilun_model::gguf_vocabulary::GgufVocabulary;
use feilun_model::mapped_file::MappedFile;
use feilun_text::{ChatFormat, GgufVocab, Tokenizer};
use feilun_train::data::{Examples, ReadOptions, Renderer, Shape};
use tempfile::TempDir;

pub const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// As Gemma's: BOS, and the assistant is called "model".
pub const TURNS: &str = "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}{{ '<start_of_turn>' + role + '\n' + m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

/// Where a model file of the tests is. A missing one is a failure: nothing is skipped silently.
fn model_path(name: &str) -> PathBuf {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{name} is missing: run the tests with `cargo xtask test`");
    path
}

/// A model's tokenizer, and its chat template if it has one.
fn load(name: &str) -> (Arc<Tokenizer>, Option<String>) {
    let gguf = Gguf::parse(MappedFile::open(&model_path(name)).unwrap()).unwrap();
    let template = gguf.string("tokenizer.chat_template").unwrap().map(String::from);
    let file = GgufVocabulary::read(&gguf).unwrap();
    (Arc::new(Tokenizer::from_gguf(gguf_vocab(file)).unwrap()), template)
}

pub static SMOLLM2: LazyLock<(Arc<Tokenizer>, Option<String>)> =
    LazyLock::new(|| load("smollm2.gguf"));
pub static GEMMA3: LazyLock<(Arc<Tokenizer>, Option<String>)> =
    LazyLock::new(|| load("gemma3.gguf"));

/// Every way of the real vocabularies to render: SmolLM2's own template, and for the base model
/// Gemma 3 the template of its tuned sister's kind and the plain one.
pub static FORMATS: LazyLock<Vec<(&'static str, Arc<ChatFormat>)>> = LazyLock::new(|| {
    let (smollm2, template) = &*SMOLLM2;
    let template = template.as_ref().unwrap();
    let gemma3 = &GEMMA3.0;
    vec![
        ("smollm2", Arc::new(ChatFormat::new(smollm2.clone(), template).unwrap())),
        ("gemma3", Arc::new(ChatFormat::new(gemma3.clone(), TURNS).unwrap())),
        ("gemma3 plain", Arc::new(ChatFormat::plain(gemma3.clone()).unwrap())),
    ]
});

/// All 256 bytes as tokens, and a few control tokens: BOS, EOS, and those of ChatML.
pub static BYTES: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let character = |byte: u8| {
        let code = match byte {
            0..=32 => 0x100 + u32::from(byte),
            127..=160 => 0x121 + u32::from(byte) - 127,
            173 => 0x143,
            _ => u32::from(byte),
        };
        char::from_u32(code).unwrap().to_string()
    };
    let bytes: Vec<String> = (0..=255).map(character).collect();
    let mut tokens: Vec<&str> = bytes.iter().map(String::as_str).collect();
    let mut types = vec![1; tokens.len()];
    tokens.extend(["<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]);
    types.resize(tokens.len(), 3);
    let vocab = GgufVocab {
        model: "gpt2",
        pre: Some("llama-bpe"),
        tokens,
        token_types: Some(types),
        merges: Some(Vec::new()),
        bos: Some(256),
        eos: Some(257),
        add_bos: Some(true),
        ..GgufVocab::default()
    };
    Arc::new(Tokenizer::from_gguf(vocab).unwrap())
});

/// The end of a turn in [`BYTES`].
pub const IM_END: u32 = 259;

pub fn renderer() -> Renderer {
    Renderer::new(Arc::new(ChatFormat::new(BYTES.clone(), CHATML).unwrap()))
}

/// A folder with one file of examples.
pub fn file(contents: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, contents).unwrap();
    (folder, path)
}

pub fn open(path: &Path, shape: Shape) -> Examples {
    let options = ReadOptions::new(shape);
    Examples::open(&[path.to_owned()], renderer(), options, &mut |_, _| ()).unwrap()
}

/// A conversation with a prompt and an answer.
pub fn chat_line(prompt: &str, answer: &str) -> String {
    let messages = serde_json::json!([
        {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}
    ]);
    format!("{}\n", serde_json::json!({ "messages": messages }))
}
