//! What came of an item.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::suite::Verdict;

/// What came of an item: a line of an evaluation's results.
///
/// It holds nothing that depends on time, threads or neighbours: the same model on the same item
/// gives the same line.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ItemResult {
    /// The item's.
    pub id: String,
    /// The item's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The item's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// What it contributes to each metric, by name: see [`crate::stats::Aggregate`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Vec<f64>>,
    /// What the model did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why there is no answer, or none that could be scored. Such an item contributes nothing,
    /// and is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a model did with an item.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// It wrote.
    Text {
        /// What it wrote.
        text: String,
        /// How many tokens that were, the one that ended the answer included.
        tokens: usize,
        /// How it ended.
        end: End,
        /// What the scorer makes of it: 0 to 1, or 0 to 100 for chrF and BLEU.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
        /// Why it is not worth more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It found choices more or less likely.
    Choices {
        /// Log-likelihoods, one for each choice.
        logprobs: Vec<f64>,
        /// The likeliest.
        likeliest: usize,
    },
    /// It found a text more or less likely.
    Likelihood {
        /// The log-likelihood of all its tokens.
        logprob: f64,
        /// How many there are.
        tokens: usize,
        /// Bytes of the text.
        bytes: usize,
    },
    /// It found one answer likelier than another.
    Pair {
        /// The log-likelihood of the better answer.
        chosen: f64,
        /// How many tokens that has.
        chosen_tokens: usize,
        /// The log-likelihood of the worse answer.
        rejected: f64,
        /// How many tokens that has.
        rejected_tokens: usize,
    },
    /// It judged, in both orders.
    Verdicts {
        /// What it said, in the item's order.
        reply: String,
        /// What it said with the answers swapped.
        swapped_reply: String,
        /// What the first means.
        verdict: Option<Verdict>,
        /// What the second means, in the item's order.
        swapped_verdict: Option<Verdict>,
    },
}

/// How a written answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The model, or a stop string, ended it.
    Stop,
    /// It was cut off where it had as many tokens as it may have.
    Length,
}
