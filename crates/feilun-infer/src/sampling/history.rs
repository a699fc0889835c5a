//! Which tokens a sequence holds already, for the penalties.

use std::collections::HashMap;

use super::params::SamplingParams;

/// Tokens of the prompt, and of the answer with their counts.
#[derive(Clone, Debug, Default)]
pub struct TokenHistory {
    /// Count in the answer; 0 for a token that is only in the prompt.
    counts: HashMap<u32, u32>,
}

impl TokenHistory {
    /// The history of a request that has generated nothing yet. Empty, and cheap, where no
    /// penalty asks for it.
    pub fn new(prompt: &[u32], params: &SamplingParams) -> TokenHistory {
        let mut history = TokenHistory::default();
        if params.repetition_penalty != 1.0 {
            history.counts.extend(prompt.iter().map(|&token| (token, 0)));
        }
        history
    }

    /// Adds a generated token.
    pub fn push(&mut self, token: u32, params: &SamplingParams) {
        if has_penalties(params) {
            *self.counts.entry(token).or_insert(0) += 1;
        }
    }

    /// Changes the logits of the tokens seen.
    ///
    /// Repetition as in CTRL and transformers: prompt and answer alike. Presence and frequency
    /// as OpenAI defines them, counting the answer alone, as vLLM does:
    /// `logit - count * frequency - (count > 0) * presence`.
    pub(super) fn penalize(&self, row: &mut [f32], params: &SamplingParams) {
        for (&token, &count) in &self.counts {
            let Some(logit) = row.get_mut(token as usize) else { continue };
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            if count > 0 {
                *logit -= params.presence_penalty + count as f32 * params.frequency_penalty;
            }
        }
    }
}

/// Whether any penalty is in force.
pub(super) fn has_penalties(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0
        || params.presence_penalty != 0.0
        || params.frequency_penalty != 0.0
}
