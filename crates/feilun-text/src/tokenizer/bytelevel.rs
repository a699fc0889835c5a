//! The alphabet in which byte-level BPE vocabularies are written: each byte is a printable
//! character, so `Ġthe` is " the". GPT-2's choice, kept by all that followed.

/// The byte that a character of the alphabet stands for.
fn byte_of(character: char) -> Option<u8> {
    match character {
        // Printable bytes stand for themselves.
        '!'..='~' | '¡'..='¬' | '®'..='ÿ' => u8::try_from(u32::from(character)).ok(),
        // The other 68 bytes follow from U+0100 on: 0 to 32, 127 to 160, and 173.
        'Ā'..='Ġ' => u8::try_from(u32::from(character) - 0x100).ok(),
        'ġ'..='ł' => u8::try_from(u32::from(character) - 0x121 + 127).ok(),
        'Ń' => Some(173),
        _ => None,
    }
}

/// The bytes of a token. A token with a character outside the alphabet stands for its own text.
pub(super) fn bytes_of(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut bytes: Vec<u8> =
            (0..=0x2ff).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn known_tokens() {
        assert_eq!(bytes_of("Ġthe"), b" the");
        assert_eq!(bytes_of("Ċ"), b"\n");
        assert_eq!(bytes_of("ä½ł"), "你".as_bytes());
        assert_eq!(bytes_of("▁x"), "▁x".as_bytes());
    }
}
