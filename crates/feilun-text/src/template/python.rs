//! What templates expect of Python: `tojson` as transformers defines it, `raise_exception`, and
//! values made from JSON.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};

/// Deeper values are refused, not followed.
const DEPTH_MAX: usize = 100;

/// A template value with the same content; the order of keys is kept.
pub(super) fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value_of).collect(),
        serde_json::Value::Object(map) => Value::from_pairs(
            map.iter().map(|(key, value)| (Value::from(key.as_str()), value_of(value))),
        ),
    }
}

/// The cause of an error that the template raised by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// `raise_exception(message)`.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template")
        .with_source(Raised(message)))
}

/// Methods of Python's strings, lists and dictionaries.
pub(super) fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    // `str.format` pays for its text after it has made it, so a width must not be large.
    if method == "format" && !value.as_str().is_some_and(is_harmless_format) {
        let message = "str.format with a width above 999 or one that is computed";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    match value.as_str().map(|text| string_method(text, method, args)) {
        Some(Ok(Some(result))) => Ok(result),
        Some(Err(error)) => Err(error),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Methods that `pycompat` lacks, or does in Jinja's way instead of Python's.
fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (parts, missing) = match method {
                "partition" => (text.split_once(separator), [text, "", ""]),
                _ => (text.rsplit_once(separator), ["", "", text]),
            };
            let parts = parts.map_or(missing, |(before, after)| [before, separator, after]);
            parts.into_iter().map(Value::from).collect()
        }
        "rsplit" => {
            let (separator, num_max): (Option<&str>, Option<i64>) = from_args(args)?;
            let num_max = num_max.and_then(|num| usize::try_from(num).ok()).unwrap_or(usize::MAX);
            let mut parts = Vec::new();
            let mut rest = text;
            while parts.len() < num_max {
                let cut = match separator {
                    Some(separator) => rest.rsplit_once(separator),
                    None => {
                        rest = rest.trim_end();
                        rest.rsplit_once(char::is_whitespace)
                    }
                };
                let Some((before, after)) = cut else { break };
                parts.push(Value::from(after));
                rest = before;
            }
            if separator.is_some() || !rest.trim_end().is_empty() {
                let rest = if separator.is_none() { rest.trim_end() } else { rest };
                parts.push(Value::from(rest));
            }
            parts.reverse();
            Value::from(parts)
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            Value::from(lines(text, keep_ends.unwrap_or(false)))
        }
        "title" => {
            let () = from_args(args)?;
            title(text).into()
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// Python's lines, which end at more than line feeds.
fn lines(text: &str, keep_ends: bool) -> Vec<Value> {
    let is_end = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_end) {
        let length = match rest[start..].strip_prefix("\r\n") {
            Some(_) => 2,
            None => rest[start..].chars().next().map_or(1, char::len_utf8),
        };
        let (line, after) = rest.split_at(start + length);
        lines.push(Value::from(if keep_ends { line } else { &line[..start] }));
        rest = after;
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines
}

/// Python's title case: every letter behind something that is none is a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(char::is_alphabetic) {
        out.push_str(&rest[..start]);
        let word = &rest[start..];
        let word = &word[..word.find(|c: char| !c.is_alphabetic()).unwrap_or(word.len())];
        let mut letters = word.chars();
        let first = letters.next().map(String::from).unwrap_or_default();
        // A capital letter of two parts, such as the one of ß, has a small second part here.
        let capital: String = first.to_uppercase();
        let mut parts = capital.chars();
        out.extend(parts.next());
        out.push_str(&parts.as_str().to_lowercase());
        // The whole word, because a sigma at its end has a form of its own.
        out.push_str(&word.to_lowercase()[first.to_lowercase().len()..]);
        rest = &rest[start + word.len()..];
    }
    out.push_str(rest);
    out
}

/// Jinja's `iterable`: to the engine nothing (`none`) is an empty list, to Python it is an error.
pub(super) fn is_iterable(value: &Value) -> bool {
    !matches!(
        value.kind(),
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain
    )
}

/// Jinja's `wordcount`.
pub(super) fn wordcount(text: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()
}

/// Jinja's `indent(width=4, first=False, blank=False)`.
pub(super) fn indent(
    state: &State<'_, '_>,
    text: String,
    args: Rest<Value>,
) -> Result<String, Error> {
    let (width, first, blank, options): (Option<usize>, Option<bool>, Option<bool>, Kwargs) =
        from_args(&args)?;
    let width = width.or(options.get("width")?).unwrap_or(4);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = blank.or(options.get("blank")?).unwrap_or(false);
    options.assert_all_used()?;
    // Jinja adds a line break so that one at the end counts.
    let lines = lines(&format!("{text}\n"), false);
    state.consume_fuel((lines.len().saturating_mul(width) / 64) as u64 + 1)?;
    let space = " ".repeat(width);
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let line = line.as_str().unwrap_or_default();
        if index > 0 {
            out.push('\n');
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
            out.push_str(&space);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Writes a value into the text as Python would.
pub(super) fn write_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match f64::try_from(value.clone()) {
        Ok(float)
            if value.kind() == ValueKind::Number && !value.is_integer() && float.is_finite() =>
        {
            out.write_str(&python_float(float)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// At most three digits in a row, and no field inside a field.
fn is_harmless_format(format: &str) -> bool {
    let mut num_digits = 0;
    let mut depth = 0;
    for byte in format.bytes() {
        num_digits = if byte.is_ascii_digit() { num_digits + 1 } else { 0 };
        depth = match byte {
            b'{' => depth + 1,
            b'}' => 0,
            _ => depth,
        };
        // Two braces in a row are a brace, but three are a field.
        if num_digits > 3 || depth > 2 {
            return false;
        }
    }
    // A field inside a field: an opening brace after a colon and before the closing one.
    !format.split('{').skip(1).any(|field| field.contains(':') && !field.contains('}'))
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`: the text that
/// Python's `json.dumps` gives, which differs from Jinja's own filter: no HTML escapes.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    ensure_ascii: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let ensure_ascii = match ensure_ascii {
        Some(given) => given,
        None => options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent = options.get::<Option<usize>>("indent")?.map(|indent| indent.min(16));
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            let message = "separators must be a pair";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut writer =
        Writer { state, out: String::new(), paid: 0, ensure_ascii, indent, separators, sort_keys };
    writer.write(value, 0)?;
    writer.pay()?;
    Ok(writer.out)
}

struct Writer<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    out: String,
    /// The bytes of `out` that fuel was consumed for.
    paid: usize,
    ensure_ascii: bool,
    indent: Option<usize>,
    separators: (String, String),
    sort_keys: bool,
}

impl Writer<'_, '_, '_> {
    /// Pays for what was written, so that a large value stops in the middle.
    fn pay(&mut self) -> Result<(), Error> {
        let fuel = (self.out.len() - self.paid) / 16;
        self.paid = self.out.len();
        self.state.consume_fuel(fuel as u64 + 1)
    }

    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            let message = format!("tojson: a value is nested deeper than {DEPTH_MAX}");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        self.pay()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked();
                self.list('[', ']', items, depth, |writer, item| writer.write(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', keys.into_iter().map(Ok), depth, |writer, key| {
                    writer.key(&key);
                    writer.out.push_str(&writer.separators.1);
                    writer.write(&value.get_item(&key)?, depth + 1)
                })?;
            }
            other => {
                let message = format!("tojson: a value of kind {other} is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    /// Keys that are no strings are written as the strings that Python makes of them.
    fn key(&mut self, key: &Value) {
        match key.kind() {
            ValueKind::None => self.string("null"),
            ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            _ => self.string(&key.to_string()),
        }
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = Result<Value, Error>>,
        depth: usize,
        mut item: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let mut num_items = 0;
        for value in items {
            if num_items > 0 {
                self.out.push_str(&self.separators.0);
            }
            self.line(depth + 1);
            item(self, value?)?;
            num_items += 1;
        }
        if num_items > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn number(&mut self, value: &Value) {
        match value.as_i64() {
            Some(integer) if value.is_integer() => {
                let _ = write!(self.out, "{integer}");
            }
            _ => match f64::try_from(value.clone()) {
                Ok(float) if !value.is_integer() => self.out.push_str(&python_float(float)),
                _ => self.out.push_str(&value.to_string()),
            },
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                control if u32::from(control) < 0x20 => self.escape(control),
                other if self.ensure_ascii && !other.is_ascii() => self.escape(other),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16.
fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::python_float;

    #[test]
    fn floats_look_as_in_python() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123456789012345.0, "123456789012345.0"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }
}
