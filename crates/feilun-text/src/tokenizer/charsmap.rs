//! SentencePiece's table of character replacements (`precompiled_charsmap`): a double-array trie
//! over the bytes to replace, and the replacements as zero-terminated strings.
//!
//! Layout: `u32` length of the trie in bytes, the trie as `u32` units, the strings. Every index
//! into it comes from the file, so every access here is checked.

use super::error::TokenizerError;
use super::vocab::check_size;

const CHARSMAP_BYTES_MAX: usize = 1 << 24;
/// The longest replacement in use has 33 bytes (NFKC of U+FDFA).
const REPLACEMENT_BYTES_MAX: usize = 64;
/// The longest text that is replaced; a hostile trie may go round in circles.
const ENTRY_BYTES_MAX: usize = 64;

/// A checked table.
#[derive(Debug)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    pub(super) fn new(table: &[u8]) -> Result<Charsmap, TokenizerError> {
        let bad = |reason| TokenizerError::BadCharsmap { reason };
        check_size("length of precompiled_charsmap", table.len(), CHARSMAP_BYTES_MAX)?;
        let (length, rest) = table.split_first_chunk::<4>().ok_or(bad("shorter than 4 bytes"))?;
        let trie_bytes = u32::from_le_bytes(*length) as usize;
        if trie_bytes > rest.len() || !trie_bytes.is_multiple_of(4) || trie_bytes == 0 {
            return Err(bad(
                "the trie is empty, not made of 4-byte units, or longer than the table",
            ));
        }
        let (trie, strings) = rest.split_at(trie_bytes);
        let units = trie.as_chunks::<4>().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        let replacements =
            String::from_utf8(strings.to_vec()).map_err(|_| bad("a replacement is not UTF-8"))?;
        if replacements.split('\0').any(|text| text.len() > REPLACEMENT_BYTES_MAX) {
            return Err(bad("a replacement is longer than 64 bytes"));
        }
        Ok(Charsmap { units, replacements })
    }

    /// How many times longer a text can become.
    pub(super) fn growth_max(&self) -> usize {
        REPLACEMENT_BYTES_MAX
    }

    /// Replaces, from left to right, the longest entry that starts at each place.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            match self.longest(rest) {
                Some((length, replacement)) => {
                    out.push_str(replacement);
                    rest = &rest[length..];
                }
                None => {
                    out.push(character);
                    rest = &rest[character.len_utf8()..];
                }
            }
        }
        out
    }

    /// Length of the longest entry at the start of a text, and what replaces it.
    fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut place = offset(*self.units.first()?);
        for (at, byte) in text.bytes().enumerate().take(ENTRY_BYTES_MAX) {
            // A NUL byte would meet the unit that holds the value.
            if byte == 0 {
                break;
            }
            place ^= usize::from(byte);
            let Some(&unit) = self.units.get(place) else { break };
            if label(unit) != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            if has_leaf(unit) && text.is_char_boundary(at + 1) {
                let value = self.units.get(place).map(|&leaf| (leaf & 0x7fff_ffff) as usize);
                if let Some(replacement) = value.and_then(|start| self.replacements.get(start..)) {
                    let end = replacement.find('\0').unwrap_or(replacement.len());
                    found = Some((at + 1, &replacement[..end]));
                }
            }
        }
        found
    }
}

// The bits of a Darts-clone unit.

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_tables_are_errors_or_do_nothing() {
        for table in [&[][..], &[1], &[255, 255, 255, 255, 0], &[3, 0, 0, 0, 1, 2, 3], &[0; 4]] {
            Charsmap::new(table).unwrap_err();
        }
        // Every unit points somewhere wild.
        for unit in [0u32, u32::MAX, 0x8000_0061, 0x0000_0161, 0xffff_fc61] {
            let mut table = 64u32.to_le_bytes().to_vec();
            for _ in 0..16 {
                table.extend(unit.to_le_bytes());
            }
            table.extend("ä\0".bytes());
            let charsmap = Charsmap::new(&table).unwrap();
            let _ = charsmap.apply("aaa\0äöü€😀");
        }
    }
}
