//! A chat template from any bytes and, behind a NUL byte, what a user says.

#![no_main]

use std::sync::{Arc, LazyLock};

use feilun_text::{ChatFormat, ChatOptions, Conversation, GgufVocab, Message, Role, Tokenizer};
use libfuzzer_sys::fuzz_target;

const TOKENS: [&str; 9] = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "a", "b", " ", "<", "|"];

/// Too small to encode much: what cannot be encoded becomes the unknown token.
static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let vocab = GgufVocab {
        model: "llama",
        tokens: [&TOKENS[..], &["<unk>"]].concat(),
        token_types: Some(vec![3, 3, 3, 3, 1, 1, 1, 1, 1, 2]),
        scores: Some(vec![0.0; 10]),
        bos: Some(0),
        eos: Some(1),
        ..GgufVocab::default()
    };
    Arc::new(Tokenizer::from_gguf(vocab).unwrap())
});

fuzz_target!(|data: &[u8]| {
    let (template, said) = match data.iter().position(|&byte| byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b"<|im_end|>"[..]),
    };
    let (template, said) = (String::from_utf8_lossy(template), String::from_utf8_lossy(said));
    let Ok(format) = ChatFormat::new(TOKENIZER.clone(), &template) else { return };
    let roles = [Role::System, Role::User, Role::Assistant];
    let messages = roles.iter().map(|&role| Message::new(role, &*said)).collect();
    let Ok(chat) = Conversation::new(messages) else { return };
    let options = ChatOptions { date: "2026-01-01".parse().ok(), variables: None };
    let _ = format.render_for_generation(&chat, &options);
    if let Ok(tokens) = format.render_for_training(&chat, &options) {
        assert_eq!(tokens.ids.len(), tokens.loss_mask.len());
        // Each stretch that is learned ends with a token that ends a turn.
        let ends = tokens
            .loss_mask
            .iter()
            .chain([&false])
            .zip(tokens.loss_mask.iter().skip(1).chain([&false]));
        for (index, (&now, &next)) in ends.enumerate().take(tokens.ids.len()) {
            if now && !next {
                assert!(TOKENIZER.is_end_of_turn(tokens.ids[index]));
            }
        }
    }
});
