//! The engine over a real model: SmolLM2-135M-Instruct.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use feilun_infer::event::EventKind;
use feilun_infer::{Engine, EngineConfig, Request, SamplingParams, TextStream, Vocabulary};
use feilun_kernels::Pool;
use feilun_model::{BatchMode, Model, ModelFiles, Session, SessionOptions};

/// Token ids are all that these tests look at.
struct Ids(usize);

struct NoText;

impl Vocabulary for Ids {
    fn num_tokens(&self) -> usize {
        self.0
    }

    fn end_tokens(&self) -> &[u32] {
        &[]
    }

    fn token_bytes(&self, _: u32) -> Option<Vec<u8>> {
        None
    }

    fn tokenize(&self, _: &str) -> Option<Vec<u32>> {
        None
    }

    fn text_stream(&self) -> Box<dyn TextStream> {
        Box::new(NoText)
    }
}

impl TextStream for NoText {
    fn push(&mut self, _: u32) -> String {
        String::new()
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}

fn load() -> Arc<Model> {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    let path = folder.join("smollm2.gguf");
    let files = ModelFiles::open(&path).unwrap_or_else(|e| {
        panic!("{}: {e}; run the tests with `cargo xtask test`", path.display())
    });
    Arc::new(Model::load(&files, &mut Pool::new(2).unwrap()).unwrap())
}

fn engine(model: &Arc<Model>, num_threads: usize, config: EngineConfig) -> Engine<Session> {
    let options = SessionOptions {
        max_rows: 64,
        max_logit_rows: 16,
        num_blocks: 40,
        ..SessionOptions::new(model.config())
    };
    let pool = Pool::new(num_threads).unwrap();
    let session = Session::new(Arc::clone(model), pool, options).unwrap();
    let vocabulary = Arc::new(Ids(model.config().vocab_size));
    Engine::new(session, vocabulary, config, Box::new(|| Duration::ZERO))
}

fn request(seed: u64) -> Request {
    // A shared beginning of 50 tokens, and an end of its own.
    let shared = (0..50).map(|i| 1000 + i * 37 % 900);
    let prompt = shared.chain((0..20 + seed as u32 * 3).map(|i| 2000 + i * seed as u32)).collect();
    let sampling =
        SamplingParams { seed, top_p: 0.9, logprobs: Some(3), ..SamplingParams::default() };
    let scored = (seed == 2).then_some(1);
    Request {
        sampling,
        mode: BatchMode::Exact,
        prompt_logprobs: scored,
        ..Request::new(prompt, 16)
    }
}

/// Every token with the bits of its log-probabilities.
fn log(kind: &EventKind, log: &mut Vec<String>) {
    match kind {
        EventKind::PromptLogprobs { logprobs, .. } => {
            log.extend(logprobs.iter().map(|l| format!("{l:?}")));
        }
        EventKind::Token(token) => log.push(format!("{token:?}")),
        EventKind::Embedding(embedding) => log.push(format!("{embedding:?}")),
        EventKind::Finished(finish) => log.push(format!("{:?}", finish.reason)),
    }
}

#[test]
fn exact_requests_are_bit_identical_in_company() {
    let model = load();
    let alone: Vec<Vec<String>> = (0..4)
        .map(|seed| {
            let mut found = Vec::new();
            let mut engine = engine(&model, 1, EngineConfig::default());
            engine
                .generate(request(seed), |event| {
                    log(&event.kind, &mut found);
                    ControlFlow::Continue(())
                })
                .unwrap();
            found
        })
        .collect();
    for (num_threads, prompt_rows_max) in [(2, usize::MAX), (2, 13)] {
        let config = EngineConfig { prompt_rows_max, ..EngineConfig::default() };
        let mut engine = engine(&model, num_threads, config);
        let ids: Vec<_> = (0..4).map(|seed| engine.submit(request(seed)).unwrap()).collect();
        let mut found = vec![Vec::new(); 4];
        let mut cached = 0;
        while !engine.is_idle() {
            for event in engine.step() {
                let index = ids.iter().position(|id| *id == event.request).unwrap();
                log(&event.kind, &mut found[index]);
                if let EventKind::Finished(finish) = &event.kind {
                    cached += finish.usage.cached_prompt;
                }
            }
        }
        assert_eq!(found, alone);
        // Two of them found the 48 shared tokens; one was scored, and computed them itself.
        assert_eq!(cached, 2 * 48);
    }
}

#[test]
fn scores_are_log_probabilities() {
    let model = load();
    let mut engine = engine(&model, 2, EngineConfig::default());
    let tokens: Vec<u32> = (0..70).map(|i| 1000 + i * 37 % 900).collect();
    let scores = engine.score(tokens.clone(), None, BatchMode::Fast).unwrap().unwrap();
    assert_eq!(scores.len(), 69);
    assert!(scores.iter().all(|score| *score < 0.0 && score.is_finite()));
    let again = engine.score(tokens, None, BatchMode::Fast).unwrap().unwrap();
    assert_eq!(scores, again);
}
