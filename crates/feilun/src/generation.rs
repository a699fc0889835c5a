//! What `complete` and `chat` have in common: the arguments of sampling and of constraints, and
//! how an answer ended.

use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;

use feilun_infer::{
    Constraint, ConstraintCompiler, ConstraintLimits, ConstraintSource, Finish, FinishReason,
    SamplingParams, Vocabulary,
};

use crate::failure::{Failure, Outcome, OutcomeExt as _};

/// How tokens are chosen, apart from the temperature, whose default is the command's.
#[derive(Debug, clap::Args)]
pub(crate) struct SamplingArgs {
    /// Keep only the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keep only the tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Make tokens that were seen less likely; 1 does nothing
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Subtract from the logits of tokens in the answer
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtract from the logits of tokens in the answer, once for each time
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Start of the random numbers; the same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    pub(crate) fn params(&self, temperature: f32, top_p: f32) -> SamplingParams {
        SamplingParams {
            temperature,
            top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.unwrap_or_else(random_seed),
            ..SamplingParams::default()
        }
    }
}

/// Chance from the standard library's own: each state is seeded by the system.
fn random_seed() -> u64 {
    // JSON readers keep 53 bits of a number, and a seed must survive them.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

/// What the answer must be.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ConstraintArgs {
    /// Answer in JSON that this JSON schema accepts
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Answer in what this grammar generates (llguidance's dialect of Lark)
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Answer in what this regular expression matches
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
}

impl ConstraintArgs {
    /// Reads the sources, before anything expensive is done.
    pub(crate) fn source(&self) -> Outcome<Option<ConstraintSource>> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).doing(|| format!("cannot read {}", path.display()))
        };
        if let Some(path) = &self.json_schema {
            let schema = serde_json::from_str(&read(path)?)
                .doing(|| format!("{} is no JSON", path.display()))?;
            return Ok(Some(ConstraintSource::JsonSchema(schema)));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(ConstraintSource::Lark(read(path)?)));
        }
        Ok(self.regex.clone().map(ConstraintSource::Regex))
    }
}

pub(crate) fn compile(
    source: &ConstraintSource,
    vocabulary: Arc<dyn Vocabulary>,
) -> Outcome<Constraint> {
    let compiler = ConstraintCompiler::new(vocabulary, ConstraintLimits::default())?;
    Ok(compiler.compile(source)?)
}

/// `stop` or `length`, as OpenAI's API says it; an error where the engine gave up.
pub(crate) fn finish_reason(finish: Finish) -> Outcome<&'static str> {
    match finish.reason {
        FinishReason::Stop(_) => Ok("stop"),
        FinishReason::Length => Ok("length"),
        FinishReason::Cancelled => Ok("cancelled"),
        FinishReason::Failed(error) => Err(Failure::from(error).context("generation failed")),
    }
}
