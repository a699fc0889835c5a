//! Evaluations with known truth.

use feilun_eval::stats::{Aggregate, Mean, PairedItem, ScoredItem};

use crate::draws::Draws;

/// One model's metric.
pub(crate) struct Single {
    pub(crate) name: &'static str,
    pub(crate) aggregate: &'static dyn Aggregate,
    pub(crate) truth: f64,
    pub(crate) draw: fn(&mut Draws, usize) -> Vec<ScoredItem>,
}

/// Two models on the same items.
pub(crate) struct Paired {
    pub(crate) name: &'static str,
    pub(crate) aggregate: &'static dyn Aggregate,
    pub(crate) truth: f64,
    pub(crate) draw: fn(&mut Draws, usize) -> Vec<PairedItem>,
}

/// A corpus metric in the manner of BLEU: two matched counts over two totals, their geometric
/// mean, times 100.
pub(crate) struct Corpus;

impl Aggregate for Corpus {
    fn value(&self, sums: &[f64]) -> f64 {
        100.0 * (sums[0] / sums[1] * sums[2] / sums[3]).sqrt()
    }

    fn width(&self) -> usize {
        4
    }
}

fn scored(items: impl Iterator<Item = (u64, Vec<f64>)>) -> Vec<ScoredItem> {
    items.map(|(cluster, sums)| ScoredItem { cluster, sums }).collect()
}

fn single_mean(num: usize, mut value: impl FnMut() -> f64) -> Vec<ScoredItem> {
    scored((0..num as u64).map(|item| (item, vec![value(), 1.0])))
}

fn pairs(items: impl Iterator<Item = (u64, f64, f64)>) -> Vec<PairedItem> {
    items
        .map(|(cluster, candidate, incumbent)| PairedItem {
            cluster,
            candidate: vec![candidate, 1.0],
            incumbent: vec![incumbent, 1.0],
        })
        .collect()
}

pub(crate) fn paired_mean(num: usize, mut pair: impl FnMut() -> (f64, f64)) -> Vec<PairedItem> {
    pairs((0..num as u64).map(|item| {
        let (candidate, incumbent) = pair();
        (item, candidate, incumbent)
    }))
}

/// Conversations of 1 to 5 turns until there are so many items: which conversation is each in?
fn conversations(draws: &mut Draws, num: usize) -> Vec<u64> {
    let mut clusters = Vec::with_capacity(num);
    let mut cluster = 0;
    while clusters.len() < num {
        let turns = (1 + draws.index(5)).min(num - clusters.len());
        clusters.extend(std::iter::repeat_n(cluster, turns));
        cluster += 1;
    }
    clusters
}

/// What each conversation draws once, for each of its items.
fn per_cluster<T: Copy>(clusters: &[u64], mut draw: impl FnMut() -> T) -> Vec<(u64, T)> {
    let num = clusters.last().map_or(0, |last| last + 1);
    let shared: Vec<T> = (0..num).map(|_| draw()).collect();
    clusters.iter().map(|&cluster| (cluster, shared[cluster as usize])).collect()
}

/// A corpus item: its length, and what of two kinds of pieces match, with this chance.
fn corpus_item(draws: &mut Draws, length: f64, quality: f64) -> Vec<f64> {
    let mut matches = |part: f64| {
        let noise = 0.25 * draws.normal();
        (part * (quality + noise)).clamp(0.02, 0.98) * length
    };
    vec![matches(1.0), length, matches(0.6), length]
}

/// The truth of [`corpus_item`] at qualities 0.5 and 0.55: the two expected matches, integrated
/// over the noise by scipy.
const CORPUS_TRUTH: f64 = 38.84631461294737;
const CORPUS_TRUTH_BETTER: f64 = 42.561699667715956;

pub(crate) const SINGLES: &[Single] = &[
    Single {
        name: "normal scores",
        aggregate: &Mean,
        truth: 0.5,
        draw: |draws, num| single_mean(num, || 0.5 + 0.2 * draws.normal()),
    },
    Single {
        name: "skewed: exponential",
        aggregate: &Mean,
        truth: 1.0,
        draw: |draws, num| single_mean(num, || draws.exponential()),
    },
    Single {
        name: "very skewed: log-normal",
        aggregate: &Mean,
        truth: 1.6487212707001282, // exp(1/2)
        draw: |draws, num| single_mean(num, || draws.log_normal(1.0)),
    },
    Single {
        name: "ties: 60 % zeros, else uniform",
        aggregate: &Mean,
        truth: 0.2,
        draw: |draws, num| {
            single_mean(num, || if draws.happens(0.6) { 0.0 } else { draws.uniform() })
        },
    },
    Single {
        name: "ties: of five grades, 40 % the best",
        aggregate: &Mean,
        truth: 0.675,
        draw: |draws, num| {
            let grades = [0.0, 0.25, 0.5, 0.5, 0.75, 0.75];
            single_mean(num, || if draws.happens(0.4) { 1.0 } else { grades[draws.index(6)] })
        },
    },
    Single {
        name: "clustered, uneven sizes",
        aggregate: &Mean,
        truth: 0.0,
        draw: |draws, num| {
            let clusters = conversations(draws, num);
            let shared = per_cluster(&clusters, || draws.normal());
            scored(shared.into_iter().map(|(g, shared)| (g, vec![shared + draws.normal(), 1.0])))
        },
    },
    Single {
        name: "right answers, 50 %",
        aggregate: &Mean,
        truth: 0.5,
        draw: |draws, num| single_mean(num, || draws.right(0.5)),
    },
    Single {
        name: "right answers, 80 %",
        aggregate: &Mean,
        truth: 0.8,
        draw: |draws, num| single_mean(num, || draws.right(0.8)),
    },
    Single {
        name: "right answers, 95 %",
        aggregate: &Mean,
        truth: 0.95,
        draw: |draws, num| single_mean(num, || draws.right(0.95)),
    },
    Single {
        name: "right answers, 70 %, clustered",
        aggregate: &Mean,
        truth: 0.7,
        draw: |draws, num| {
            let clusters = conversations(draws, num);
            let easy = per_cluster(&clusters, || draws.happens(0.5));
            scored(easy.into_iter().map(|(cluster, is_easy)| {
                (cluster, vec![draws.right(if is_easy { 0.95 } else { 0.45 }), 1.0])
            }))
        },
    },
    Single {
        name: "bits per byte, uneven lengths",
        aggregate: &Mean,
        // Longer texts are easier: E[length · rate] / E[length].
        truth: 0.94,
        draw: |draws, num| {
            scored((0..num as u64).map(|item| {
                let z = draws.normal();
                let length = (0.6 * z).exp();
                let rate = 1.0 - 0.1 * z + 0.2 * (draws.exponential() - 1.0);
                (item, vec![length * rate, length])
            }))
        },
    },
    Single {
        name: "corpus score",
        aggregate: &Corpus,
        truth: CORPUS_TRUTH,
        draw: |draws, num| {
            scored((0..num as u64).map(|item| {
                let length = draws.log_normal(0.7);
                (item, corpus_item(draws, length, 0.5))
            }))
        },
    },
];

pub(crate) const PAIRS: &[Paired] = &[
    Paired {
        name: "normal differences",
        aggregate: &Mean,
        truth: 0.1,
        draw: |draws, num| {
            paired_mean(num, || {
                let item = draws.normal();
                (item + 0.1 + 0.3 * draws.normal(), item + 0.3 * draws.normal())
            })
        },
    },
    Paired {
        name: "skewed differences",
        aggregate: &Mean,
        truth: 0.5,
        draw: |draws, num| {
            paired_mean(num, || (0.5 * draws.exponential() + 0.2 * draws.normal(), 0.0))
        },
    },
    Paired {
        name: "ties: 70 % equal, else a graded change",
        aggregate: &Mean,
        truth: 0.075,
        draw: |draws, num| {
            paired_mean(num, || {
                if draws.happens(0.7) {
                    (0.5, 0.5)
                } else if draws.happens(0.75) {
                    (0.5 + [0.4, 0.5, 0.6][draws.index(3)], 0.5)
                } else {
                    (0.0, 0.5)
                }
            })
        },
    },
    Paired {
        name: "clustered, uneven sizes",
        aggregate: &Mean,
        truth: 0.2,
        draw: |draws, num| {
            let clusters = conversations(draws, num);
            let shared = per_cluster(&clusters, || draws.normal());
            pairs(shared.into_iter().map(|(g, shared)| (g, 0.2 + shared + draws.normal(), 0.0)))
        },
    },
    Paired {
        name: "right or wrong, 30 % differ",
        aggregate: &Mean,
        truth: 0.1,
        draw: |draws, num| paired_mean(num, || right_or_wrong(draws, 0.2, 0.1)),
    },
    Paired {
        name: "right or wrong, 10 % differ",
        aggregate: &Mean,
        truth: 0.06,
        draw: |draws, num| paired_mean(num, || right_or_wrong(draws, 0.08, 0.02)),
    },
    Paired {
        name: "right or wrong, clustered",
        aggregate: &Mean,
        truth: 0.15,
        draw: |draws, num| {
            let clusters = conversations(draws, num);
            let is_good = per_cluster(&clusters, || draws.happens(0.5));
            pairs(is_good.into_iter().map(|(g, is_good)| {
                let (wins, losses) = if is_good { (0.5, 0.05) } else { (0.05, 0.2) };
                let (candidate, incumbent) = right_or_wrong(draws, wins, losses);
                (g, candidate, incumbent)
            }))
        },
    },
    Paired {
        name: "corpus score",
        aggregate: &Corpus,
        truth: CORPUS_TRUTH_BETTER - CORPUS_TRUTH,
        draw: |draws, num| {
            (0..num as u64)
                .map(|cluster| {
                    let length = draws.log_normal(0.7);
                    PairedItem {
                        cluster,
                        candidate: corpus_item(draws, length, 0.55),
                        incumbent: corpus_item(draws, length, 0.5),
                    }
                })
                .collect()
        },
    },
];

pub(crate) fn right_or_wrong(draws: &mut Draws, wins: f64, losses: f64) -> (f64, f64) {
    let place = draws.uniform();
    if place < wins {
        (1.0, 0.0)
    } else if place < wins + losses {
        (0.0, 1.0)
    } else {
        let both = draws.right(0.6);
        (both, both)
    }
}

/// Each scenario of two models with the models made the same: a fair coin says which is which.
pub(crate) fn made_equal(draws: &mut Draws, scenario: &Paired, num: usize) -> Vec<PairedItem> {
    let mut items = (scenario.draw)(draws, num);
    let num_clusters = items.iter().map(|item| item.cluster + 1).max().unwrap_or(0);
    let swaps: Vec<bool> = (0..num_clusters).map(|_| draws.happens(0.5)).collect();
    for item in &mut items {
        if swaps[item.cluster as usize] {
            std::mem::swap(&mut item.candidate, &mut item.incumbent);
        }
    }
    items
}
