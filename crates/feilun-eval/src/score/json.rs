//! JSON in answers: is it any, and where in the answer it stands.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Score;

/// The answer is one JSON text (RFC 8259), with white space around it at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonValid {
    /// Where the answer has a Markdown code block, the first one is read instead of all of it.
    pub fenced: bool,
}

impl JsonValid {
    pub(super) fn score(&self, answer: &str) -> Score {
        let text = if self.fenced { unfenced(answer) } else { answer };
        // Nothing is kept, so depth and length cost no memory.
        Score::verdict(serde_json::from_str(text).map(|_: IgnoredAny| ()).map_err(not_json))
    }
}

pub(super) fn not_json(error: serde_json::Error) -> String {
    format!("not JSON: {error}")
}

const FENCE: &str = "```";

/// The content of the first code block, whatever language it names; all of the text where there is
/// none. A block that is not closed ends with the text.
pub(super) fn unfenced(answer: &str) -> &str {
    let Some((_, after)) = answer.split_once(FENCE) else { return answer };
    let Some((_language, block)) = after.split_once('\n') else { return answer };
    block.split_once(FENCE).map_or(block, |(content, _)| content)
}
