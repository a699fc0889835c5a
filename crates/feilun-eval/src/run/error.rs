//! Why an item cannot be asked, or a run cannot go on.

use feilun_infer::{ModelTextError, SubmitError};
use feilun_text::{ChatError, TokenizerError};

use crate::suite::ItemProblem;

/// Why an item cannot be asked of a model.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum AskProblem {
    #[error("{found} tokens, at most {max} are computed together")]
    TooLong { found: usize, max: usize },
    #[error("{prompt} tokens of prompt and up to {max_tokens} more exceed {max}")]
    NoRoom { prompt: usize, max_tokens: u32, max: usize },
    #[error("the prompt has no tokens, and the model has none that begins a text")]
    EmptyPrompt,
    #[error("a continuation adds no token to its prompt")]
    NothingScored,
    #[error("the model has neither a token that begins texts nor one that ends them")]
    NoPrefixToken,
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Text(#[from] ModelTextError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Item(#[from] ItemProblem),
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E: std::error::Error + 'static> {
    /// The engine refused a request that was checked before.
    #[error("the engine refused item `{id}`")]
    Submit {
        /// Which.
        id: String,
        /// Why.
        source: SubmitError,
    },
    /// The results could not be kept.
    #[error(transparent)]
    Keep(E),
}
