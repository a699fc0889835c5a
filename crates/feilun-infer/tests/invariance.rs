//! A request's events do not depend on its neighbours, on chunks, on the cache, on cancelled
//! strangers, or on how often it lost its blocks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{FakeDecoder, ToyVocabulary, bytes, engine};
use feilun_infer::engine::{Engine, EngineConfig};
use feilun_infer::event::{EventKind, FinishReason};
use feilun_infer::kv::prefix::Namespace;
use feilun_infer::request::{Request, RequestId};
use feilun_infer::sampling::SamplingParams;
use feilun_model::BatchMode;
use proptest::prelude::*;

/// What must not depend on anything: everything but times, and what the cache held.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    log: Vec<String>,
    reason: String,
    num_generated: usize,
}

impl Outcome {
    fn add(&mut self, kind: EventKind) {
        match kind {
            EventKind::PromptLogprobs { start, logprobs } => {
                for (index, logprobs) in (start..).zip(logprobs) {
                    self.log.push(format!("prompt {index}: {logprobs:?}"));
                }
            }
            EventKind::Token(token) => self.log.push(format!("{token:?}")),
            EventKind::Embedding(embedding) => self.log.push(format!("{embedding:?}")),
            EventKind::Finished(finish) => {
                self.log.push(format!("rest: {:?}", finish.text));
                self.num_generated = finish.usage.generated;
                self.reason = match finish.reason {
                    FinishReason::Stop(cause) => format!("{cause:?}"),
                    other => format!("{other:?}"),
                };
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Arrival {
    request: Request,
    step: usize,
    cancel_after: Option<usize>,
}

fn prompt() -> impl Strategy<Value = Vec<u32>> {
    // Beginnings that are shared in part, and tails that are not.
    let beginnings = ["", "You are a helpful assistant. ", "You are a helpful assistant, not a"];
    (0..beginnings.len(), 0usize..3, "[a-z]{1,30}").prop_map(move |(which, repeat, tail)| {
        bytes(&format!("{}{tail}", beginnings[which].repeat(repeat)))
    })
}

fn request() -> impl Strategy<Value = Request> {
    let sampling = (0u64..5, prop_oneof![Just(0f32), Just(1.0)], 0usize..20, 0.5f32..=1.0)
        .prop_map(|(seed, temperature, top_k, top_p)| SamplingParams {
            seed,
            temperature,
            top_k,
            top_p,
            frequency_penalty: 0.5,
            repetition_penalty: if top_k % 2 == 0 { 1.1 } else { 1.0 },
            logprobs: (top_k % 3 == 0).then_some(2),
            ..SamplingParams::default()
        });
    let stops = prop::collection::vec("[a-c]{1,2}", 0..2);
    let switches = any::<[bool; 4]>();
    (prompt(), 0usize..40, sampling, stops, switches, (0u8..3, 0usize..60)).prop_map(
        |(prompt, max_tokens, sampling, stops, switches, (namespace, from))| {
            let [endless, exact, scored, embedding] = switches;
            Request {
                sampling,
                stop_strings: stops,
                ignore_end_tokens: endless,
                namespace: Namespace([namespace; 32]),
                weight: u32::from(namespace) + 1,
                mode: if exact { BatchMode::Exact } else { BatchMode::Fast },
                prompt_logprobs: scored.then_some(1),
                prompt_logprobs_from: from,
                embedding,
                ..Request::new(prompt, max_tokens)
            }
        },
    )
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (request(), 0usize..20, prop::option::weighted(0.2, 0usize..30))
        .prop_map(|(request, step, cancel_after)| Arrival { request, step, cancel_after })
}

/// The request alone, in one chunk, with room for everything.
fn alone(request: Request) -> Outcome {
    let config = EngineConfig { share_prefixes: false, ..EngineConfig::default() };
    let mut engine = engine(100, 1000, config);
    engine.submit(request).unwrap();
    let mut outcome = Outcome::default();
    while !engine.is_idle() {
        engine.step().into_iter().for_each(|event| outcome.add(event.kind));
    }
    outcome
}

/// Returns how many rows were computed.
fn check(
    arrivals: &[Arrival],
    num_blocks: usize,
    max_rows: usize,
    logit_rows_max: usize,
    config: EngineConfig,
) -> usize {
    let mut decoder = FakeDecoder::new(num_blocks, max_rows);
    decoder.logit_rows_max = logit_rows_max;
    let vocabulary = Arc::new(ToyVocabulary { canonical: true });
    let mut engine = Engine::new(decoder, vocabulary, config, Box::new(|| Duration::ZERO));
    let mut outcomes: HashMap<RequestId, Outcome> = HashMap::new();
    let mut ids: Vec<Option<RequestId>> = vec![None; arrivals.len()];
    let mut step = 0;
    while step < 40 || !engine.is_idle() {
        for (arrival, id) in arrivals.iter().zip(&mut ids) {
            if arrival.step == step {
                *id = Some(engine.submit(arrival.request.clone()).unwrap());
            }
            if let (Some(id), Some(after)) = (*id, arrival.cancel_after)
                && step == arrival.step + after
            {
                engine.cancel(id);
            }
        }
        for event in engine.step() {
            outcomes.entry(event.request).or_default().add(event.kind);
        }
        step += 1;
        assert!(step < 20_000, "no end in sight");
    }
    for (arrival, id) in arrivals.iter().zip(&ids) {
        let found = &outcomes[&id.unwrap()];
        let expected = alone(arrival.request.clone());
        if found.reason == "Cancelled" {
            // All that came before is as it would have been; the last entry is the held text.
            let before = &found.log[..found.log.len() - 1];
            assert_eq!(before, &expected.log[..before.len()]);
        } else {
            assert_eq!(found, &expected);
        }
    }
    assert_eq!(engine.cache().num_available(), num_blocks, "blocks are lost");
    engine.decoder().num_rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn results_do_not_depend_on_company(
        arrivals in prop::collection::vec(arrival(), 1..9),
        // The longest request takes 9 blocks: often there is hardly room for two.
        num_blocks in 9usize..40,
        max_rows in 4usize..60,
        logit_rows_max in 1usize..20,
        running_max in 1usize..8,
        prompt_rows_max in 1usize..60,
        scored_rows_max in 1usize..20,
        share_prefixes: bool,
    ) {
        let config = EngineConfig {
            running_max,
            prompt_rows_max,
            scored_rows_max,
            share_prefixes,
            ..EngineConfig::default()
        };
        check(&arrivals, num_blocks, max_rows, logit_rows_max, config);
    }
}

#[test]
fn sequences_that_lose_their_blocks_are_recomputed() {
    // Five of up to eight blocks each in a cache of nine.
    let request = |seed| Request {
        ignore_end_tokens: true,
        sampling: SamplingParams { seed, logprobs: Some(1), ..SamplingParams::default() },
        prompt_logprobs: Some(0),
        ..Request::new(bytes(&format!("{seed} is a number")), 100)
    };
    let arrivals: Vec<Arrival> = (0..5)
        .map(|seed| Arrival { request: request(seed), step: 0, cancel_after: None })
        .collect();
    let num_rows = check(&arrivals, 9, 64, 64, EngineConfig::default());
    // 13 + 100 tokens each, of which the last is never computed; more if any was computed twice.
    assert!(num_rows > 5 * 112, "nothing was taken away: {num_rows} rows");
}
