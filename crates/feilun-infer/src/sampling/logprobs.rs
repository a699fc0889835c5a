//! Log-probabilities of the model's own distribution.
//!
//! Natural logarithms of the softmax of the raw logits: before bias, penalties, constraint,
//! temperature and truncation, as OpenAI reports them. So they compare across requests, and the
//! trainer can use them as they are.

use super::{Scratch, scan};

/// The log-probability of one token, and of the likeliest at its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// ln p(token).
    pub logprob: f32,
    /// The likeliest tokens, likeliest first (of equals the lower id), as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// The log-probability of `token` under a row of logits, with `num_top` alternatives; `None` if
/// the row holds NaN or +∞, or has no such token.
pub fn token_logprobs(
    row: &[f32],
    token: u32,
    num_top: usize,
    scratch: &mut Scratch,
) -> Option<TokenLogprobs> {
    scan::argmax(row)?;
    let normalizer = scan::log_sum_exp(row);
    let chosen = *row.get(token as usize)?;
    scratch.find_top(row, num_top);
    let top = scratch.candidates.iter().map(|c| (c.token, c.logit - normalizer)).collect();
    Some(TokenLogprobs { token, logprob: chosen - normalizer, top })
}
