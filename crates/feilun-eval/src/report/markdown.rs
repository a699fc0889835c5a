//! Text from outside within Markdown.

/// A name so that Markdown shows it as it is, on one line, in a table or out of it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Markdown lets HTML through, so its characters become entities.
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '!' | '|' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            // A link that writes itself needs its colon.
            ':' => escaped.push_str("&#58;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(escape("plain 中文 name-1.5"), "plain 中文 name-1.5");
        assert_eq!(escape("<b>|*x*\n![](https://y)"), r"&lt;b&gt;\|\*x\* \!\[\]\(https&#58;//y\)");
    }
}
