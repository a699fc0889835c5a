//! One item of a suite: a task, and what it belongs to.

use serde::{Deserialize, Serialize};

use super::error::ItemProblem;
use super::line::ItemLine;
use super::prompt::Prompt;
use crate::score::{Reference, Scorer};

/// Most choices of one question.
pub const CHOICES_MAX: usize = 256;
/// Most tokens of one answer.
pub const MAX_TOKENS_MAX: u32 = 32_768;
/// Longest id, cluster or skill, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// One item of a suite. As JSON it is one flat object, in which the task is known by its fields:
///
/// ```json
/// {"id": "a", "prompt": "The capital of France is", "reference": ["Paris"]}
/// {"id": "b", "prompt": "Water is", "choices": ["wet", "dry"], "answer": 0}
/// {"id": "c", "text": "A text whose bits per byte are wanted."}
/// {"id": "d", "messages": [{"role": "user", "content": "Hi"}], "chosen": "Hello!", "rejected": "No."}
/// {"id": "e", "prompt": "2+2?", "first": "4", "second": "5", "label": "first"}
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "ItemLine", into = "ItemLine")]
pub struct Item {
    /// Names the item within its suite.
    pub id: String,
    /// What it belongs to together with others, a conversation say: such items are not
    /// independent evidence. An item without one stands for itself.
    pub cluster: Option<String>,
    /// What it is to show.
    pub skill: Option<String>,
    /// What is asked.
    pub task: Task,
}

/// What an item asks of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Write an answer, which is scored.
    Generate {
        /// What is asked.
        prompt: Prompt,
        /// What the answer is compared with.
        reference: Reference,
        /// How; else the suite says it.
        scorer: Option<Scorer>,
        /// Most tokens of the answer; else the suite says it.
        max_tokens: Option<u32>,
        /// Texts that end the answer, besides those of the suite.
        stop: Vec<String>,
    },
    /// Find one of some continuations likelier than the others.
    MultipleChoice {
        /// What comes before.
        prompt: Prompt,
        /// The continuations, without what separates them from the prompt.
        choices: Vec<String>,
        /// The index of the right one.
        answer: usize,
    },
    /// Find a text likely.
    BitsPerByte {
        /// The text.
        text: String,
    },
    /// Find one answer likelier than another.
    Preference {
        /// What is asked.
        prompt: Prompt,
        /// The better answer.
        chosen: String,
        /// The worse answer.
        rejected: String,
    },
    /// Say which of two answers is better.
    Judge {
        /// What was asked.
        prompt: Prompt,
        /// One answer.
        first: String,
        /// The other.
        second: String,
        /// What people say, where anybody was asked.
        label: Option<Verdict>,
    },
}

/// Which of two answers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither.
    Tie,
}

impl Verdict {
    /// The same where the answers have changed places.
    pub fn swapped(self) -> Verdict {
        match self {
            Verdict::First => Verdict::Second,
            Verdict::Second => Verdict::First,
            Verdict::Tie => Verdict::Tie,
        }
    }
}

impl Task {
    /// What kind of task it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Generate { .. } => "generate",
            Task::MultipleChoice { .. } => "multiple_choice",
            Task::BitsPerByte { .. } => "bits_per_byte",
            Task::Preference { .. } => "preference",
            Task::Judge { .. } => "judge",
        }
    }
}

impl Item {
    /// Checks everything that can be known of an item by itself.
    pub(super) fn check(&self) -> Result<(), ItemProblem> {
        check_name("id", &self.id)?;
        for (field, name) in [("cluster", &self.cluster), ("skill", &self.skill)] {
            name.as_deref().map_or(Ok(()), |name| check_name(field, name))?;
        }
        match &self.task {
            Task::Generate { prompt, scorer, reference, max_tokens, stop } => {
                prompt.check()?;
                check_max_tokens(*max_tokens)?;
                feilun_infer::stop::validate(stop)?;
                scorer.as_ref().map_or(Ok(()), |scorer| scorer.check(reference))?;
            }
            Task::MultipleChoice { prompt, choices, answer } => {
                prompt.check_may_be_empty()?;
                let found = choices.len();
                if !(2..=CHOICES_MAX).contains(&found) {
                    return Err(ItemProblem::NumChoices { found });
                }
                for choice in choices {
                    not_empty("choices", choice)?;
                }
                if *answer >= found {
                    return Err(ItemProblem::Answer { found: *answer, num_choices: found });
                }
            }
            Task::BitsPerByte { text } => not_empty("text", text)?,
            Task::Preference { prompt, chosen, rejected } => {
                prompt.check()?;
                not_empty("chosen", chosen)?;
                not_empty("rejected", rejected)?;
            }
            Task::Judge { prompt, first, second, .. } => {
                prompt.check()?;
                not_empty("first", first)?;
                not_empty("second", second)?;
            }
        }
        Ok(())
    }
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), ItemProblem> {
    not_empty(field, name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(ItemProblem::TooLong { field, found: name.len(), max: NAME_BYTES_MAX });
    }
    // Names stand in tables on terminals, which such characters may take over.
    if name.chars().any(char::is_control) {
        return Err(ItemProblem::Control { field });
    }
    Ok(())
}

pub(super) fn not_empty(field: &'static str, text: &str) -> Result<(), ItemProblem> {
    if text.is_empty() { Err(ItemProblem::Empty { field }) } else { Ok(()) }
}

pub(super) fn check_max_tokens(max_tokens: Option<u32>) -> Result<(), ItemProblem> {
    match max_tokens {
        Some(found) if !(1..=MAX_TOKENS_MAX).contains(&found) => {
            Err(ItemProblem::MaxTokens { found })
        }
        _ => Ok(()),
    }
}
