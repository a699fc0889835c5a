//! From a row of logits to a token.
//!
//! The steps and their order, which are those of transformers and vLLM (llama.cpp divides by the
//! temperature last, so that its top-p does not depend on it):
//!
//! 1. log-probabilities are read off the raw logits ([`logprobs`]);
//! 2. logit bias, 3. repetition, presence and frequency penalties ([`history`]);
//! 4. the constraint's mask;
//! 5. temperature, 6. top-k, 7. top-p over what top-k left, renormalised, 8. min-p;
//! 9. the draw ([`rng`]): a pure function of the seed and the index of the generated token.
//!
//! Equal logits are ordered by token id wherever order matters. [`scan`] has the passes over the
//! whole vocabulary; nothing sorts it.

pub mod history;
pub mod logprobs;
pub mod params;
pub mod rng;
pub mod scan;

pub use history::TokenHistory;
pub use logprobs::{TokenLogprobs, token_logprobs};
pub use params::{SamplingError, SamplingParams};
use scan::Candidate;

/// How many tokens top-p looks at first. Most nuclei of language models are smaller.
const NUCLEUS_GUESS: usize = 128;

/// Why no token could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// NaN or infinity among the logits: the model or its file is broken.
    #[error("the model's logits are not finite numbers")]
    NotFinite,
    /// The constraint and the bias leave no token.
    #[error("no token is allowed at this point of the constraint")]
    NothingAllowed,
}

/// The chosen token, with its log-probabilities where they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// See [`SamplingParams::logprobs`].
    pub logprobs: Option<TokenLogprobs>,
}

/// Memory for passes over a row; holds no state between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    candidates: Vec<Candidate>,
    tokens: Vec<u32>,
    maxima: Vec<f32>,
    probabilities: Vec<f32>,
    sums: Vec<f64>,
}

impl Scratch {
    /// Leaves the likeliest tokens in `candidates`, likeliest first.
    fn find_top(&mut self, row: &[f32], count: usize) {
        scan::top(row, count, &mut self.maxima, &mut self.tokens, &mut self.candidates);
    }

    /// Leaves the tokens with a logit of at least `threshold` in `candidates`, by id.
    fn find_at_least(&mut self, row: &[f32], threshold: f32) {
        scan::at_least(row, threshold, &mut self.tokens, &mut self.candidates);
    }
}

/// Chooses tokens.
#[derive(Debug)]
pub struct Sampler {
    num_tokens: usize,
    adjusted: Vec<f32>,
    scratch: Scratch,
}

impl Sampler {
    /// A sampler for a tokenizer of `num_tokens` ids. Rows may be wider, as some models pad
    /// their vocabulary: ids from there on are never chosen.
    pub fn new(num_tokens: usize) -> Sampler {
        Sampler { num_tokens, adjusted: Vec::new(), scratch: Scratch::default() }
    }

    /// Chooses the token after which `position` tokens have been generated. `mask` has one bit
    /// per token id, the lowest bit of the first word for id 0; without it all are allowed.
    ///
    /// # Errors
    /// If the logits are broken, or nothing is allowed.
    pub fn choose(
        &mut self,
        row: &[f32],
        history: &TokenHistory,
        params: &SamplingParams,
        mask: Option<&[u32]>,
        position: u64,
    ) -> Result<Choice, ChooseError> {
        let usable = &row[..row.len().min(self.num_tokens)];
        let adjusts =
            mask.is_some() || history::has_penalties(params) || !params.logit_bias.is_empty();
        let chosen = if adjusts {
            adjust(usable, history, params, mask, &mut self.adjusted);
            draw(&self.adjusted, params, position, &mut self.scratch)
        } else {
            draw(usable, params, position, &mut self.scratch)
        };
        let Some(token) = chosen else {
            let broken = scan::argmax(usable).is_none();
            return Err(if broken { ChooseError::NotFinite } else { ChooseError::NothingAllowed });
        };
        let logprobs = match params.logprobs {
            None => None,
            Some(num_top) => Some(self.logprobs(row, token, num_top)?),
        };
        Ok(Choice { token, logprobs })
    }

    /// The log-probability of a given token, and of the likeliest.
    ///
    /// # Errors
    /// If the logits are broken.
    pub fn logprobs(
        &mut self,
        row: &[f32],
        token: u32,
        num_top: usize,
    ) -> Result<TokenLogprobs, ChooseError> {
        token_logprobs(row, token, num_top, &mut self.scratch).ok_or(ChooseError::NotFinite)
    }
}

/// Steps 5 to 9 of the module's docs; `None` if the row has no maximum.
fn draw(row: &[f32], params: &SamplingParams, position: u64, scratch: &mut Scratch) -> Option<u32> {
    let best = scan::argmax(row)?;
    if params.is_greedy() {
        return Some(best.token);
    }
    let weight = |c: &Candidate| scan::weight(c.logit, best.logit, params.temperature);
    let u = rng::uniform(params.seed, position);
    let min_p_logit = if params.min_p > 0.0 {
        best.logit + params.temperature * params.min_p.ln()
    } else {
        f32::NEG_INFINITY
    };

    if params.top_k > 0 && params.top_k < row.len() {
        scratch.find_top(row, params.top_k);
        let sum: f64 = scratch.candidates.iter().map(weight).sum();
        let needed = f64::from(params.top_p) * sum;
        let kept = scan::nucleus_len(&scratch.candidates, needed, weight);
        scratch.candidates.truncate(kept);
    } else if params.top_p < 1.0 {
        if let Some(end) = find_nucleus(row, best, params, scratch)? {
            scan::cut(row, end, min_p_logit, &mut scratch.probabilities);
            return scan::token_at(&scratch.probabilities, u, &mut scratch.sums);
        }
    } else if params.min_p > 0.0 {
        scratch.find_at_least(row, min_p_logit);
    } else {
        scan::probabilities(row, best.logit, params.temperature, &mut scratch.probabilities);
        return scan::token_at(&scratch.probabilities, u, &mut scratch.sums);
    }
    let candidates = &mut scratch.candidates;
    // The likeliest token stays, whatever rounding makes of ln(1).
    candidates.retain(|c| c.logit >= min_p_logit || c.token == best.token);
    let mut target = u * candidates.iter().map(weight).sum::<f64>();
    for candidate in candidates.iter() {
        target -= weight(candidate);
        if target < 0.0 {
            return Some(candidate.token);
        }
    }
    candidates.last().map(|c| c.token)
}

/// Finds the smallest set of likeliest tokens whose probabilities reach top-p. If it is small,
/// it is in `scratch.candidates`; if not, the result is the least likely of them. In both cases
/// all probabilities are in `scratch.probabilities`.
fn find_nucleus(
    row: &[f32],
    best: Candidate,
    params: &SamplingParams,
    scratch: &mut Scratch,
) -> Option<Option<Candidate>> {
    let needed = f64::from(params.top_p);
    let temperature = params.temperature;
    scan::probabilities(row, best.logit, temperature, &mut scratch.probabilities);
    scratch.find_top(row, NUCLEUS_GUESS);
    let Scratch { candidates, probabilities, .. } = scratch;
    let probability = |c: &Candidate| f64::from(probabilities[c.token as usize]);
    if candidates.iter().map(probability).sum::<f64>() >= needed {
        let kept = scan::nucleus_len(candidates, needed, probability);
        candidates.truncate(kept);
        return Some(None);
    }
    scan::nucleus_end(row, best.logit, temperature, probabilities, needed, candidates).map(Some)
}

/// Writes the logits after bias, penalties and mask to `adjusted`.
fn adjust(
    row: &[f32],
    history: &TokenHistory,
    params: &SamplingParams,
    mask: Option<&[u32]>,
    adjusted: &mut Vec<f32>,
) {
    adjusted.clear();
    adjusted.extend_from_slice(row);
    for &(token, bias) in &params.logit_bias {
        if let Some(logit) = adjusted.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if history::has_penalties(params) {
        history.penalize(adjusted, params);
    }
    if let Some(words) = mask {
        for (index, logits) in adjusted.chunks_mut(32).enumerate() {
            // Ids that the mask does not reach are not allowed.
            let word = words.get(index).copied().unwrap_or(0);
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
