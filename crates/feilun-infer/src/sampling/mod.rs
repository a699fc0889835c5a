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

/// Scratch space for choosing tokens; holds no state between calls.
#[derive(Debug)]
pub struct Sampler {
    num_tokens: usize,
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
    block_sums: Vec<f64>,
}

impl Sampler {
    /// A sampler for a tokenizer of `num_tokens` ids. Rows may be wider, as some models pad
    /// their vocabulary: ids from there on are never chosen.
    pub fn new(num_tokens: usize) -> Sampler {
        Sampler { num_tokens, adjusted: Vec::new(), candidates: Vec::new(), block_sums: Vec::new() }
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
        // Taken out of self for the borrow checker; given back below.
        let mut adjusted = std::mem::take(&mut self.adjusted);
        let chosen = if adjusts {
            adjust(usable, history, params, mask, &mut adjusted);
            self.draw(&adjusted, params, position)
        } else {
            self.draw(usable, params, position)
        };
        self.adjusted = adjusted;
        let Some(token) = chosen else {
            let broken = scan::argmax(usable).is_none();
            return Err(if broken { ChooseError::NotFinite } else { ChooseError::NothingAllowed });
        };
        let logprobs = match params.logprobs {
            None => None,
            Some(num_top) => Some(
                token_logprobs(row, token, num_top, &mut self.candidates)
                    .ok_or(ChooseError::NotFinite)?,
            ),
        };
        Ok(Choice { token, logprobs })
    }

    fn draw(&mut self, row: &[f32], params: &SamplingParams, position: u64) -> Option<u32> {
        let best = scan::argmax(row)?;
        if params.is_greedy() {
            return Some(best.token);
        }
        let inverse_temperature = 1.0 / params.temperature;
        let weight =
            |c: &Candidate| f64::from(scan::weight(c.logit, best.logit, inverse_temperature));
        let u = rng::uniform(params.seed, position);
        let min_p_logit = if params.min_p > 0.0 {
            best.logit + params.temperature * params.min_p.ln()
        } else {
            f32::NEG_INFINITY
        };

        if params.top_k > 0 && params.top_k < row.len() {
            scan::top(row, params.top_k, &mut self.candidates);
            let sum: f64 = self.candidates.iter().map(weight).sum();
            let kept = nucleus_len(&self.candidates, f64::from(params.top_p) * sum, weight);
            self.candidates.truncate(kept);
        } else if params.top_p < 1.0 {
            let sum = scan::weight_sum(row, best.logit, inverse_temperature, &mut self.block_sums);
            let last = self.last_of_nucleus(row, best, params, sum)?;
            scan::at_least(row, last.logit, &mut self.candidates);
            self.candidates.retain(|c| scan::likelier(c, &last).is_le());
        } else if params.min_p > 0.0 {
            scan::at_least(row, min_p_logit, &mut self.candidates);
        } else {
            let sum = scan::weight_sum(row, best.logit, inverse_temperature, &mut self.block_sums);
            let sums = &self.block_sums;
            return scan::token_at(row, best.logit, inverse_temperature, sums, u * sum);
        }
        // The likeliest token stays, whatever rounding makes of ln(1).
        self.candidates.retain(|c| c.logit >= min_p_logit || c.token == best.token);
        let mut target = u * self.candidates.iter().map(weight).sum::<f64>();
        for candidate in &self.candidates {
            target -= weight(candidate);
            if target < 0.0 {
                return Some(candidate.token);
            }
        }
        self.candidates.last().map(|c| c.token)
    }

    /// The least likely token of the smallest set whose weights reach `top_p * sum`.
    fn last_of_nucleus(
        &mut self,
        row: &[f32],
        best: Candidate,
        params: &SamplingParams,
        sum: f64,
    ) -> Option<Candidate> {
        let inverse_temperature = 1.0 / params.temperature;
        let weight =
            |c: &Candidate| f64::from(scan::weight(c.logit, best.logit, inverse_temperature));
        let needed = f64::from(params.top_p) * sum;
        scan::top(row, NUCLEUS_GUESS, &mut self.candidates);
        if self.candidates.iter().map(weight).sum::<f64>() >= needed {
            let kept = nucleus_len(&self.candidates, needed, weight);
            return self.candidates.get(kept - 1).copied();
        }
        // Tokens whose weight is below (1 - p) / n of the sum weigh less than 1 - p of it all
        // together, so that the rest holds the nucleus.
        let least = (1.0 - f64::from(params.top_p)) * sum / row.len() as f64;
        let threshold = f64::from(best.logit) + f64::from(params.temperature) * least.ln();
        scan::at_least(row, threshold as f32, &mut self.candidates);
        select_nucleus(&mut self.candidates, needed, weight)
    }
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

/// How many of the sorted candidates are needed until their weights reach `needed`; at least one.
fn nucleus_len(sorted: &[Candidate], needed: f64, weight: impl Fn(&Candidate) -> f64) -> usize {
    let mut reached = 0.0;
    for (index, candidate) in sorted.iter().enumerate() {
        reached += weight(candidate);
        if reached >= needed {
            return index + 1;
        }
    }
    sorted.len().max(1)
}

/// The last candidate, in order of likelihood, that is needed to reach `needed`: a quickselect
/// by weight, in linear time where sorting a flat distribution would take tens of milliseconds.
fn select_nucleus(
    candidates: &mut [Candidate],
    mut needed: f64,
    weight: impl Fn(&Candidate) -> f64,
) -> Option<Candidate> {
    let mut rest = candidates;
    while rest.len() > 64 {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half, scan::likelier);
        let (likelier, others) = rest.split_at_mut(half);
        let reached: f64 = likelier.iter().map(&weight).sum();
        if reached >= needed {
            rest = likelier;
        } else {
            needed -= reached;
            rest = others;
        }
    }
    rest.sort_unstable_by(scan::likelier);
    rest.get(nucleus_len(rest, needed, weight) - 1).copied()
}

#[cfg(test)]
mod tests;
