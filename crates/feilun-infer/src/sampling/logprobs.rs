//! Log-probabilities of the model's own distribution.
//!
//! Natural logarithms of the softmax of the raw logits: before bias, penalties, constraint,
//! temperature and truncation, as OpenAI reports them. So they compare across requests, and the
//! trainer can use them as they are.

use super::scan::{self, Candidate};

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
    scratch: &mut Vec<Candidate>,
) -> Option<TokenLogprobs> {
    let max = scan::argmax(row)?.logit;
    let normalizer = scan::log_sum_exp(row, max);
    let logprob = |logit: f32| (f64::from(logit) - normalizer) as f32;
    let chosen = *row.get(token as usize)?;
    scan::top(row, num_top, scratch);
    let top = scratch.iter().map(|c| (c.token, logprob(c.logit))).collect();
    Some(TokenLogprobs { token, logprob: logprob(chosen), top })
}
