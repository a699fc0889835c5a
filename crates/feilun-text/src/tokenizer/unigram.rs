//! Unigram: of all ways to cut a text into pieces, the one with the highest sum of scores
//! (T5 and its relatives).

use super::bpe::byte_ids;
use super::error::TokenizerError;
use super::vocab::{TokenIndex, Vocab, check_size};

/// SentencePiece's penalty for an unknown character, below the lowest score.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Bound of the work: length of the text times length of the longest piece.
const STEPS_MAX: usize = 1 << 28;

/// Scores of the pieces, and what to do with characters that are none.
#[derive(Debug)]
pub(super) struct Unigram {
    scores: Vec<f64>,
    unknown_score: f64,
    unknown: Option<u32>,
    bytes: Option<Box<[Option<u32>; 256]>>,
    piece_bytes_max: usize,
}

/// The best way to reach a place in the text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    id: Option<u32>,
}

impl Unigram {
    /// `scores`: one finite number per token.
    pub(super) fn new(
        vocab: &Vocab,
        scores: Vec<f64>,
        unknown: Option<u32>,
        bytes: Option<Box<[Option<u32>; 256]>>,
    ) -> Unigram {
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let piece_bytes_max = vocab.ids().map(|(id, _)| vocab.bytes(id).len()).max().unwrap_or(0);
        let unknown_score = lowest - UNKNOWN_PENALTY;
        Unigram { scores, unknown_score, unknown, bytes, piece_bytes_max }
    }

    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        pieces: &TokenIndex,
        text: &str,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let steps = text.len().saturating_mul(self.piece_bytes_max);
        check_size("length of a text times that of the longest piece", steps, STEPS_MAX)?;
        let nowhere = Best { score: f64::NEG_INFINITY, start: u32::MAX, id: None };
        let mut best = vec![nowhere; text.len() + 1];
        best[0].score = 0.0;
        for (start, first) in text.char_indices() {
            let here = best[start].score;
            let rest = &text[start..];
            let mut alone = false;
            for (at, character) in rest.char_indices() {
                let length = at + character.len_utf8();
                if length > self.piece_bytes_max {
                    break;
                }
                if let Some(id) = pieces.get(vocab, &rest.as_bytes()[..length]) {
                    alone |= at == 0;
                    let score = here + self.scores[id as usize];
                    reach(&mut best[start + length], score, start, Some(id));
                }
            }
            if !alone {
                let score = here + self.unknown_score;
                reach(&mut best[start + first.len_utf8()], score, start, None);
            }
        }
        self.follow(&best, text, out)
    }

    /// Walks back along the best path and writes its tokens in order.
    fn follow(&self, best: &[Best], text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut path = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let Best { start, id, .. } = best[end];
            path.push((start as usize, end, id));
            end = start as usize;
        }
        // Several unknown characters in a row count as one piece.
        let mut after_unknown = false;
        for (start, end, id) in path.into_iter().rev() {
            if let Some(id) = id {
                out.push(id);
                after_unknown = false;
            } else if let Some(ids) = byte_ids(self.bytes.as_deref(), &text.as_bytes()[start..end])
            {
                out.extend(ids);
            } else if let Some(id) = self.unknown {
                if !after_unknown {
                    out.push(id);
                }
                after_unknown = true;
            } else {
                let character = text[start..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                return Err(TokenizerError::NoToken { character });
            }
        }
        Ok(())
    }
}

fn reach(place: &mut Best, score: f64, start: usize, id: Option<u32>) {
    if place.start == u32::MAX || score > place.score {
        // Fits: texts are shorter than u32::MAX.
        *place = Best { score, start: start as u32, id };
    }
}
