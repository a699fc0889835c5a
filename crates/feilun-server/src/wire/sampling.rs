//! What chat and completions have in common: the numbers of sampling.

use std::collections::BTreeMap;

use feilun_infer::SamplingParams;
use schemars::JsonSchema;
use serde::Deserialize;

use super::number::{Real, Whole};
use crate::error::{ApiError, ErrorKind};

/// Most choices of one request, over all its prompts: each is a sequence of its own.
pub(crate) const CHOICES_MAX: usize = 64;

/// Text that ends an answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Stop {
    One(String),
    Several(Vec<String>),
}

/// The stop strings of a request.
pub(crate) fn stop_strings(stop: Option<Stop>) -> Vec<String> {
    match stop {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Several(texts)) => texts,
    }
}

/// Any number that fits 64 bits.
pub(crate) type Seed = Whole<{ i64::MIN }, { i64::MAX }>;

/// Token ids, written as texts because JSON keys are, and what is added to their logits.
pub(crate) type LogitBias = BTreeMap<String, Real<-100, 100>>;

/// The numbers of sampling as the two endpoints have them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampling {
    pub(crate) temperature: Option<Real<0, 2>>,
    pub(crate) top_p: Option<Real<0, 1>>,
    pub(crate) top_k: Option<Whole<0, 1_000_000>>,
    pub(crate) min_p: Option<Real<0, 1>>,
    pub(crate) repetition_penalty: Option<Real<0, 10>>,
    pub(crate) presence_penalty: Option<Real<-2, 2>>,
    pub(crate) frequency_penalty: Option<Real<-2, 2>>,
    pub(crate) logit_bias: Option<LogitBias>,
    pub(crate) seed: Option<i64>,
    pub(crate) logprobs: Option<usize>,
}

impl Sampling {
    /// As the engine takes them; without a seed it draws one, which is recorded.
    pub(crate) fn params(&self) -> Result<SamplingParams, ApiError> {
        let defaults = SamplingParams::default();
        let mut logit_bias = Vec::new();
        for (token, bias) in self.logit_bias.iter().flatten() {
            let token = token.parse::<u32>().map_err(|_| {
                let message = "logit_bias: a key must be a token id, as in {\"50256\": -100}";
                ApiError::new(ErrorKind::InvalidValue, message).param("logit_bias")
            })?;
            logit_bias.push((token, bias.get()));
        }
        Ok(SamplingParams {
            temperature: self.temperature.map_or(defaults.temperature, Real::get),
            top_p: self.top_p.map_or(defaults.top_p, Real::get),
            top_k: self.top_k.map_or(defaults.top_k, |k| k.size()),
            min_p: self.min_p.map_or(defaults.min_p, Real::get),
            repetition_penalty: self
                .repetition_penalty
                .map_or(defaults.repetition_penalty, Real::get),
            presence_penalty: self.presence_penalty.map_or(defaults.presence_penalty, Real::get),
            frequency_penalty: self.frequency_penalty.map_or(defaults.frequency_penalty, Real::get),
            logit_bias,
            // A negative seed is as good as any: all that counts is that it is the same again.
            seed: match self.seed {
                Some(seed) => seed.cast_unsigned(),
                None => random_seed()?,
            },
            logprobs: self.logprobs,
        })
    }
}

/// 53 bits: what every reader of JSON keeps of a number.
fn random_seed() -> Result<u64, ApiError> {
    let bits = getrandom::u64().map_err(|error| ApiError::internal(&error))?;
    Ok(bits >> 11)
}
