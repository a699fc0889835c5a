//! Small changes to a template's source, for things that Jinja2 knows and `minijinja` does not.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// `{% generation %}` marks what an assistant wrote, for transformers; it renders as nothing.
static GENERATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})").ok());

/// What is code in a template.
static TAG: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s)\{\{.*?\}\}|\{%.*?%\}").ok());

/// A text that is formatted as in `'%s: %d' % (name, number)`.
static PERCENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?s)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*%\s*\("#).ok());

/// The source that is compiled.
pub(super) fn adapted(source: &str) -> String {
    let (Some(generation), Some(tag), Some(percent)) =
        (GENERATION.as_ref(), TAG.as_ref(), PERCENT.as_ref())
    else {
        return source.to_string();
    };
    let source = generation.replace_all(source, |found: &Captures<'_>| {
        let keyword = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{} {keyword} {}", &found[1], &found[3])
    });
    tag.replace_all(&source, |found: &Captures<'_>| {
        percent.replace_all(&found[0], "$1 | format(").into_owned()
    })
    .into_owned()
}

#[cfg(test)]
mod tests {
    use super::adapted;

    #[test]
    fn marks_and_formats_are_rewritten() {
        assert_eq!(
            adapted("{%- generation -%}x{% endgeneration %}"),
            "{%- if true -%}x{% endif %}"
        );
        assert_eq!(adapted("{{ '%s' % (a, b) }}"), "{{ '%s' | format(a, b) }}");
        assert_eq!(adapted("'%s' % (a)"), "'%s' % (a)", "outside of tags");
        assert_eq!(adapted("{{ 7 % (2) }}"), "{{ 7 % (2) }}");
    }
}
