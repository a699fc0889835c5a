//! What is to be computed for each item.

use feilun_infer::SamplingParams;
use feilun_model::KV_BLOCK_TOKENS;

use super::encode::{Encoder, Scored};
use super::error::AskProblem;
use super::verdict;
use crate::suite::{Item, Prompt, Suite, Task};

/// One request to the engine.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// Log-probabilities of the last of these tokens.
    Score(Scored),
    /// An answer.
    Generate { prompt: Vec<u32>, max_tokens: usize, stop: Vec<String> },
}

impl Ask {
    /// Tokens of prompt and answer.
    fn num_tokens(&self) -> usize {
        match self {
            Ask::Score(scored) => scored.tokens.len(),
            Ask::Generate { prompt, max_tokens, .. } => prompt.len() + max_tokens,
        }
    }
}

/// An item and what must be computed for it; or why it cannot be.
#[derive(Debug)]
pub(super) struct ItemWork {
    /// Index in the suite.
    pub(super) item: usize,
    pub(super) asks: Result<Vec<Ask>, AskProblem>,
}

/// What is to be computed for some items of a suite.
#[derive(Debug)]
pub struct Workload {
    pub(super) items: Vec<ItemWork>,
}

impl Workload {
    /// Encodes the items of these indices.
    pub fn new(
        suite: &Suite,
        items: impl IntoIterator<Item = usize>,
        encoder: &Encoder,
    ) -> Workload {
        let work = |index: usize| {
            let item = suite.items().get(index)?;
            Some(ItemWork { item: index, asks: asks(suite, item, encoder) })
        };
        Workload { items: items.into_iter().filter_map(work).collect() }
    }

    /// How many items.
    pub fn num_items(&self) -> usize {
        self.items.len()
    }

    /// Items that cannot be asked, by index, and why.
    pub fn problems(&self) -> impl Iterator<Item = (usize, &AskProblem)> {
        self.items.iter().filter_map(|work| Some((work.item, work.asks.as_ref().err()?)))
    }

    /// Positions of KV cache that the longest request needs, and that so many requests together
    /// need at most.
    pub fn num_positions(&self, num_running: usize) -> (usize, usize) {
        let asks = self.items.iter().flat_map(|work| work.asks.iter().flatten());
        // A block begun is a block taken.
        let round =
            |ask: &Ask| ask.num_tokens().next_multiple_of(KV_BLOCK_TOKENS) + KV_BLOCK_TOKENS;
        let mut sizes: Vec<usize> = asks.map(round).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        (sizes.first().copied().unwrap_or(0), sizes.iter().take(num_running).sum())
    }
}

fn asks(suite: &Suite, item: &Item, encoder: &Encoder) -> Result<Vec<Ask>, AskProblem> {
    let delimiter = suite.delimiter();
    match &item.task {
        Task::Generate { prompt, max_tokens, stop, .. } => {
            let stop = suite.header().stop.iter().chain(stop).cloned().collect();
            let prompt = encoder.prompt(prompt)?;
            Ok(vec![generate(encoder, prompt, suite.max_tokens(*max_tokens), stop)?])
        }
        Task::MultipleChoice { prompt, choices, .. } => {
            let ask = |choice: &String| encoder.continuation(prompt, delimiter, choice);
            choices.iter().map(|choice| Ok(Ask::Score(ask(choice)?))).collect()
        }
        Task::BitsPerByte { text } => {
            Ok(encoder.whole_text(text)?.into_iter().map(Ask::Score).collect())
        }
        Task::Preference { prompt, chosen, rejected } => {
            let ask = |answer| encoder.answer(prompt, delimiter, answer).map(Ask::Score);
            Ok(vec![ask(chosen)?, ask(rejected)?])
        }
        Task::Judge { prompt, first, second, .. } => {
            let ask = |first, second| judge(suite, encoder, prompt, first, second);
            Ok(vec![ask(first, second)?, ask(second, first)?])
        }
    }
}

fn judge(
    suite: &Suite,
    encoder: &Encoder,
    prompt: &Prompt,
    first: &str,
    second: &str,
) -> Result<Ask, AskProblem> {
    let question = verdict::question(&encoder.words(prompt), first, second);
    let max_tokens = suite.header().max_tokens.unwrap_or(verdict::MAX_TOKENS);
    generate(encoder, encoder.message(&question)?, max_tokens, Vec::new())
}

fn generate(
    encoder: &Encoder,
    prompt: Vec<u32>,
    max_tokens: u32,
    stop: Vec<String>,
) -> Result<Ask, AskProblem> {
    if prompt.is_empty() {
        return Err(AskProblem::EmptyPrompt);
    }
    let (found, max) = (prompt.len(), encoder.window() + 1);
    if found + max_tokens as usize > max {
        return Err(AskProblem::NoRoom { prompt: found, max_tokens, max });
    }
    Ok(Ask::Generate { prompt, max_tokens: max_tokens as usize, stop })
}

/// How an item's answer is sampled: seeded by the item's name, so that neither the order of
/// items nor a limit on their number changes an answer.
pub(super) fn sampling(seed: u64, temperature: f32, id: &str) -> SamplingParams {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(id.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    SamplingParams { temperature, seed: u64::from_le_bytes(bytes), ..SamplingParams::default() }
}
