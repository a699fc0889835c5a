//! Token ids in, text out, one token at a time, never half a character.
//!
//! A token may end in the middle of a character: most emoji are two or three tokens of byte-level
//! BPE. Those bytes are held back until the character is complete, or until it is certain that it
//! never will be; then U+FFFD stands for them, exactly where it would stand in the text decoded as
//! a whole.

use std::sync::Arc;

use crate::tokenizer::Tokenizer;

/// Bytes in, valid text out.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// At most three bytes: the beginning of a character.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes and returns the text that is certain by now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = bad;
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[length..];
                        }
                        // The beginning of a character that may yet be completed.
                        None => break,
                    }
                }
            }
        }
        self.held.drain(..self.held.len() - rest.len());
        text
    }

    /// What is left at the end: U+FFFD for the beginning of a character that never came.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// Token ids in, valid text out. What all calls return, put together, is
/// [`Tokenizer::decode`] of all ids.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// Nothing was written yet, and the tokenizer begins texts with a space.
    drop_space: bool,
    utf8: Utf8Stream,
}

impl StreamDecoder {
    /// A decoder at the start of a text. With `skip_special`, control tokens add nothing.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> StreamDecoder {
        let drop_space = tokenizer.starts_with_space();
        StreamDecoder { tokenizer, skip_special, drop_space, utf8: Utf8Stream::default() }
    }

    /// A decoder in the middle of a text, such as behind a prompt: a space at the start is text.
    pub fn continuing(tokenizer: Arc<Tokenizer>, skip_special: bool) -> StreamDecoder {
        StreamDecoder { drop_space: false, ..StreamDecoder::new(tokenizer, skip_special) }
    }

    /// Adds a token and returns the text that is certain by now, often none.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        let mut bytes = self.tokenizer.token_bytes(id);
        if self.drop_space && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.drop_space = false;
        }
        self.utf8.push(bytes)
    }

    /// The end: what is left of an incomplete character.
    pub fn finish(&mut self) -> String {
        self.utf8.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_stay_whole() {
        let mut stream = Utf8Stream::default();
        let pieces: Vec<String> = "a€🦀".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(pieces, ["a", "", "", "€", "", "", "", "🦀"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_character_that_never_comes_is_replaced_once() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(&[0xf0, 0x9f]), "");
        assert_eq!(stream.push(b"a"), "\u{fffd}a");
        assert_eq!(stream.push(&[0xff]), "\u{fffd}");
        assert_eq!(stream.push(&[0xe2, 0x82]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        /// Bytes from characters, cut characters and noise, in pushes of any length.
        #[test]
        fn pushes_add_up(
            parts in prop::collection::vec(
                prop_oneof![
                    any::<String>().prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..6),
                    "[🦀€é]".prop_map(|text| text.as_bytes()[..text.len() - 1].to_vec()),
                ],
                0..12,
            ),
            size in 1usize..5,
        ) {
            let bytes = parts.concat();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = Utf8Stream::default();
            let mut text = String::new();
            for push in bytes.chunks(size) {
                text.push_str(&stream.push(push));
                // Every prefix is a prefix of the whole, so no U+FFFD comes that does not stay.
                prop_assert!(whole.starts_with(&text));
                prop_assert!(stream.held.len() < 4);
            }
            text.push_str(&stream.finish());
            prop_assert_eq!(text, whole);
        }
    }
}
