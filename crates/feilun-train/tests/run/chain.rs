//! The data of the tests: walks of a Markov chain in which each token has a favourite successor.

use std::ops::Range;

use feilun_train::data::{Origin, PackedRow, Part};
use feilun_train::learner::{Batches, BoxError};

const ROWS_PER_STEP: u64 = 3;
const DOCUMENTS_PER_ROW: u64 = 2;
const DOCUMENT_TOKENS: usize = 24;

pub(crate) struct Chain {
    num_tokens: usize,
    seed: u64,
    held_out: Vec<PackedRow>,
    /// Steps whose tokens come from another world.
    pub(crate) noise: Range<u64>,
}

impl Chain {
    pub(crate) fn new(num_tokens: usize, seed: u64) -> Chain {
        let held_out = (0..2).map(|row| walks(num_tokens, &[seed, 1, row], false)).collect();
        Chain { num_tokens, seed, held_out, noise: 0..0 }
    }
}

impl Batches for Chain {
    fn rows(&self, step: u64) -> Result<Vec<PackedRow>, BoxError> {
        let is_noise = self.noise.contains(&step);
        let row = |row| walks(self.num_tokens, &[self.seed, 0, step, row], is_noise);
        Ok((0..ROWS_PER_STEP).map(row).collect())
    }

    fn held_out(&self) -> &[PackedRow] {
        &self.held_out
    }

    fn digest(&self) -> String {
        format!("chain of {} tokens, seed {}", self.num_tokens, self.seed)
    }

    fn describe(&self, row: &PackedRow) -> String {
        row.origins
            .iter()
            .map(|origin| format!("walk {}", origin.example))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A row of walks that follow from the key alone.
fn walks(num_tokens: usize, key: &[u64], is_noise: bool) -> PackedRow {
    let mut hasher = blake3::Hasher::new();
    key.iter().for_each(|number| {
        hasher.update(&number.to_le_bytes());
    });
    let mut random = hasher.finalize_xof();
    let mut next = || {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) as usize
    };
    let mut row = PackedRow::default();
    for document in 0..DOCUMENTS_PER_ROW {
        let mut token = next() % num_tokens;
        let mut tokens = Vec::new();
        for _ in 0..DOCUMENT_TOKENS {
            tokens.push(token as u32);
            // The favourite five times of six.
            let is_favourite = !is_noise && next() % 6 != 0;
            token = if is_favourite { (token * 5 + 3) % num_tokens } else { next() % num_tokens };
        }
        let example = (key.last().copied().unwrap_or(0) * DOCUMENTS_PER_ROW + document) as usize;
        // As in a conversation, the first tokens are a prompt.
        let learn: Vec<bool> = (0..DOCUMENT_TOKENS).map(|place| place >= 4).collect();
        row.push(&tokens, &learn, Origin { example, part: Part::Whole });
    }
    row
}
