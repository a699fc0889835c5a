//! Templates rendered as transformers renders them, made by `scripts/goldens/make.py templates`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

mod common;

use feilun_text::template::{ChatTemplate, RenderInput};
use serde_json::Value;

fn render(item: &Value) -> Result<String, String> {
    let text = |key: &str| item[key].as_str();
    let source = match text("template") {
        Some(source) => source.to_string(),
        // A published template stays in its model's file.
        None => common::with_gguf(text("template_of").unwrap(), |gguf| {
            gguf.string("tokenizer.chat_template").unwrap().unwrap().to_string()
        }),
    };
    let template = ChatTemplate::new(&source).map_err(|error| error.to_string())?;
    let input = RenderInput {
        messages: &item["messages"],
        tools: Some(&item["tools"]).filter(|tools| !tools.is_null()),
        add_generation_prompt: item["add_generation_prompt"].as_bool().unwrap(),
        bos_token: text("bos_token"),
        eos_token: text("eos_token"),
        date: text("date").map(|date| date.parse().unwrap()),
        variables: Some(&item["variables"]).filter(|variables| !variables.is_null()),
    };
    template.render(&input).map_err(|error| error.to_string())
}

/// `excused` says why an item may differ.
fn check(path: &str, excused: impl Fn(&Value) -> bool) {
    let goldens: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let items = goldens["items"].as_array().unwrap();
    assert!(items.len() > 20, "{path} has only {} items", items.len());
    let mut wrong = Vec::new();
    for item in items.iter().filter(|item| !excused(item)) {
        let name = &item["name"];
        match (item["rendered"].as_str(), render(item)) {
            (Some(expected), Ok(found)) if expected == found => {}
            (None, Err(found)) => {
                // What the template itself says counts; engines word other errors differently.
                let error = item["error"].as_str();
                let said = error.and_then(|error| error.strip_prefix("TemplateError: "));
                if said.is_some_and(|said| !found.ends_with(said)) {
                    wrong.push(format!("{name}\n expected {said:?}\n found {found:?}"));
                }
            }
            (expected, found) => {
                wrong.push(format!("{name}\n expected {expected:?}\n found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), items.len(), wrong.join("\n"));
}

#[test]
fn templates_render_as_in_transformers() {
    check(&format!("{}/tests/goldens/templates.json", env!("CARGO_MANIFEST_DIR")), |_| false);
}

#[test]
#[ignore = "published templates are not ours to copy: make the file with `make.py templates-real`"]
fn published_templates_render_as_in_transformers() {
    check(&std::env::var("FEILUN_TEMPLATE_GOLDENS").unwrap(), |item| {
        // To Python it is an error to go through `none`, to the engine nothing comes of it.
        item["error"].as_str().is_some_and(|error| error.contains("'NoneType' object is not iterable"))
            // Escapes HTML because its author used Jinja's `tojson` outside of transformers.
            || item["name"].as_str().unwrap().starts_with("meetkai-functionary-medium-v3.1: tool")
    });
}
