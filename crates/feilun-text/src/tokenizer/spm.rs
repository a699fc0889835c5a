//! SentencePiece BPE: Llama 2, Mistral, Gemma, as GGUF files carry them, with a score for each
//! piece and no list of merges.
//!
//! Any two neighbours whose texts together are a piece may join; the highest score goes first, of
//! equal scores the leftmost. That is the rule of SentencePiece itself. Deriving a list of merges
//! from the scores, as converters do, tries every cut of every piece and takes seconds for
//! Gemma's 262,144 pieces; searching the pieces directly needs nothing prepared but an index.
//!
//! One exception follows the published `tokenizer.json` of Gemma where it differs from SentencePiece.
//! Gemma has tokens for runs of 2 to 31 spaces, kept intact. SentencePiece takes the longest run
//! first, so 32 spaces are 31 + 1; the published tokenizer joins runs before anything else, the
//! shortest first, so 32 spaces are 16 + 16.

use hashbrown::HashMap;

use super::bpe::byte_ids;
use super::error::TokenizerError;
use super::merge::{Join, Merger, Symbol};
use super::vocab::{TokenIndex, TokenKind, Vocab};

/// Ranks of the pieces, and what to do with characters that are none.
#[derive(Debug)]
pub(super) struct Spm {
    ranks: Vec<u32>,
    bytes: Option<Box<[Option<u32>; 256]>>,
    unknown: Option<u32>,
    has_unused: bool,
}

impl Spm {
    /// `scores`: one finite number per token.
    pub(super) fn new(
        vocab: &Vocab,
        scores: &[f32],
        bytes: Option<Box<[Option<u32>; 256]>>,
        unknown: Option<u32>,
    ) -> Spm {
        Spm {
            ranks: vocab
                .ids()
                .zip(scores)
                .map(|((id, kind), &score)| match kind == TokenKind::UserDefined {
                    true if is_spaces(vocab.bytes(id)) => space_run_rank(vocab.bytes(id)),
                    _ => rank(score),
                })
                .collect(),
            bytes,
            unknown,
            has_unused: vocab.ids().any(|(_, kind)| kind == TokenKind::Unused),
        }
    }

    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        pieces: &TokenIndex,
        text: &str,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let bytes = text.as_bytes();
        merger.clear();
        for (start, character) in text.char_indices() {
            let end = start + character.len_utf8();
            let id = pieces.get(vocab, &bytes[start..end]);
            // Texts are shorter than u32::MAX, see `TEXT_BYTES_MAX`.
            merger.push(Symbol { start: start as u32, end: end as u32, id });
        }
        // Pieces of the kind "unused" serve as steps only; what became one is taken apart again.
        let mut parts = HashMap::new();
        merger.run(
            |left, right| {
                let id = pieces.get(vocab, &bytes[left.start as usize..right.end as usize])?;
                Some(Join { rank: self.ranks[id as usize], id })
            },
            |left, right, id| {
                if self.has_unused && vocab.kind(id) == Some(TokenKind::Unused) {
                    parts.insert((left.start, right.end), left.end);
                }
            },
        );
        let mut after_unknown = false;
        for &symbol in merger.symbols() {
            let mut open = vec![symbol];
            while let Some(symbol) = open.pop() {
                if let Some(&middle) = parts.get(&(symbol.start, symbol.end)) {
                    let piece = |start: u32, end: u32| Symbol {
                        start,
                        end,
                        id: pieces.get(vocab, &bytes[start as usize..end as usize]),
                    };
                    open.push(piece(middle, symbol.end));
                    open.push(piece(symbol.start, middle));
                    continue;
                }
                let known = symbol.id.filter(|&id| vocab.kind(id) != Some(TokenKind::Unused));
                if let Some(id) = known {
                    out.push(id);
                    after_unknown = false;
                    continue;
                }
                let text = &text[symbol.start as usize..symbol.end as usize];
                if let Some(ids) = byte_ids(self.bytes.as_deref(), text.as_bytes()) {
                    out.extend(ids);
                    after_unknown = false;
                } else if let Some(id) = self.unknown {
                    if !after_unknown {
                        out.push(id);
                    }
                    after_unknown = true;
                } else {
                    let character = text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(TokenizerError::NoToken { character });
                }
            }
        }
        Ok(())
    }
}

/// Whether a user-defined token is joined from shorter ones and not found as a whole.
pub(super) fn is_spaces(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| byte == b' ')
}

/// Before every score: the rank of the highest finite one is 0x0080_0000.
fn space_run_rank(text: &[u8]) -> u32 {
    text.len() as u32
}

/// Maps scores to integers in falling order: the highest score has the lowest rank.
fn rank(score: f32) -> u32 {
    // Adding zero makes -0.0 equal to 0.0, which Gemma's first two pieces need.
    let bits = (score + 0.0).to_bits();
    let rising = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !rising
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fall_as_scores_rise() {
        let scores = [f32::MAX, 2.0, 1.0, 0.0, -0.5, -1.0, -1000.0, f32::MIN];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
        }
        assert_eq!(rank(0.0), rank(-0.0));
        assert!(space_run_rank(&[b' '; super::super::vocab::TOKEN_BYTES_MAX]) < rank(f32::MAX));
    }
}
