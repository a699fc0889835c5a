//! Compares our rendering of chat templates with a file of goldens, such as one made by
//! `scripts/goldens/make.py templates-real` from the templates of published models, which are
//! not in this tree: `cargo run -p feilun-text --example compare_templates FILE`.

use std::error::Error;

use feilun_text::template::{ChatTemplate, RenderInput};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: compare_templates FILE")?;
    let goldens: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let items = goldens["items"].as_array().ok_or("no `items` in it")?;
    let mut num_different = 0;
    for item in items {
        if let Some(difference) = difference(item) {
            num_different += 1;
            say(&format!("{}: {difference}", item["name"]));
        }
    }
    say(&format!("{num_different} of {} differ", items.len()));
    if num_different == 0 { Ok(()) } else { Err("templates differ".into()) }
}

/// What is different, or nothing. Where transformers fails it is enough to fail.
fn difference(item: &Value) -> Option<String> {
    match (item["rendered"].as_str(), render(item)) {
        (Some(expected), Ok(found)) if expected == found => None,
        (Some(expected), Ok(found)) => {
            let same = expected.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
            Some(format!("expected …{:?}, found …{:?}", after(expected, same), after(&found, same)))
        }
        (Some(_), Err(error)) => Some(error.to_string()),
        (None, Ok(_)) => Some(format!("renders, where transformers fails with {}", item["error"])),
        (None, Err(_)) => None,
    }
}

fn render(item: &Value) -> Result<String, Box<dyn Error>> {
    let template = ChatTemplate::new(item["template"].as_str().ok_or("no template in the file")?)?;
    let input = RenderInput {
        messages: &item["messages"],
        tools: Some(&item["tools"]).filter(|tools| !tools.is_null()),
        add_generation_prompt: item["add_generation_prompt"] == true,
        bos_token: item["bos_token"].as_str(),
        eos_token: item["eos_token"].as_str(),
        date: item["date"].as_str().map(str::parse).transpose()?,
        variables: Some(&item["variables"]),
    };
    Ok(template.render(&input)?)
}

/// A little of the text from just before `position`.
fn after(text: &str, position: usize) -> String {
    String::from_utf8_lossy(&text.as_bytes()[position.saturating_sub(20)..])
        .chars()
        .take(80)
        .collect()
}

#[expect(clippy::print_stdout, reason = "this program is for people to read")]
fn say(line: &str) {
    println!("{line}");
}
