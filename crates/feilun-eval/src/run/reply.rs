//! From the engine's events to what came of an item.

use std::collections::BTreeMap;

use feilun_infer::{EventKind, FinishReason};

use super::result::{Answer, End, ItemResult};
use super::verdict;
use crate::suite::{Item, Suite, Task, Verdict, names};

/// What the engine said to one request, so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Sum of the log-probabilities that were asked for.
    logprob: f64,
    num_scored: usize,
    text: String,
    num_generated: usize,
    end: Option<Result<End, String>>,
}

impl Reply {
    /// Takes in an event. True if it was the last.
    pub(super) fn add(&mut self, kind: EventKind) -> bool {
        match kind {
            EventKind::PromptLogprobs { logprobs, .. } => {
                self.num_scored += logprobs.len();
                self.logprob += logprobs.iter().map(|token| f64::from(token.logprob)).sum::<f64>();
            }
            EventKind::Token(token) => self.text.push_str(&token.text),
            EventKind::Embedding(_) => {}
            EventKind::Finished(finish) => {
                self.text.push_str(&finish.text);
                self.num_generated = finish.usage.generated;
                self.end = Some(match finish.reason {
                    FinishReason::Stop(_) => Ok(End::Stop),
                    FinishReason::Length => Ok(End::Length),
                    FinishReason::Cancelled => Err("it was cancelled".to_owned()),
                    FinishReason::Failed(error) => Err(said(&error)),
                });
                return true;
            }
        }
        false
    }
}

/// An error and its causes, on one line.
pub(super) fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What came of an item that could not be asked.
pub(super) fn unasked(item: &Item, problem: String) -> ItemResult {
    ItemResult {
        id: item.id.clone(),
        cluster: item.cluster.clone(),
        skill: item.skill.clone(),
        metrics: BTreeMap::new(),
        answer: None,
        problem: Some(problem),
    }
}

/// What came of an item, from the replies to all of its requests.
pub(super) fn result(suite: &Suite, item: &Item, replies: Vec<Reply>) -> ItemResult {
    let failed = replies.iter().find_map(|reply| match &reply.end {
        Some(Ok(_)) => None,
        Some(Err(problem)) => Some(problem.clone()),
        None => Some("it did not end".to_owned()),
    });
    if let Some(problem) = failed {
        return unasked(item, problem);
    }
    let mut result = ItemResult { problem: None, ..unasked(item, String::new()) };
    match &item.task {
        Task::Generate { .. } => generated(suite, item, replies, &mut result),
        Task::MultipleChoice { choices, answer, .. } => {
            chosen(choices, *answer, &replies, &mut result);
        }
        Task::BitsPerByte { text } => likelihood(text, &replies, &mut result),
        Task::Preference { .. } => preferred(&replies, &mut result),
        Task::Judge { label, .. } => judged(*label, replies, &mut result),
    }
    // Of tasks with metrics of their own, what a suite of several kinds has in common.
    let main = [names::ACC, names::PREFERENCE, names::AGREEMENT];
    let is_mixed = suite.metrics().iter().any(|metric| metric.name == names::SCORE);
    if let (true, Some(sums)) = (is_mixed, main.iter().find_map(|name| result.metrics.get(*name))) {
        let sums = sums.clone();
        result.metrics.entry(names::SCORE.to_owned()).or_insert(sums);
    }
    result
}

impl ItemResult {
    fn set(&mut self, name: &str, sums: Vec<f64>) {
        self.metrics.insert(name.to_owned(), sums);
    }

    fn set_share(&mut self, name: &str, share: f64) {
        self.set(name, vec![share, 1.0]);
    }
}

fn generated(suite: &Suite, item: &Item, replies: Vec<Reply>, result: &mut ItemResult) {
    let Task::Generate { reference, scorer, .. } = &item.task else { return };
    let (Some(reply), Some(scorer)) = (replies.into_iter().next(), suite.scorer(scorer.as_ref()))
    else {
        return;
    };
    let (mut value, mut note) = (None, None);
    match scorer.score(reference, &reply.text) {
        Ok(score) => {
            result.set(crate::suite::metric_of(scorer), score.sums);
            (value, note) = (Some(score.value), score.note);
        }
        Err(error) => result.problem = Some(said(&error)),
    }
    let end = match reply.end {
        Some(Ok(end)) => end,
        _ => End::Length,
    };
    let tokens = reply.num_generated;
    result.answer = Some(Answer::Text { text: reply.text, tokens, end, value, note });
}

/// Of equals the first, as numpy's `argmax` has it.
fn argmax(values: impl Iterator<Item = f64>) -> usize {
    let better = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    values.enumerate().reduce(better).map_or(0, |(index, _)| index)
}

/// lm-eval's `acc`, `acc_norm` and `acc_bytes`: lengths are those of the choice without what
/// stands before it, and `acc_norm` counts characters.
fn chosen(choices: &[String], answer: usize, replies: &[Reply], result: &mut ItemResult) {
    let logprobs: Vec<f64> = replies.iter().map(|reply| reply.logprob).collect();
    let over = |len: &dyn Fn(&String) -> usize| {
        argmax(logprobs.iter().zip(choices).map(|(logprob, choice)| logprob / len(choice) as f64))
    };
    let likeliest = argmax(logprobs.iter().copied());
    let is_right = |choice: usize| f64::from(u8::from(choice == answer));
    result.set_share(names::ACC, is_right(likeliest));
    result.set_share(names::ACC_NORM, is_right(over(&|choice| choice.chars().count())));
    result.set_share(names::ACC_BYTES, is_right(over(&|choice| choice.len())));
    result.answer = Some(Answer::Choices { logprobs, likeliest });
}

fn likelihood(text: &str, replies: &[Reply], result: &mut ItemResult) {
    let logprob: f64 = replies.iter().map(|reply| reply.logprob).sum();
    let tokens = replies.iter().map(|reply| reply.num_scored).sum();
    let bytes = text.len();
    result.set(names::BITS_PER_BYTE, vec![-logprob / std::f64::consts::LN_2, bytes as f64]);
    result.answer = Some(Answer::Likelihood { logprob, tokens, bytes });
}

fn preferred(replies: &[Reply], result: &mut ItemResult) {
    let [chosen, rejected] = replies else { return };
    let share = |better: f64, worse: f64| match better.total_cmp(&worse) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let mean = |reply: &Reply| reply.logprob / reply.num_scored.max(1) as f64;
    result.set_share(names::PREFERENCE, share(chosen.logprob, rejected.logprob));
    result.set_share(names::PREFERENCE_NORM, share(mean(chosen), mean(rejected)));
    result.answer = Some(Answer::Pair {
        chosen: chosen.logprob,
        chosen_tokens: chosen.num_scored,
        rejected: rejected.logprob,
        rejected_tokens: rejected.num_scored,
    });
}

fn judged(label: Option<Verdict>, replies: Vec<Reply>, result: &mut ItemResult) {
    let mut texts = replies.into_iter().map(|reply| reply.text);
    let (Some(reply), Some(swapped_reply)) = (texts.next(), texts.next()) else { return };
    let verdict = verdict::parse(&reply);
    let swapped_verdict = verdict::parse(&swapped_reply).map(Verdict::swapped);
    let num_unparsable = [verdict, swapped_verdict].iter().filter(|v| v.is_none()).count();
    result.set(names::UNPARSABLE, vec![num_unparsable as f64, 2.0]);
    let is = |equal: bool| f64::from(u8::from(equal));
    if let (Some(verdict), Some(swapped)) = (verdict, swapped_verdict) {
        result.set_share(names::CONSISTENCY, is(verdict == swapped));
        if let Some(label) = label {
            let together = verdict::together(verdict, swapped);
            result.set_share(names::AGREEMENT, is(together == label));
        }
    }
    result.answer = Some(Answer::Verdicts { reply, swapped_reply, verdict, swapped_verdict });
}
