//! The time between tokens while prompts come in, with a clock that the decoder moves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{FakeDecoder, FakeLogits, ToyVocabulary, bytes};
use feilun_infer::engine::{Engine, EngineConfig, StepLimit};
use feilun_infer::event::EventKind;
use feilun_infer::{Decoder, Request, RequestId};
use feilun_model::{BatchMode, ForwardError, ModelConfig, Segment};

/// What a step takes, in microseconds. The figures are about those of SmolLM2 on two cores.
#[derive(Clone, Copy)]
struct Cost {
    step: f64,
    row: f64,
    /// For each position that a row attends to.
    position: f64,
}

const SMALL_MODEL: Cost = Cost { step: 2500.0, row: 850.0, position: 0.2 };

/// A decoder that takes its time.
struct Timed {
    inner: FakeDecoder,
    cost: Cost,
    slowness: Arc<Mutex<f64>>,
    now: Arc<AtomicU64>,
}

impl Decoder for Timed {
    type Logits<'a> = FakeLogits;

    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn num_blocks(&self) -> usize {
        self.inner.num_blocks()
    }

    fn max_rows(&self) -> usize {
        self.inner.max_rows()
    }

    fn max_logit_rows(&self) -> usize {
        self.inner.max_logit_rows()
    }

    fn forward(
        &mut self,
        segments: &[Segment<'_>],
        mode: BatchMode,
    ) -> Result<FakeLogits, ForwardError> {
        let mut micros = self.cost.step;
        for segment in segments {
            let depth = segment.start as f64 + segment.tokens.len() as f64 / 2.0;
            micros += segment.tokens.len() as f64 * (self.cost.row + self.cost.position * depth);
        }
        micros *= *self.slowness.lock().unwrap();
        self.now.fetch_add((micros * 1e3) as u64, Ordering::Relaxed);
        self.inner.forward(segments, mode)
    }
}

struct Trial {
    engine: Engine<Timed>,
    now: Arc<AtomicU64>,
    /// How many times longer everything takes.
    slowness: Arc<Mutex<f64>>,
    limit: StepLimit,
    num_prompts: usize,
}

impl Trial {
    fn new(cost: Cost, limit: StepLimit) -> Trial {
        let now = Arc::new(AtomicU64::new(0));
        let slowness = Arc::new(Mutex::new(1.0));
        let decoder = Timed {
            inner: FakeDecoder::new(2000, 256),
            cost,
            slowness: Arc::clone(&slowness),
            now: Arc::clone(&now),
        };
        let clock = {
            let now = Arc::clone(&now);
            Box::new(move || Duration::from_nanos(now.load(Ordering::Relaxed)))
        };
        let vocabulary = Arc::new(ToyVocabulary { canonical: true });
        let engine = Engine::new(decoder, vocabulary, EngineConfig::default(), clock);
        Trial { engine, now, slowness, limit, num_prompts: 0 }
    }

    fn answer(&mut self) {
        let request = Request::new(bytes("once upon a time"), 1500);
        self.engine.submit(Request { ignore_end_tokens: true, ..request }).unwrap();
    }

    fn long_prompt(&mut self) -> RequestId {
        self.num_prompts += 1;
        let prompt = bytes(&format!("{:8}", self.num_prompts).repeat(200));
        self.engine.submit(Request::new(prompt, 1)).unwrap()
    }

    /// Steps with at least one answer until a prompt is through or `steps_max`; the times of
    /// steps that gave a token to each answer.
    fn run(
        &mut self,
        num_answers: usize,
        steps_max: usize,
        until: Option<RequestId>,
    ) -> Vec<Duration> {
        let mut times = Vec::new();
        while times.len() < steps_max {
            let before = self.now.load(Ordering::Relaxed);
            let events = self.engine.step_within(Some(self.limit));
            times.push(Duration::from_nanos(self.now.load(Ordering::Relaxed) - before));
            let tokens = events.iter().filter(|e| matches!(e.kind, EventKind::Token(_))).count();
            assert!(tokens >= num_answers, "{tokens} tokens in a step of {num_answers} answers");
            let is_end = |kind: &EventKind| matches!(kind, EventKind::Finished(_));
            if events.iter().any(|e| Some(e.request) == until && is_end(&e.kind)) {
                return times;
            }
        }
        times
    }
}

fn limit(millis: u64) -> StepLimit {
    StepLimit { target: Duration::from_millis(millis), slowdown_max: 1.5 }
}

#[test]
fn answers_get_a_token_within_the_target_while_prompts_come_in() {
    let mut trial = Trial::new(SMALL_MODEL, limit(15));
    (0..4).for_each(|_| trial.answer());
    trial.engine.step();
    let idle = trial.run(4, 30, None);
    assert!(idle.iter().all(|time| *time < Duration::from_millis(7)));
    let start = trial.now.load(Ordering::Relaxed);
    let prompt = trial.long_prompt();
    let times = trial.run(4, 1000, Some(prompt));
    let took = Duration::from_nanos(trial.now.load(Ordering::Relaxed) - start);
    assert!(times.iter().all(|time| *time <= Duration::from_millis(15)), "{times:?}");
    // 1,600 rows of 0.85 to 1.17 ms, in about 8 ms of every 14.5: well above 3 seconds would mean
    // that time was left unused.
    assert!(took > Duration::from_millis(2000) && took < Duration::from_millis(3600), "{took:?}");
}

#[test]
fn a_machine_that_becomes_slower_is_noticed_within_a_few_steps() {
    let mut trial = Trial::new(SMALL_MODEL, limit(25));
    trial.answer();
    trial.engine.step();
    trial.run(1, 10, None);
    trial.long_prompt();
    trial.long_prompt();
    trial.run(1, 40, None);
    *trial.slowness.lock().unwrap() = 3.0;
    let times = trial.run(1, 60, None);
    let late = times.iter().filter(|time| **time > Duration::from_millis(25)).count();
    assert!(late <= 12, "{times:?}");
    assert!(times[15..].iter().all(|time| *time <= Duration::from_millis(25)), "{times:?}");
}

#[test]
fn without_answers_prompts_come_in_whole_chunks() {
    let mut trial = Trial::new(SMALL_MODEL, limit(10));
    trial.long_prompt();
    let mut num_steps = 0;
    while !trial.engine.is_idle() {
        trial.engine.step_within(None);
        num_steps += 1;
    }
    // 1,600 tokens in chunks of 256.
    assert_eq!(num_steps, 7);
}
