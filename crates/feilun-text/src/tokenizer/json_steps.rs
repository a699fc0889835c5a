//! The `normalizer`, `pre_tokenizer` and `decoder` of a `tokenizer.json`.
//!
//! Only what is listed here is accepted; anything else is an error that names it, because
//! a tokenizer that is almost right is worse than none.

use serde_json::Value;

use super::charsmap::Charsmap;
use super::error::{TokenizerError, short};
use super::json::File;
use super::normalize::Normalize;
use super::pattern::{self, Pattern};
use super::split::{Behaviour, Prefix, Split};

/// A list in a list in a list serves nobody.
const STEPS_MAX: usize = 16;
/// Replacements in use are a character or two.
const REPLACEMENT_BYTES_MAX: usize = 64;

/// What the steps make of a text.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) normalize: Vec<Normalize>,
    pub(super) split: Vec<Split>,
    /// The model works on bytes, and its vocabulary is written in the byte-level alphabet.
    pub(super) byte_level: bool,
    /// Spaces become `▁` on the way to the model.
    pub(super) underscores: bool,
    /// The decoder takes away one space at the start.
    pub(super) starts_with_space: bool,
}

fn unsupported(what: &'static str, found: &str, supported: &'static str) -> TokenizerError {
    TokenizerError::Unsupported { what, found: short(found), supported }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("")
}

/// The steps of a `Sequence`, or the one step itself.
fn sequence<'v>(
    what: &'static str,
    step: &'v Value,
    list: &str,
) -> Result<Vec<&'v Value>, TokenizerError> {
    let mut flat = Vec::new();
    let mut open = vec![step];
    while let Some(step) = open.pop() {
        if step.is_null() {
            continue;
        }
        if kind(step) == "Sequence" {
            let inner = step[list].as_array().map(Vec::as_slice).unwrap_or_default();
            open.extend(inner.iter().rev());
        } else {
            flat.push(step);
        }
        if flat.len() + open.len() > STEPS_MAX {
            let found = flat.len() + open.len();
            return Err(TokenizerError::TooLarge { what, found, limit: STEPS_MAX });
        }
    }
    Ok(flat)
}

impl Steps {
    pub(super) fn of_file(file: &File<'_>) -> Result<Steps, TokenizerError> {
        let mut steps = Steps::default();
        steps.read_normalizer(&file.normalizer)?;
        steps.read_pre_tokenizer(&file.pre_tokenizer)?;
        steps.read_decoder(&file.decoder)?;
        Ok(steps)
    }

    fn read_normalizer(&mut self, normalizer: &Value) -> Result<(), TokenizerError> {
        for step in sequence("steps of the normalizer", normalizer, "normalizers")? {
            let text = |key: &str| step[key].as_str().unwrap_or("").to_string();
            let normalize = match kind(step) {
                "NFC" => Normalize::Nfc,
                "NFD" => Normalize::Nfd,
                "NFKC" => Normalize::Nfkc,
                "NFKD" => Normalize::Nfkd,
                "Lowercase" => Normalize::Lowercase,
                "Strip" => Normalize::Strip {
                    left: step["strip_left"].as_bool().unwrap_or(true),
                    right: step["strip_right"].as_bool().unwrap_or(true),
                },
                "Prepend" => Normalize::Prepend(text("prepend")),
                "Replace" => self.replace(&step["pattern"], text("content"))?,
                "Precompiled" => {
                    let table = base64(step["precompiled_charsmap"].as_str().unwrap_or(""))?;
                    if table.is_empty() {
                        continue;
                    }
                    Normalize::Charsmap(Box::new(Charsmap::new(&table)?))
                }
                other => {
                    let supported =
                        "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, Precompiled";
                    return Err(unsupported("normalizer", other, supported));
                }
            };
            if let Normalize::Prepend(to)
            | Normalize::Replace { to, .. }
            | Normalize::ReplacePattern { to, .. } = &normalize
            {
                let what = "length of a replacement in the normalizer";
                super::check_size(what, to.len(), REPLACEMENT_BYTES_MAX)?;
            }
            self.normalize.push(normalize);
        }
        Ok(())
    }

    fn replace(&mut self, pattern: &Value, to: String) -> Result<Normalize, TokenizerError> {
        if let Some(from) = pattern["String"].as_str().filter(|from| !from.is_empty()) {
            self.underscores |= from == " " && to == "▁";
            return Ok(Normalize::Replace { from: from.into(), to });
        }
        match pattern["Regex"].as_str() {
            Some(from) => Ok(Normalize::ReplacePattern { from: Pattern::new(from)?, to }),
            None => Err(unsupported("pattern of Replace", &pattern.to_string(), "String, Regex")),
        }
    }

    fn read_pre_tokenizer(&mut self, pre: &Value) -> Result<(), TokenizerError> {
        for step in sequence("steps of the pre_tokenizer", pre, "pretokenizers")? {
            if self.byte_level {
                // After it, a text is no longer text but byte-level characters.
                return Err(unsupported("pre_tokenizer after ByteLevel", kind(step), "none"));
            }
            match kind(step) {
                "ByteLevel" => {
                    self.byte_level = true;
                    if step["add_prefix_space"].as_bool().unwrap_or(true) {
                        self.split.push(Split::SpaceBefore);
                        self.starts_with_space = false;
                    }
                    if step["use_regex"].as_bool().unwrap_or(true) {
                        self.split.push(isolated(pattern::GPT2)?);
                    }
                }
                "Digits" => {
                    let each = step["individual_digits"].as_bool().unwrap_or(false);
                    self.split.push(Split::Digits { each });
                }
                "Split" => self.split.push(split(step)?),
                "Metaspace" => {
                    self.underscores = true;
                    self.split.push(metaspace(step)?);
                }
                "Whitespace" => {
                    // Words and runs of punctuation; white space goes.
                    let pattern = Pattern::new(r"\w+|[^\w\s]+")?;
                    let behaviour = Behaviour::Removed;
                    self.split.push(Split::Pattern { pattern, behaviour, invert: true });
                }
                "WhitespaceSplit" => {
                    let pattern = Pattern::new(r"\s")?;
                    let behaviour = Behaviour::Removed;
                    self.split.push(Split::Pattern { pattern, behaviour, invert: false });
                }
                other => {
                    let supported =
                        "ByteLevel, Digits, Split, Metaspace, Whitespace, WhitespaceSplit";
                    return Err(unsupported("pre_tokenizer", other, supported));
                }
            }
        }
        Ok(())
    }

    /// The decoder has to undo what the steps did, and nothing else.
    fn read_decoder(&mut self, decoder: &Value) -> Result<(), TokenizerError> {
        for step in sequence("steps of the decoder", decoder, "decoders")? {
            match kind(step) {
                "ByteLevel" => self.byte_level = true,
                "ByteFallback" | "Fuse" => {}
                "Replace" if step["pattern"]["String"] == "▁" && step["content"] == " " => {}
                "Strip" if step["content"] == " " && step["stop"] == 0 => {
                    self.starts_with_space |= step["start"] == 1;
                }
                "Metaspace" => {
                    let prefix = metaspace_prefix(step)?;
                    self.starts_with_space |= prefix != Prefix::Never;
                }
                other => {
                    let supported = "ByteLevel, ByteFallback, Fuse, Metaspace, \
                                     Replace of \"▁\" by a space, Strip of one space";
                    return Err(unsupported("decoder", other, supported));
                }
            }
        }
        Ok(())
    }
}

fn isolated(pattern: &str) -> Result<Split, TokenizerError> {
    let (pattern, behaviour) = (Pattern::new(pattern)?, Behaviour::Isolated);
    Ok(Split::Pattern { pattern, behaviour, invert: false })
}

fn split(step: &Value) -> Result<Split, TokenizerError> {
    let pattern = match (step["pattern"]["Regex"].as_str(), step["pattern"]["String"].as_str()) {
        (Some(regex), _) => Pattern::new(regex)?,
        (None, Some(text)) => Pattern::new(&regex::escape(text))?,
        (None, None) => {
            let found = step["pattern"].to_string();
            return Err(unsupported("pattern of Split", &found, "String, Regex"));
        }
    };
    let behaviour = match step["behavior"].as_str().unwrap_or("") {
        "Removed" => Behaviour::Removed,
        "Isolated" => Behaviour::Isolated,
        "MergedWithPrevious" => Behaviour::MergedWithPrevious,
        "MergedWithNext" => Behaviour::MergedWithNext,
        "Contiguous" => Behaviour::Contiguous,
        other => {
            let supported = "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous";
            return Err(unsupported("behavior of Split", other, supported));
        }
    };
    Ok(Split::Pattern { pattern, behaviour, invert: step["invert"].as_bool().unwrap_or(false) })
}

fn metaspace(step: &Value) -> Result<Split, TokenizerError> {
    if step["replacement"].as_str().is_some_and(|replacement| replacement != "▁") {
        return Err(unsupported("replacement of Metaspace", &step["replacement"].to_string(), "▁"));
    }
    let prefix = metaspace_prefix(step)?;
    Ok(Split::Metaspace { prefix, split: step["split"].as_bool().unwrap_or(true) })
}

fn metaspace_prefix(step: &Value) -> Result<Prefix, TokenizerError> {
    if step["add_prefix_space"] == false {
        return Ok(Prefix::Never);
    }
    match step["prepend_scheme"].as_str().unwrap_or("always") {
        "always" => Ok(Prefix::Always),
        "first" => Ok(Prefix::First),
        "never" => Ok(Prefix::Never),
        other => Err(unsupported("prepend_scheme of Metaspace", other, "always, first, never")),
    }
}

/// Standard base64 with padding.
fn base64(text: &str) -> Result<Vec<u8>, TokenizerError> {
    let bad = TokenizerError::BadCharsmap { reason: "it is not base64" };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0u32;
    let mut num_bits = 0;
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(bad),
        };
        bits = bits << 6 | u32::from(value);
        num_bits += 6;
        if num_bits >= 8 {
            num_bits -= 8;
            // The cast keeps the eight bits that are complete.
            bytes.push((bits >> num_bits) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64("Zm9vYmE=").unwrap(), b"fooba");
        assert_eq!(base64("//8A").unwrap(), [255, 255, 0]);
        base64("Zm9v YmE=").unwrap_err();
    }
}
