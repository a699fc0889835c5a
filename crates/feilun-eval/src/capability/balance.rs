//! Chooses items such that no trick does better than chance.
//!
//! Most questions are made so that the choices alone tell nothing; but the text is not, and a
//! word may be mentioned more often because it is the answer. So several candidates are made for
//! each place of the suite, and that one is taken which leaves every trick closest to one in four.

use super::draft::{Draft, NUM_CHOICES};
use super::draws::Draws;
use super::tricks::{self, FULL_CREDIT, NUM_TRICKS};
use super::{Kind, Language, NUM_LEVELS};

/// Candidates for each item. With eight the largest excess of a trick in a group of 30 was about
/// twice what it is with 24.
const NUM_CANDIDATES: usize = 24;
/// Drafts that are tried for a candidate; most succeed at once.
const ATTEMPTS_MAX: usize = 200;

/// A draft and its level, from 0.
pub(super) struct Chosen {
    pub(super) level: usize,
    pub(super) draft: Draft,
}

/// Items of one skill and language. Levels and kinds take turns.
pub(super) fn choose(
    language: Language,
    kinds: &[Kind],
    count: usize,
    draws: &Draws,
) -> Vec<Chosen> {
    // Each kind for itself, so that one does not make up for another: the kinds look different.
    let mut excesses = vec![[0; NUM_TRICKS]; kinds.len()];
    let mut chosen: Vec<Chosen> = Vec::with_capacity(count);
    for index in 0..count {
        let level = index % NUM_LEVELS;
        let kind_index = kind_of(index, kinds.len());
        let (kind, excess) = (kinds[kind_index], &mut excesses[kind_index]);
        let best = (0..NUM_CANDIDATES)
            .filter_map(|candidate| {
                let mut draws = draws.fork(&[index, candidate]);
                (0..ATTEMPTS_MAX).find_map(|_| kind(language, level, &mut draws))
            })
            .filter(|draft| !chosen.iter().any(|other| other.draft.prompt == draft.prompt))
            .map(|draft| (excess_with(*excess, &draft), draft))
            .min_by_key(|(excess, _)| excess.iter().map(|value| value * value).sum::<i64>());
        // Only a kind that cannot make any item of this level leaves a gap; tests look for one.
        if let Some((with, draft)) = best {
            *excess = with;
            chosen.push(Chosen { level, draft });
        }
    }
    chosen
}

/// Which kind an item is of; over the items each kind meets each level.
pub(super) fn kind_of(index: usize, num_kinds: usize) -> usize {
    (index % NUM_LEVELS + index / NUM_LEVELS) % num_kinds
}

/// By how much each trick is above chance, in twelfths, when an item is added.
fn excess_with(mut excess: [i64; NUM_TRICKS], draft: &Draft) -> [i64; NUM_TRICKS] {
    let credits = tricks::credits(&draft.prompt, &draft.choices());
    for (excess, credit) in excess.iter_mut().zip(credits) {
        *excess += credit - FULL_CREDIT / NUM_CHOICES as i64;
    }
    excess
}
