//! Templates that loop, recurse, grow or nest without end: each is an error, soon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use feilun_text::template::{ChatTemplate, RenderInput, TemplateError};
use serde_json::json;

fn render(source: &str) -> Result<String, TemplateError> {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    ChatTemplate::new(source)?
        .render(&RenderInput { messages: &messages, ..RenderInput::default() })
}

const NEST: &str =
    "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";

#[test]
fn hostile_templates_are_errors() {
    let deep = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let deep_list = format!("{{% set x = {}{} %}}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_if = "{% if true %}".repeat(10_000) + &"{% endif %}".repeat(10_000);
    let doubling =
        "{% set x = 'xxxxxxxxxxxxxxxx' %}".to_string() + &"{% set x = x ~ x %}".repeat(60);
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{{ f(x ~ x) }}{{ f(x ~ x) }}{% endmacro %}{{ f('x') }}",
        "{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ range(1000000000)|list }}",
        "{{ [1] * 1000000000 }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x'.format() * 9999999999999999999 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'|indent(1000000000) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ [1,2]|join('x' * 100000000) }}",
        "{% include 'x' %}",
        "{{ messages[0]['content'].x.y.z() }}",
        "{{ raise_exception('no') }}",
        "{{ 1 // 0 }}",
        "{% for i in range(10) %}",
        "{{ deep",
        &format!("{NEST}{{{{ ns.x }}}}"),
        &format!("{NEST}{{{{ ns.x|tojson }}}}"),
        &format!("{NEST}{{{{ ns.x == [ns.x] }}}}"),
        &format!("{NEST}{{{{ ns.x|string|length }}}}"),
        &format!("{NEST}{{{{ [ns.x, ns.x]|sort }}}}"),
        &format!("{NEST}{{{{ [ns.x, ns.x]|unique|list }}}}"),
        &format!("{NEST}{{{{ {{'a': ns.x}} }}}}"),
        &format!("{{{{ {deep} }}}}"),
        &deep_list,
        &deep_if,
        &doubling,
        &"x".repeat(1 << 20),
    ] {
        let started = std::time::Instant::now();
        let error = render(source).err();
        let taken = started.elapsed();
        let short: String = source.chars().take(80).collect();
        println!(
            "{taken:?} {short} -> {}",
            error.as_ref().map_or("no error".into(), |e| e.to_string())
        );
        assert!(error.is_some(), "{short}");
        assert!(taken.as_secs() < 5, "{short}: {taken:?}");
    }
}

#[test]
fn what_a_template_says_is_passed_on() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(
        matches!(&error, TemplateError::Raised { message } if message == "roles must alternate")
    );
}
