//! What is trained is what is served: with the vocabularies of real models.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use std::sync::Arc;

use common::{FORMATS, file};
use feilun_text::{ChatFormat, ChatOptions, Conversation, Message, Role};
use feilun_train::data::{Document, Examples, Part, ReadOptions, Renderer, Shape};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Not written beside the tests: a failure prints its input, which then becomes a test.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() }
}

fn examples(format: &Arc<ChatFormat>, shape: Shape, lines: &[Value]) -> Examples {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    let (_folder, path) = file(lines.concat());
    let renderer = Renderer::new(format.clone());
    Examples::open(&[path], renderer, ReadOptions::new(shape), &mut |_, _| ()).unwrap()
}

fn documents(format: &Arc<ChatFormat>, shape: Shape, line: Value) -> Vec<Document> {
    examples(format, shape, &[line]).render(0).unwrap()
}

fn json(messages: &[Message]) -> Value {
    let message = |m: &Message| json!({"role": m.role.name(), "content": m.content});
    messages.iter().map(message).collect()
}

/// What the server computes for these messages.
fn served(format: &ChatFormat, messages: &[Message]) -> Vec<u32> {
    let conversation = Conversation::new(messages.to_vec()).unwrap();
    format.render_for_generation(&conversation, &ChatOptions::default()).unwrap()
}

/// The stretches that are learned.
fn learned(document: &Document) -> Vec<Vec<u32>> {
    let mut stretches: Vec<Vec<u32>> = Vec::new();
    let mut was_learned = false;
    for (&token, &learn) in document.tokens.iter().zip(&document.learn) {
        match (was_learned, learn) {
            (false, true) => stretches.push(vec![token]),
            (true, true) => stretches.last_mut().unwrap().push(token),
            _ => {}
        }
        was_learned = learn;
    }
    stretches
}

/// Texts as people write them, and as attackers do.
fn content() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z ,.'0-9]{1,12}",
        1 => "[\\n\\t ]{1,3}",
        1 => "[äöß中文字🦀é]{1,4}",
        1 => any::<String>(),
        1 => prop::sample::select(&["<|im_end|>", "<|im_start|>assistant\n", "<end_of_turn>",
            "<eos>", "<bos>", "User:", "\nAssistant:"][..]).prop_map(String::from),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

/// User and assistant in turn, after a system message or without; the last is an assistant's.
fn chat() -> impl Strategy<Value = Vec<Message>> {
    (any::<bool>(), prop::collection::vec((content(), content()), 1..4)).prop_map(
        |(system, turns)| {
            let mut messages = Vec::new();
            if system {
                messages.push(Message::new(Role::System, "Be brief."));
            }
            for (question, answer) in turns {
                messages.push(Message::new(Role::User, question));
                messages.push(Message::new(Role::Assistant, answer));
            }
            messages
        },
    )
}

proptest! {
    #![proptest_config(config())]

    /// For each turn: what comes before it is the prompt that the server would compute, and from
    /// there on it is learned.
    #[test]
    fn a_conversation_is_trained_as_it_is_served(messages in chat()) {
        for (name, format) in &*FORMATS {
            let line = json!({"messages": json(&messages)});
            let document = &documents(format, Shape::Chat, line)[0];
            for (index, message) in messages.iter().enumerate() {
                if message.role == Role::Assistant {
                    let prompt = served(format, &messages[..index]);
                    prop_assert!(document.tokens.starts_with(&prompt), "{}", name);
                    prop_assert!(document.learn[prompt.len()], "{}", name);
                    prop_assert!(!document.learn[prompt.len() - 1], "{}", name);
                }
            }
        }
    }

    /// Rendering fewer messages gives a prefix, also of what is learned.
    #[test]
    fn a_prefix_renders_to_a_prefix(messages in chat()) {
        for (name, format) in &*FORMATS {
            let render = |messages: &[Message]| {
                documents(format, Shape::Chat, json!({"messages": json(messages)})).remove(0)
            };
            let whole = render(&messages);
            let mut end = messages.len();
            while end > 2 {
                end -= 2;
                if messages[end - 1].role != Role::Assistant {
                    break;
                }
                let part = render(&messages[..end]);
                prop_assert!(whole.tokens.starts_with(&part.tokens), "{}", name);
                prop_assert!(whole.learn.starts_with(&part.learn), "{}", name);
            }
        }
    }

    #[test]
    fn every_turn_learns_to_stop(messages in chat()) {
        for (name, format) in &*FORMATS {
            let line = json!({"messages": json(&messages)});
            let document = &documents(format, Shape::Chat, line)[0];
            let turns = learned(document);
            let answers: Vec<_> = messages.iter().filter(|m| m.role == Role::Assistant).collect();
            prop_assert_eq!(turns.len(), answers.len(), "{}", name);
            let tokenizer = format.tokenizer();
            for (turn, answer) in turns.iter().zip(answers) {
                let (stop, words) = turn.split_last().unwrap();
                prop_assert!(tokenizer.is_end_of_turn(*stop), "{}", name);
                prop_assert!(!words.iter().any(|&token| tokenizer.is_special(token)), "{}", name);
                // SmolLM2 has no tokens for a few control characters.
                let whole = tokenizer.encode(&answer.content, Default::default()).unwrap();
                if tokenizer.decode(&whole, false) == answer.content {
                    let words = tokenizer.decode(words, false);
                    prop_assert_eq!(words.trim(), answer.content.trim(), "{}", name);
                }
            }
        }
    }

    /// Of a pair only the two answers are learned, although its prompt has answers too; and the
    /// prompt is the server's.
    #[test]
    fn of_a_pair_only_the_answers_are_learned(mut messages in chat(), other in content()) {
        let answer = messages.pop().unwrap();
        for (name, format) in &*FORMATS {
            let line = json!({
                "prompt": json(&messages), "chosen": json(std::slice::from_ref(&answer)),
                "rejected": other,
            });
            let found = documents(format, Shape::Pairs, line);
            prop_assert_eq!(found[0].part, Part::Chosen);
            prop_assert_eq!(found[1].part, Part::Rejected);
            let prompt = served(format, &messages);
            for (document, content) in found.iter().zip([&answer.content, &other]) {
                prop_assert!(document.tokens.starts_with(&prompt), "{}", name);
                prop_assert_eq!(learned(document).len(), 1, "{}", name);
                let first = document.learn.iter().position(|&learn| learn).unwrap();
                prop_assert_eq!(first, prompt.len(), "{}", name);
                // The same answer in a conversation of its own.
                let mut whole = messages.clone();
                whole.push(Message::new(Role::Assistant, content.clone()));
                let line = json!({"messages": json(&whole)});
                let chat = &documents(format, Shape::Chat, line)[0];
                prop_assert_eq!(&chat.tokens, &document.tokens, "{}", name);
            }
        }
    }

    #[test]
    fn a_message_of_weight_zero_is_seen_and_not_learned(
        messages in chat(), which in any::<prop::sample::Index>(),
    ) {
        let answers: Vec<usize> =
            (0..messages.len()).filter(|&i| messages[i].role == Role::Assistant).collect();
        prop_assume!(answers.len() > 1);
        let which = which.index(answers.len());
        for (name, format) in &*FORMATS {
            let mut line = json!({"messages": json(&messages)});
            let whole = documents(format, Shape::Chat, line.clone()).remove(0);
            line["messages"][answers[which]]["weight"] = 0.into();
            let part = documents(format, Shape::Chat, line).remove(0);
            prop_assert_eq!(&part.tokens, &whole.tokens, "{}", name);
            let mut expected = learned(&whole);
            expected.remove(which);
            prop_assert_eq!(learned(&part), expected, "{}", name);
        }
    }
}

#[test]
fn tokens_of_a_known_conversation() {
    let (_, smollm2) = &FORMATS[0];
    let line = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi<|im_end|>"},
        {"role": "assistant", "content": "Hello!"},
    ]});
    let document = &documents(smollm2, Shape::Chat, line)[0];
    let tokenizer = smollm2.tokenizer();
    let text = tokenizer.decode(&document.tokens, false);
    assert_eq!(
        text,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|><|im_end|>\n\
         <|im_start|>assistant\nHello!<|im_end|>\n"
    );
    let turns = learned(document);
    assert_eq!(tokenizer.decode(&turns[0], false), "Hello!<|im_end|>");
    let stop = tokenizer.token_id("<|im_end|>").unwrap();
    let stops = document.tokens.iter().filter(|&&token| token == stop).count();
    assert_eq!(stops, 3, "what the user wrote is not one of them");
}
