//! Running a suite through a model: all items together, as many at once as the engine takes.
//!
//! [`Encoder`] turns prompts and continuations into tokens, [`Workload`] is what must be computed
//! for the items, [`run`] computes it. A request's result does not depend on its neighbours (that
//! is the engine's promise), and its seed comes from the item's name: so results do not depend on
//! how many items there are, in which order they end, or where a run was broken off.

mod encode;
mod error;
mod reply;
mod result;
mod verdict;
mod work;

use std::collections::{HashMap, VecDeque};

use feilun_infer::{Decoder, Engine, LoadedAdapter, Request, RequestId};
use feilun_model::BatchMode;

pub use self::encode::Encoder;
pub use self::error::{AskProblem, RunError};
use self::reply::{Reply, result, said, unasked};
pub use self::result::{Answer, End, ItemResult};
pub use self::work::Workload;
use self::work::{Ask, ItemWork, sampling};
use crate::suite::Suite;

/// Requests that wait in the engine's queue: enough that it never runs dry within a step.
const WAITING: usize = 64;

/// How answers are computed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where random numbers begin.
    pub seed: u64,
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Applied to the model.
    pub adapter: Option<LoadedAdapter>,
    /// See [`BatchMode`].
    pub mode: BatchMode,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All items have a result.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// An item some of whose requests are on their way.
struct Open {
    replies: Vec<Reply>,
    num_left: usize,
}

/// Computes a workload. Results go to `keep` as they come, those of one step together, in no
/// order that matters; `should_stop` is asked before each step.
///
/// The engine must have no requests of others, and room for the longest request
/// ([`Workload::num_positions`]).
///
/// # Errors
/// When the engine refuses a request, or `keep` fails. What was kept before stays.
pub fn run<D: Decoder, E: std::error::Error + 'static>(
    suite: &Suite,
    workload: Workload,
    engine: &mut Engine<D>,
    settings: &Settings,
    should_stop: &dyn Fn() -> bool,
    keep: &mut dyn FnMut(&[ItemResult]) -> Result<(), E>,
) -> Result<Ended, RunError<E>> {
    let mut todo = workload.items.into_iter();
    let mut pending: VecDeque<((usize, usize), Ask)> = VecDeque::new();
    let mut open: HashMap<usize, Open> = HashMap::new();
    let mut asked: HashMap<RequestId, (usize, usize)> = HashMap::new();
    let mut is_out = false;
    loop {
        let mut results = Vec::new();
        while engine.num_waiting() < WAITING {
            if let Some((key, ask)) = pending.pop_front() {
                let id = &suite.items()[key.0].id;
                let submitted = engine.submit(request(ask, settings, id));
                let submitted =
                    submitted.map_err(|source| RunError::Submit { id: id.clone(), source })?;
                asked.insert(submitted, key);
                continue;
            }
            let Some(ItemWork { item: index, asks }) = todo.next() else {
                is_out = true;
                break;
            };
            match asks {
                Err(problem) => results.push(unasked(&suite.items()[index], said(&problem))),
                Ok(asks) => {
                    let replies = vec![Reply::default(); asks.len()];
                    open.insert(index, Open { num_left: asks.len(), replies });
                    pending.extend(asks.into_iter().enumerate().map(|(n, ask)| ((index, n), ask)));
                }
            }
        }
        if should_stop() {
            return Ok(Ended::Stopped);
        }
        for event in engine.step() {
            let Some(&(index, number)) = asked.get(&event.request) else { continue };
            let Some(found) = open.get_mut(&index) else { continue };
            if !found.replies[number].add(event.kind) {
                continue;
            }
            asked.remove(&event.request);
            found.num_left -= 1;
            if found.num_left == 0
                && let Some(found) = open.remove(&index)
            {
                results.push(result(suite, &suite.items()[index], found.replies));
            }
        }
        if !results.is_empty() {
            keep(&results).map_err(RunError::Keep)?;
        }
        if is_out && open.is_empty() {
            return Ok(Ended::Finished);
        }
    }
}

fn request(ask: Ask, settings: &Settings, id: &str) -> Request {
    let sampling = sampling(settings.seed, settings.temperature, id);
    let (adapter, mode) = (settings.adapter.clone(), settings.mode);
    match ask {
        Ask::Score(scored) => Request {
            prompt_logprobs: Some(0),
            prompt_logprobs_from: scored.from,
            adapter,
            mode,
            ..Request::new(scored.tokens, 0)
        },
        Ask::Generate { prompt, max_tokens, stop } => Request {
            sampling,
            stop_strings: stop,
            adapter,
            mode,
            ..Request::new(prompt, max_tokens)
        },
    }
}
