//! Suites: what is asked of a model, and how its answers are scored.
//!
//! A suite is a file of JSON lines ([`Suite::read`]): one [`Item`] a line, and if need be a
//! [`Header`] in the first. Suites come from anywhere, so lengths and counts are bounded before
//! anything is kept, and whatever is wrong is said with its line before a model is loaded.

mod error;
mod item;
mod line;
mod metric;
mod prompt;
mod read;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use self::error::{ItemProblem, SuiteError};
pub use self::item::{CHOICES_MAX, Item, MAX_TOKENS_MAX, NAME_BYTES_MAX, Task, Verdict};
pub(crate) use self::metric::of_scorer as metric_of;
pub use self::metric::{Metric, names};
pub use self::prompt::{CallLine, ChatMessage, ChatRole, FunctionLine, Prompt, conversation};
pub use self::read::{ITEMS_MAX, LINE_BYTES_MAX, SUITE_BYTES_MAX};
use crate::score::Scorer;

/// Most tokens of an answer where neither item nor suite says it.
pub const DEFAULT_MAX_TOKENS: u32 = 256;
/// What stands between a text and a continuation of it, as in lm-eval.
pub const DEFAULT_DELIMITER: &str = " ";

/// What the items of a suite have in common.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub suite: String,
    /// What it measures, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How answers are scored where the item does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Scorer>,
    /// Most tokens of an answer where the item does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Texts that end every answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// What stands between a prompt that is a text and a choice or an answer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// The metric that counts; else the one that the tasks suggest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
}

/// Checked items with what they have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    header: Header,
    items: Vec<Item>,
    metrics: Vec<Metric>,
    digest: blake3::Hash,
}

/// An item is told by its line in messages; one that comes from no file has its number.
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) item: Item,
}

impl Suite {
    /// A suite of items that were made, not read.
    ///
    /// # Errors
    /// Whatever is wrong with them: lines are counted as if they stood in a file.
    pub fn new(header: Header, items: Vec<Item>) -> Result<Suite, SuiteError> {
        let number = |(index, item): (usize, Item)| Numbered { line: index as u64 + 2, item };
        let items: Vec<Numbered> = items.into_iter().enumerate().map(number).collect();
        for Numbered { line, item } in &items {
            item.check().map_err(|problem| SuiteError::Item { line: *line, problem })?;
        }
        Suite::of(header, items)
    }

    /// Checks what is about several items, or about an item and the header.
    fn of(header: Header, items: Vec<Numbered>) -> Result<Suite, SuiteError> {
        check_header(&header).map_err(|problem| SuiteError::Header { line: 1, problem })?;
        let mut lines: HashMap<&str, u64> = HashMap::with_capacity(items.len());
        for Numbered { line, item } in &items {
            if let Some(before) = lines.insert(&item.id, *line) {
                let id = item.id.clone();
                return Err(SuiteError::IdTwice { line: *line, id, before });
            }
            check_scorer(&header, item)
                .map_err(|problem| SuiteError::Item { line: *line, problem })?;
        }
        if items.is_empty() {
            return Err(SuiteError::NoItems);
        }
        let items: Vec<Item> = items.into_iter().map(|numbered| numbered.item).collect();
        let metrics = metric::of_suite(&header, &items)
            .map_err(|problem| SuiteError::Header { line: 1, problem })?;
        let digest = digest(&header, &items);
        Ok(Suite { header, items, metrics, digest })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.header.suite
    }

    /// What its items have in common.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The items.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What is measured; the metric that counts comes first.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The scorer of an item that is generated.
    pub fn scorer<'s>(&'s self, of_item: Option<&'s Scorer>) -> Option<&'s Scorer> {
        of_item.or(self.header.scorer.as_ref())
    }

    /// Most tokens of an answer.
    pub fn max_tokens(&self, of_item: Option<u32>) -> u32 {
        of_item.or(self.header.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// What stands between a prompt that is a text and what continues it.
    pub fn delimiter(&self) -> &str {
        self.header.delimiter.as_deref().unwrap_or(DEFAULT_DELIMITER)
    }

    /// Names the content: header and items, however the file writes them.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// The suite as a file that [`Suite::read`] reads.
    pub fn to_lines(&self) -> String {
        let mut text = String::new();
        write_lines(&self.header, &self.items, |line| text.push_str(line));
        text
    }
}

fn check_header(header: &Header) -> Result<(), ItemProblem> {
    let Header { suite, max_tokens, stop, .. } = header;
    item::check_name("suite", suite)?;
    item::check_max_tokens(*max_tokens)?;
    Ok(feilun_infer::stop::validate(stop)?)
}

/// Everything that a scorer may object to is said before anything is generated.
fn check_scorer(header: &Header, item: &Item) -> Result<(), ItemProblem> {
    let Task::Generate { reference, scorer, stop, .. } = &item.task else { return Ok(()) };
    if !stop.is_empty() {
        let all: Vec<String> = header.stop.iter().chain(stop).cloned().collect();
        feilun_infer::stop::validate(&all)?;
    }
    match (scorer, &header.scorer) {
        (Some(_), _) => Ok(()), // checked with the item
        (None, Some(scorer)) => Ok(scorer.check(reference)?),
        (None, None) => Err(ItemProblem::NoScorer),
    }
}

fn write_lines(header: &Header, items: &[Item], mut write: impl FnMut(&str)) {
    // Plain structs of strings and numbers: there is nothing that JSON could not say.
    let mut line = |value: Result<String, serde_json::Error>| {
        write(&value.unwrap_or_default());
        write("\n");
    };
    line(serde_json::to_string(header));
    for item in items {
        line(serde_json::to_string(item));
    }
}

fn digest(header: &Header, items: &[Item]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    write_lines(header, items, |line| {
        hasher.update(line.as_bytes());
    });
    hasher.finalize()
}
