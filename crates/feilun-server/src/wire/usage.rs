//! Counts of tokens.

use feilun_infer::event::Usage as Counts;
use schemars::JsonSchema;
use serde::Serialize;

/// Tokens of a request and its answers.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

/// What of the prompt was found computed.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct PromptTokens {
    cached_tokens: usize,
}

impl Usage {
    /// Of `num_prompts` prompts with as many choices each: a prompt counts once.
    pub(crate) fn of(
        counts: impl Iterator<Item = Counts> + Clone,
        choices_per_prompt: usize,
    ) -> Usage {
        let prompts = counts.clone().step_by(choices_per_prompt.max(1));
        let prompt_tokens = prompts.clone().map(|count| count.prompt).sum();
        let completion_tokens = counts.map(|count| count.generated).sum();
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokens {
                cached_tokens: prompts.map(|count| count.cached_prompt).sum(),
            },
        }
    }

    /// Of prompts alone.
    pub(crate) fn of_prompts(prompt_tokens: usize) -> Usage {
        Usage { prompt_tokens, total_tokens: prompt_tokens, ..Usage::default() }
    }
}
