//! Conversations to tokens: the same as the reference for harmless contents, never a control token
//! from a content, the right loss mask, and prompts that are prefixes of training sequences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

mod common;

use std::sync::{Arc, LazyLock};

use feilun_text::{
    ChatError, ChatFormat, ChatOptions, Conversation, EncodeOptions, Message, Role, Tokenizer,
};
use proptest::prelude::*;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const HEADERS: &str = "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/// No generation prompt; the system message goes into the last user message.
const BRACKETS: &str = "{{ bos_token }}{% if messages[0].role == 'system' %}{% set rules = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and rules is defined %}{{ rules + '\n\n' }}{% endif %}{{ m.content }}[/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}";

/// The assistant is called "model", and answers end like other turns.
const MODEL: &str = "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}{{ '<start_of_turn>' + role + '\n' + m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

/// Thoughts of earlier turns are dropped.
const THINKING: &str = "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% set c = m.content %}{% if '</think>' in c and loop.index0 < ns.last %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ c + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const CONTROLS: &[&str] = &[
    "<bos>",
    "<eos>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
];

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| common::byte_tokenizer(CONTROLS));

/// Not written beside the tests: a failure prints its input, which then becomes a test.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() }
}

fn formats() -> Vec<(&'static str, ChatFormat)> {
    let mut formats: Vec<_> = [
        ("chatml", CHATML),
        ("headers", HEADERS),
        ("brackets", BRACKETS),
        ("model", MODEL),
        ("thinking", THINKING),
    ]
    .map(|(name, template)| (name, ChatFormat::new(TOKENIZER.clone(), template).unwrap()))
    .into();
    formats.push(("plain", ChatFormat::plain(TOKENIZER.clone()).unwrap()));
    formats
}

static FORMATS: LazyLock<Vec<(&'static str, ChatFormat)>> = LazyLock::new(formats);
static SMOLLM2: LazyLock<ChatFormat> =
    LazyLock::new(|| ChatFormat::new(common::SMOLLM2.clone(), &common::SMOLLM2_TEMPLATE).unwrap());

fn conversation(turns: &[(Role, &str)]) -> Conversation {
    Conversation::new(turns.iter().map(|&(role, text)| Message::new(role, text)).collect()).unwrap()
}

const OPTIONS: ChatOptions<'_> = ChatOptions { date: None, variables: None };

/// The texts of the learned stretches.
fn learned(format: &ChatFormat, conversation: &Conversation) -> Vec<String> {
    let tokens = format.render_for_training(conversation, &OPTIONS).unwrap();
    assert_eq!(tokens.ids.len(), tokens.loss_mask.len());
    let mut texts = Vec::new();
    let mut stretch = Vec::new();
    for (&id, learn) in tokens.ids.iter().zip(tokens.loss_mask).chain([(&0, false)]) {
        if learn {
            stretch.push(id);
        } else if !stretch.is_empty() {
            texts.push(format.tokenizer().decode(&stretch, false));
            stretch.clear();
        }
    }
    texts
}

#[test]
fn answers_and_their_stop_tokens_are_learned() {
    use Role::*;
    let chat =
        conversation(&[(User, "Hi"), (Assistant, "Hello!"), (User, "Bye"), (Assistant, "So long")]);
    for (name, format) in &*FORMATS {
        let (space, stop) = match *name {
            "headers" => ("", "<|eot_id|>"),
            "brackets" | "plain" => (" ", "<eos>"),
            "model" => ("", "<end_of_turn>"),
            _ => ("", "<|im_end|>"),
        };
        let expected = ["Hello!", "So long"].map(|text| format!("{space}{text}{stop}"));
        assert_eq!(learned(format, &chat), expected, "{name}");
    }
    assert_eq!(learned(&SMOLLM2, &chat), ["Hello!<|im_end|>", "So long<|im_end|>"]);
}

#[test]
fn a_system_message_in_the_last_turn_is_no_obstacle() {
    use Role::*;
    let chat = conversation(&[
        (System, "Rules"),
        (User, "1"),
        (Assistant, "2"),
        (User, "3"),
        (Assistant, "4"),
        (User, "5"),
    ]);
    let (_, brackets) = &FORMATS[2];
    assert_eq!(learned(brackets, &chat), [" 2<eos>", " 4<eos>"]);
    let text = brackets.render_text(&chat, &OPTIONS, true).unwrap();
    assert_eq!(text, "<bos>[INST] 1[/INST] 2<eos>[INST] 3[/INST] 4<eos>[INST] Rules\n\n5[/INST]");
}

#[test]
fn dropped_thoughts_are_not_learned() {
    use Role::*;
    let thought = "<think>\nHm.\n</think>\n\nYes.";
    let chat =
        conversation(&[(User, "1"), (Assistant, thought), (User, "2"), (Assistant, thought)]);
    let (_, thinking) = &FORMATS[4];
    assert_eq!(learned(thinking, &chat), ["Yes.<|im_end|>", &format!("{thought}<|im_end|>")]);
}

#[test]
fn a_template_that_never_stops_is_refused_for_training() {
    let template = CHATML.replace("'<|im_end|>'", "''");
    let format = ChatFormat::new(TOKENIZER.clone(), &template).unwrap();
    let chat = conversation(&[(Role::User, "Hi"), (Role::Assistant, "Hello!")]);
    let error = format.render_for_training(&chat, &OPTIONS).unwrap_err();
    assert!(matches!(error, ChatError::NoStopToken { index: 1 }), "{error}");
    format.render_for_generation(&chat, &OPTIONS).unwrap();
}

#[test]
fn templates_that_work_on_the_spelling_of_control_tokens_are_refused() {
    for (template, word) in [
        (
            "{% for m in messages %}{{ '<|' + 'im_start' + '|>' + m.content }}{% endfor %}",
            "together",
        ),
        (
            "{% for m in messages %}{{ '<|im_start|>'|length }}{{ m.content }}{% endfor %}",
            "spelling",
        ),
        (
            "{% for m in messages %}{{ '<|im_start|>'|upper }}{{ m.content }}{% endfor %}",
            "spelling",
        ),
    ] {
        let error = ChatFormat::new(TOKENIZER.clone(), template).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn private_characters_in_contents_do_no_harm() {
    let content: String = (0x10f000..0x10f100).filter_map(char::from_u32).collect();
    let chat = conversation(&[(Role::User, &content), (Role::Assistant, &content)]);
    for (name, format) in &*FORMATS {
        let text = format.render_text(&chat, &OPTIONS, false).unwrap();
        assert_eq!(text.matches(&content).count(), 2, "{name}");
        assert!(learned(format, &chat)[0].contains(&content), "{name}");
    }
    let all: String = [0xf_0000..=0xf_fffd, 0x10_0000..=0x10_fffd_u32]
        .into_iter()
        .flatten()
        .filter_map(char::from_u32)
        .collect();
    let chat = conversation(&[(Role::User, &all)]);
    let error = SMOLLM2.render_for_generation(&chat, &OPTIONS).unwrap_err();
    assert!(matches!(error, ChatError::NoPrivateCharacter), "{error}");
}

#[test]
fn a_base_model_gets_a_plain_format_if_asked() {
    let format = ChatFormat::plain(common::GEMMA3.clone()).unwrap();
    let chat = conversation(&[(Role::User, "Hi<eos><end_of_turn>"), (Role::Assistant, "Hello!")]);
    let text = format.render_text(&chat, &OPTIONS, true).unwrap();
    assert_eq!(text, "<bos>User: Hi<eos><end_of_turn>\nAssistant: Hello!<eos>\nAssistant:");
    assert_eq!(learned(&format, &chat), [" Hello!<eos>"]);
    let ids = format.render_for_generation(&chat, &OPTIONS).unwrap();
    let specials = ids.iter().filter(|&&id| format.tokenizer().is_special(id)).count();
    assert_eq!(specials, 2, "BOS and one EOS");
}

/// Texts as people and attackers write them.
fn content() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z ,.'0-9]{0,12}",
        1 => "[\\n\\t ]{1,3}",
        1 => any::<String>(),
        1 => prop::sample::select(CONTROLS).prop_map(String::from),
        1 => prop::sample::select(CONTROLS).prop_map(|token| token[..token.len() / 2].to_string()),
        1 => prop::sample::select(CONTROLS).prop_map(|token| token[token.len() / 2..].to_string()),
        1 => Just("</think>".to_string()),
        1 => "[\u{10f000}-\u{10f004}]{1,3}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

/// User and assistant in turn, beginning with a user or a system message and a user.
fn chat() -> impl Strategy<Value = Vec<Message>> {
    (any::<bool>(), prop::collection::vec(content(), 2..7)).prop_map(|(system, contents)| {
        let offset = usize::from(!system);
        let role = |index: usize| match index + offset {
            0 => Role::System,
            odd if odd % 2 == 1 => Role::User,
            _ => Role::Assistant,
        };
        contents.into_iter().enumerate().map(|(i, text)| Message::new(role(i), text)).collect()
    })
}

fn all_formats() -> impl Iterator<Item = (&'static str, &'static ChatFormat)> {
    FORMATS.iter().map(|(name, format)| (*name, format)).chain([("smollm2", &*SMOLLM2)])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn contents_never_become_control_tokens(messages in chat()) {
        let chat = Conversation::new(messages.clone()).unwrap();
        let harmless: Vec<Message> =
            messages.iter().map(|message| Message::new(message.role, "x")).collect();
        let harmless = Conversation::new(harmless).unwrap();
        for (name, format) in all_formats() {
            let controls = |chat: &Conversation| -> Vec<u32> {
                let ids = format.render_for_generation(chat, &OPTIONS).unwrap();
                ids.into_iter().filter(|&id| format.tokenizer().is_special(id)).collect()
            };
            prop_assert_eq!(controls(&chat), controls(&harmless), "{}", name);
        }
    }

    #[test]
    fn tokens_are_those_of_the_text(messages in chat()) {
        let chat = Conversation::new(messages).unwrap();
        for (name, format) in all_formats() {
            let text = format.render_text(&chat, &OPTIONS, true).unwrap();
            let ids = format.render_for_generation(&chat, &OPTIONS).unwrap();
            // SmolLM2 has no tokens for a few control characters; they are left out.
            let encodable = format.tokenizer().encode(&text, EncodeOptions::default()).unwrap();
            if format.tokenizer().decode(&encodable, false) == text {
                prop_assert_eq!(format.tokenizer().decode(&ids, false), text, "{}", name);
            }
        }
    }

    #[test]
    fn a_prompt_is_a_prefix_of_what_is_trained(messages in chat()) {
        let chat = Conversation::new(messages.clone()).unwrap();
        for (name, format) in all_formats() {
            // These two change earlier text when later messages come.
            if name == "thinking" || (name == "brackets" && messages[0].role == Role::System) {
                continue;
            }
            let trained = format.render_for_training(&chat, &OPTIONS).unwrap();
            for (index, message) in messages.iter().enumerate() {
                if message.role != Role::Assistant {
                    continue;
                }
                let before = Conversation::new(messages[..index].to_vec()).unwrap();
                let prompt = format.render_for_generation(&before, &OPTIONS).unwrap();
                prop_assert!(trained.ids.starts_with(&prompt), "{}", name);
                prop_assert!(trained.loss_mask[prompt.len()], "{}", name);
                prop_assert!(!trained.loss_mask[prompt.len() - 1], "{}", name);
            }
        }
    }

    #[test]
    fn what_is_learned_is_the_answer_and_its_stop_token(messages in chat()) {
        let chat = Conversation::new(messages.clone()).unwrap();
        for (name, format) in FORMATS.iter().filter(|(name, _)| *name != "thinking") {
            let answers: Vec<&Message> =
                messages.iter().filter(|message| message.role == Role::Assistant).collect();
            let learned = learned(format, &chat);
            prop_assert_eq!(learned.len(), answers.len());
            for (learned, answer) in learned.iter().zip(answers) {
                let stop = CONTROLS.iter().find(|stop| learned.ends_with(**stop)).unwrap();
                let learned = learned.strip_suffix(stop).unwrap();
                prop_assert_eq!(learned.trim(), answer.content.trim(), "{}", name);
            }
        }
    }

    /// Contents without anything that looks like a control token, and answers that do not begin
    /// with white space.
    #[test]
    fn harmless_chats_have_the_ids_of_the_reference(
        contents in prop::collection::vec("[a-zA-Z0-9äß字🦀][a-zA-Z0-9 .,\\n🦀]{0,30}", 1..6),
    ) {
        let roles = [Role::User, Role::Assistant].into_iter().cycle();
        let messages = roles.zip(contents).map(|(role, text)| Message::new(role, text)).collect();
        let chat = Conversation::new(messages).unwrap();
        for (name, format) in all_formats() {
            let text = format.render_text(&chat, &OPTIONS, true).unwrap();
            let options = EncodeOptions { parse_special: true, ..EncodeOptions::default() };
            let expected = format.tokenizer().encode(&text, options).unwrap();
            let ids = format.render_for_generation(&chat, &OPTIONS).unwrap();
            // The plain format has no control token between prompt and answer, so the cut shows.
            if name != "plain" {
                prop_assert_eq!(ids, expected, "{}", name);
            }
        }
    }
}
