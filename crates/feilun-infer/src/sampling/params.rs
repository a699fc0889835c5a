//! What a caller may ask of sampling, and what is refused.

use std::ops::RangeInclusive;

/// Temperatures below this are greedy. vLLM's threshold; dividing logits by less overflows.
pub const TEMPERATURE_EPSILON: f32 = 1e-5;
/// Most entries of a logit bias.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// Most alternatives reported for each token.
pub const LOGPROBS_MAX: usize = 128;

/// How the next token is chosen. The order of the steps is in the [module](super)'s docs.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by this; below [`TEMPERATURE_EPSILON`] the likeliest token is taken.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens whose probabilities first add up to this.
    pub top_p: f32,
    /// Keep the tokens at least this many times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in the prompt or the
    /// answer (CTRL, Keskar et al. 2019, section 4.1); 1 is none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that are in the answer (OpenAI).
    pub presence_penalty: f32,
    /// Subtracted once for each time that a token is in the answer (OpenAI).
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens (OpenAI).
    pub logit_bias: Vec<(u32, f32)>,
    /// With the index of the generated token the whole source of randomness. A caller that wants
    /// chance draws a seed itself, and can so record it.
    pub seed: u64,
    /// Report the log-probability of each token, and of so many likeliest alternatives.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    /// The model's own distribution.
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

/// A sampling parameter that is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number outside its range, or NaN.
    #[error("{name} must be between {min} and {max}, found {found}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// The value found.
        found: f32,
        /// Lowest value allowed.
        min: f32,
        /// Highest value allowed.
        max: f32,
    },
    /// More entries than are allowed.
    #[error("{name}: found {found}, at most {max} are allowed")]
    TooMany {
        /// The parameter.
        name: &'static str,
        /// The number found.
        found: usize,
        /// The most allowed.
        max: usize,
    },
    /// A token id outside the vocabulary.
    #[error("logit_bias: token id {token} is not in the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id found.
        token: u32,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// A token with two biases.
    #[error("logit_bias: token id {token} is given twice")]
    TokenTwice {
        /// The id.
        token: u32,
    },
}

impl SamplingParams {
    /// The likeliest token, always.
    pub fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    /// Whether the likeliest token is taken without a draw.
    pub fn is_greedy(&self) -> bool {
        self.temperature < TEMPERATURE_EPSILON
    }

    /// The same parameters for the `index`-th of several samples.
    pub fn fork(&self, index: u64) -> SamplingParams {
        SamplingParams { seed: super::rng::fork_seed(self.seed, index), ..self.clone() }
    }

    /// Checks every value against its range and every id against the vocabulary.
    ///
    /// # Errors
    /// The first parameter that is not acceptable.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        check("temperature", self.temperature, 0.0..=100.0)?;
        check("top_p", self.top_p, 0.0..=1.0)?;
        check("min_p", self.min_p, 0.0..=1.0)?;
        check("repetition_penalty", self.repetition_penalty, 0.01..=100.0)?;
        check("presence_penalty", self.presence_penalty, -2.0..=2.0)?;
        check("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?;
        at_most("logit_bias", self.logit_bias.len(), LOGIT_BIAS_MAX)?;
        at_most("logprobs", self.logprobs.unwrap_or(0), LOGPROBS_MAX)?;
        let mut tokens: Vec<u32> = Vec::with_capacity(self.logit_bias.len());
        for &(token, bias) in &self.logit_bias {
            check("logit_bias", bias, -100.0..=100.0)?;
            if token as usize >= vocab_size {
                return Err(SamplingError::TokenOutOfRange { token, vocab_size });
            }
            tokens.push(token);
        }
        tokens.sort_unstable();
        match tokens.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SamplingError::TokenTwice { token: pair[0] }),
            None => Ok(()),
        }
    }
}

fn check(name: &'static str, found: f32, range: RangeInclusive<f32>) -> Result<(), SamplingError> {
    // NaN is in no range.
    if range.contains(&found) {
        return Ok(());
    }
    Err(SamplingError::OutOfRange { name, found, min: *range.start(), max: *range.end() })
}

pub(crate) fn at_most(name: &'static str, found: usize, max: usize) -> Result<(), SamplingError> {
    if found <= max { Ok(()) } else { Err(SamplingError::TooMany { name, found, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl Fn(&mut SamplingParams, f32), values: &[f32]) {
        for &value in values {
            let mut params = SamplingParams::default();
            change(&mut params, value);
            assert!(params.validate(10).is_err(), "{value} was accepted");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        let nonsense = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3.0, 1e38];
        refused(|p, v| p.temperature = v, &nonsense);
        refused(|p, v| p.top_p = v, &nonsense);
        refused(|p, v| p.min_p = v, &nonsense);
        refused(|p, v| p.repetition_penalty = v, &nonsense);
        refused(|p, v| p.repetition_penalty = v, &[0.0]);
        refused(|p, v| p.presence_penalty = v, &nonsense);
        refused(|p, v| p.frequency_penalty = v, &nonsense);
        refused(|p, v| p.logit_bias = vec![(0, v)], &[f32::NAN, f32::INFINITY, 101.0, -1e38]);
        assert_eq!(SamplingParams::default().validate(10), Ok(()));
        assert_eq!(SamplingParams::greedy().validate(10), Ok(()));
    }

    #[test]
    fn counts_and_ids_are_bounded() {
        let bias = |logit_bias| SamplingParams { logit_bias, ..SamplingParams::default() };
        assert_eq!(
            bias(vec![(10, 1.0)]).validate(10),
            Err(SamplingError::TokenOutOfRange { token: 10, vocab_size: 10 })
        );
        assert_eq!(
            bias(vec![(3, 1.0), (4, 1.0), (3, 2.0)]).validate(10),
            Err(SamplingError::TokenTwice { token: 3 })
        );
        let many = (0..1025).map(|token| (token, 0.0)).collect();
        assert!(matches!(
            bias(many).validate(9999),
            Err(SamplingError::TooMany { found: 1025, .. })
        ));
        let logprobs = SamplingParams { logprobs: Some(usize::MAX), ..SamplingParams::default() };
        assert!(matches!(logprobs.validate(10), Err(SamplingError::TooMany { .. })));
    }
}
