//! sacrebleu's tokenizers `13a` and `zh`, rebuilt from what they do, oddities included: scores are
//! only comparable where the tokens are the same.

use super::python_text::is_space;

/// Mteval's tokenizer for Western languages (WMT's "13a"). Tokens are what white space separates.
pub(super) fn tokenize_13a(text: &str) -> String {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if text.contains('&') {
        // In this order: `&amp;lt;` becomes `<`.
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
        {
            text = text.replace(entity, character);
        }
    }
    separate_punctuation(&format!(" {text} "))
}

/// Each Chinese character is a token; the rest is as in [`tokenize_13a`], without its entities.
pub(super) fn tokenize_zh(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() * 2);
    for character in text.trim_matches(is_space).chars() {
        if is_chinese(character) {
            spaced.extend([' ', character, ' ']);
        } else {
            spaced.push(character);
        }
    }
    separate_punctuation(&spaced)
}

/// Four substitutions, one after the other.
fn separate_punctuation(text: &str) -> String {
    let mut separated = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if is_separated(character) {
            separated.extend([' ', character, ' ']);
        } else {
            separated.push(character);
        }
    }
    let is_digit = |character: char| character.is_ascii_digit();
    let is_point = |character: char| matches!(character, '.' | ',');
    // Full stop and comma, unless a digit is before them; unless a digit is after them.
    let separated = replace_pairs(
        &separated,
        |first, second| !is_digit(first) && is_point(second),
        |first, second| [first, ' ', second, ' '],
    );
    let separated = replace_pairs(
        &separated,
        |first, second| is_point(first) && !is_digit(second),
        |first, second| [' ', first, ' ', second],
    );
    // A dash after a digit.
    replace_pairs(
        &separated,
        |first, second| is_digit(first) && second == '-',
        |first, second| [first, ' ', second, ' '],
    )
}

/// Replaces pairs of neighbours from left to right; a pair that was replaced shares no character
/// with the next one.
fn replace_pairs(
    text: &str,
    is_pair: impl Fn(char, char) -> bool,
    replacement: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut replaced = String::with_capacity(text.len() * 2);
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        match characters.next_if(|&second| is_pair(first, second)) {
            Some(second) => replaced.extend(replacement(first, second)),
            None => replaced.push(first),
        }
    }
    replaced
}

/// ASCII's punctuation and space, but for apostrophe, comma, dash and full stop.
fn is_separated(character: char) -> bool {
    matches!(character, ' '..='&' | '('..='+' | '/' | ':'..='@' | '['..='`' | '{'..='~')
}

/// What sacrebleu's `zh` takes for Chinese.
///
/// Two of its ranges are written with five digits where Python reads four, and so mean other
/// characters: U+2001 to U+2A6D (dashes, quotation marks, arrows, symbols) and U+2F81 to U+2FA1
/// are in, ideographs beyond U+FFFF are not.
fn is_chinese(character: char) -> bool {
    matches!(
        character,
        '\u{2001}'..='\u{2a6d}'
            | '\u{2e80}'..='\u{2fdf}'
            | '\u{2ff0}'..='\u{303f}'
            | '\u{3100}'..='\u{312f}'
            | '\u{31a0}'..='\u{31bf}'
            | '\u{31c0}'..='\u{31ef}'
            | '\u{3200}'..='\u{4db5}'
            | '\u{4e00}'..='\u{9fbb}'
            | '\u{f900}'..='\u{fa2d}'
            | '\u{fa30}'..='\u{fa6a}'
            | '\u{fa70}'..='\u{fad9}'
            | '\u{fe10}'..='\u{fe1f}'
            | '\u{fe30}'..='\u{fe4f}'
            | '\u{ff00}'..='\u{ffef}'
    )
}
