//! An item as it stands in a file: one flat object, in which the task is known by its fields.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ItemProblem;
use super::item::{Item, Task, Verdict};
use super::prompt::{ChatMessage, Prompt};
use crate::score::{Reference, Scorer};

/// All fields of all tasks. Which of them a line may have follows from its task.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ItemLine {
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skill: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<ChatMessage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scorer: Option<Scorer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Verdict>,
}

impl TryFrom<ItemLine> for Item {
    type Error = ItemProblem;

    fn try_from(mut line: ItemLine) -> Result<Item, ItemProblem> {
        let id = wanted("id", line.id.take())?;
        let (cluster, skill) = (line.cluster.take(), line.skill.take());
        let task = line.take_task()?;
        line.nothing_left(task.kind())?;
        let item = Item { id, cluster, skill, task };
        item.check()?;
        Ok(item)
    }
}

impl ItemLine {
    /// The field that only one task has decides.
    fn take_task(&mut self) -> Result<Task, ItemProblem> {
        if let Some(reference) = self.reference.take() {
            return Ok(Task::Generate {
                prompt: self.take_prompt()?,
                reference,
                scorer: self.scorer.take(),
                max_tokens: self.max_tokens.take(),
                stop: self.stop.take().unwrap_or_default(),
            });
        }
        if let Some(choices) = self.choices.take() {
            let answer = wanted("answer", self.answer.take())?;
            return Ok(Task::MultipleChoice { prompt: self.take_prompt()?, choices, answer });
        }
        if let Some(text) = self.text.take() {
            return Ok(Task::BitsPerByte { text });
        }
        if let Some(chosen) = self.chosen.take() {
            let rejected = wanted("rejected", self.rejected.take())?;
            return Ok(Task::Preference { prompt: self.take_prompt()?, chosen, rejected });
        }
        if let Some(first) = self.first.take() {
            return Ok(Task::Judge {
                prompt: self.take_prompt()?,
                first,
                second: wanted("second", self.second.take())?,
                label: self.label.take(),
            });
        }
        Err(ItemProblem::NoTask)
    }

    fn take_prompt(&mut self) -> Result<Prompt, ItemProblem> {
        match (self.prompt.take(), self.messages.take()) {
            (Some(text), None) => Ok(Prompt::Text(text)),
            (None, Some(messages)) => Ok(Prompt::Chat { messages, tools: self.tools.take() }),
            (None, None) => Err(ItemProblem::Missing { field: "prompt or messages" }),
            (Some(_), Some(_)) => Err(ItemProblem::TwoPrompts),
        }
    }

    /// What was not taken belongs to another task: a slip that would change what is measured.
    fn nothing_left(&self, task: &'static str) -> Result<(), ItemProblem> {
        let left = [
            ("prompt", self.prompt.is_some()),
            ("messages", self.messages.is_some()),
            ("tools", self.tools.is_some()),
            ("scorer", self.scorer.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
            ("stop", self.stop.is_some()),
            ("choices", self.choices.is_some()),
            ("answer", self.answer.is_some()),
            ("text", self.text.is_some()),
            ("chosen", self.chosen.is_some()),
            ("rejected", self.rejected.is_some()),
            ("first", self.first.is_some()),
            ("second", self.second.is_some()),
            ("label", self.label.is_some()),
        ];
        match left.into_iter().find(|(_, is_left)| *is_left) {
            Some((field, _)) => Err(ItemProblem::Foreign { field, task }),
            None => Ok(()),
        }
    }
}

fn wanted<T>(field: &'static str, value: Option<T>) -> Result<T, ItemProblem> {
    value.ok_or(ItemProblem::Missing { field })
}

impl From<Item> for ItemLine {
    fn from(item: Item) -> ItemLine {
        let head = ItemLine {
            id: Some(item.id),
            cluster: item.cluster,
            skill: item.skill,
            ..ItemLine::default()
        };
        match item.task {
            Task::Generate { prompt, reference, scorer, max_tokens, stop } => ItemLine {
                reference: Some(reference),
                scorer,
                max_tokens,
                stop: (!stop.is_empty()).then_some(stop),
                ..head.with_prompt(prompt)
            },
            Task::MultipleChoice { prompt, choices, answer } => ItemLine {
                choices: Some(choices),
                answer: Some(answer),
                ..head.with_prompt(prompt)
            },
            Task::BitsPerByte { text } => ItemLine { text: Some(text), ..head },
            Task::Preference { prompt, chosen, rejected } => ItemLine {
                chosen: Some(chosen),
                rejected: Some(rejected),
                ..head.with_prompt(prompt)
            },
            Task::Judge { prompt, first, second, label } => ItemLine {
                first: Some(first),
                second: Some(second),
                label,
                ..head.with_prompt(prompt)
            },
        }
    }
}

impl ItemLine {
    fn with_prompt(self, prompt: Prompt) -> ItemLine {
        match prompt {
            Prompt::Text(text) => ItemLine { prompt: Some(text), ..self },
            Prompt::Chat { messages, tools } => {
                ItemLine { messages: Some(messages), tools, ..self }
            }
        }
    }
}
