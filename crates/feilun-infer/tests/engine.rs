//! What the engine promises, one behaviour at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod common;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use common::{BROKEN, END, POISON, byte, bytes, engine, logits_after};
use feilun_infer::engine::EngineConfig;
use feilun_infer::event::{
    Event, EventKind, Finish, FinishReason, GeneratedToken, GenerationError, StopCause, Usage,
};
use feilun_infer::kv::prefix::Namespace;
use feilun_infer::request::{Request, SubmitError};
use feilun_infer::sampling::{Sampler, SamplingParams, TokenHistory, TokenLogprobs};
use feilun_model::BatchMode;

fn seeded(prompt: Vec<u32>, max_tokens: usize, seed: u64) -> Request {
    let sampling = SamplingParams { seed, ..SamplingParams::default() };
    Request { sampling, ..Request::new(prompt, max_tokens) }
}

/// A request whose answer never ends by itself.
fn endless(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request { ignore_end_tokens: true, ..seeded(prompt, max_tokens, 1) }
}

struct Answer {
    tokens: Vec<GeneratedToken>,
    text: String,
    prompt_logprobs: Vec<TokenLogprobs>,
    finish: Finish,
}

fn answer(events: Vec<Event>) -> Answer {
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut prompt_logprobs = Vec::new();
    let mut finish = None;
    for event in events {
        assert!(finish.is_none(), "an event after the last");
        match event.kind {
            EventKind::PromptLogprobs { start, logprobs } => {
                assert_eq!(start, prompt_logprobs.len() + 1);
                prompt_logprobs.extend(logprobs);
            }
            EventKind::Token(token) => {
                text.push_str(&token.text);
                tokens.push(token);
            }
            EventKind::Finished(found) => {
                text.push_str(&found.text);
                finish = Some(found);
            }
        }
    }
    Answer { tokens, text, prompt_logprobs, finish: finish.expect("no last event") }
}

fn run(request: Request) -> Answer {
    let mut engine = engine(64, 64, EngineConfig::default());
    let id = engine.submit(request).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.extend(engine.step());
    }
    assert!(events.iter().all(|e| e.request == id));
    assert_eq!(engine.cache().num_available(), 64);
    answer(events)
}

#[test]
fn tokens_are_those_of_the_plain_loop() {
    for seed in 0..20 {
        let request = seeded(bytes("hello"), 100, seed);
        let mut tokens = request.prompt.clone();
        let mut sampler = Sampler::new(common::NUM_TOKENS);
        let history = TokenHistory::default();
        for position in 0..100 {
            let row = logits_after(&tokens);
            let choice = sampler.choose(&row, &history, &request.sampling, None, position);
            tokens.push(choice.unwrap().token);
            if tokens.last() == Some(&END) {
                break;
            }
        }
        let found = run(request);
        let found_tokens: Vec<u32> = found.tokens.iter().map(|t| t.token).collect();
        assert_eq!(found_tokens, tokens[5..]);
        let usage = Usage { prompt: 5, cached_prompt: 0, generated: tokens.len() - 5 };
        assert_eq!(found.finish.usage, usage);
    }
}

#[test]
fn an_end_token_stops_and_shows_no_text() {
    let found = run(seeded(bytes("x"), 1000, 3));
    assert!(matches!(found.finish.reason, FinishReason::Stop(StopCause::Token(END))));
    assert_eq!(found.tokens.last().map(|t| (t.token, t.text.as_str())), Some((END, "")));
}

#[test]
fn the_bound_on_tokens_is_kept_and_said() {
    let found = run(endless(bytes("x"), 7));
    assert!(matches!(found.finish.reason, FinishReason::Length));
    assert_eq!(found.tokens.len(), 7);
}

#[test]
fn stop_tokens_and_stop_strings_end_an_answer() {
    let plain = run(endless(bytes("x"), 60));
    let stop = plain.tokens[20].token;
    let first = plain.tokens.iter().position(|t| t.token == stop).unwrap();
    let found = run(Request { stop_tokens: vec![stop], ..endless(bytes("x"), 60) });
    assert!(matches!(found.finish.reason, FinishReason::Stop(StopCause::Token(t)) if t == stop));
    assert_eq!(found.tokens.len(), first + 1);

    // A stop string that spans several tokens: cut out of the text itself.
    let chars: Vec<(usize, char)> = plain.text.char_indices().collect();
    let (from, to) = (chars[15].0, chars[19].0);
    let stop = plain.text[from..to].to_owned();
    let at = plain.text.find(&stop).unwrap();
    let found =
        run(Request { stop_strings: vec!["§".repeat(9), stop], ..endless(bytes("x"), 60) });
    assert!(matches!(found.finish.reason, FinishReason::Stop(StopCause::String(1))));
    assert_eq!(found.text, plain.text[..at]);
}

#[test]
fn logprobs_come_from_the_raw_logits() {
    let mut request = endless(bytes("ab"), 5);
    request.sampling.logprobs = Some(2);
    request.sampling.temperature = 0.3;
    request.prompt_logprobs = Some(1);
    let found = run(request);
    let mut tokens = bytes("ab");
    assert_eq!(found.prompt_logprobs.len(), 1);
    check_logprobs(&tokens[..1], &found.prompt_logprobs[0], tokens[1], 1);
    for token in &found.tokens {
        check_logprobs(&tokens, token.logprobs.as_ref().unwrap(), token.token, 2);
        tokens.push(token.token);
    }
}

fn check_logprobs(prefix: &[u32], found: &TokenLogprobs, token: u32, num_top: usize) {
    let row = logits_after(prefix);
    let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
    let logprob = |token: u32| f64::from(row[token as usize]) - sum.ln();
    assert_eq!(found.token, token);
    assert!((f64::from(found.logprob) - logprob(token)).abs() < 1e-5);
    assert_eq!(found.top.len(), num_top);
    for &(token, value) in &found.top {
        assert!((f64::from(value) - logprob(token)).abs() < 1e-5);
    }
}

#[test]
fn scoring_reports_every_token_but_the_first() {
    let prompt = bytes(&"score me, please: ".repeat(10));
    for scored_rows_max in [1, 7, 1000] {
        let config = EngineConfig { scored_rows_max, ..EngineConfig::default() };
        let mut engine = engine(64, 64, config);
        // A neighbour that has computed the same prompt already must not take rows away.
        engine.generate(Request::new(prompt.clone(), 1), |_| ControlFlow::Continue(())).unwrap();
        let scores = engine.score(prompt.clone(), None, BatchMode::Fast).unwrap().unwrap();
        assert_eq!(scores.len(), prompt.len() - 1);
        for (index, &score) in scores.iter().enumerate() {
            let row = logits_after(&prompt[..=index]);
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            let expected = f64::from(row[prompt[index + 1] as usize]) - sum.ln();
            assert!((f64::from(score) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let mut engine = engine(4, 64, EngineConfig::default());
    let submit = |engine: &mut feilun_infer::engine::Engine<_>, prompt: usize, max_tokens| {
        engine.submit(Request::new(vec![byte(b'a'); prompt], max_tokens)).map(|_| ())
    };
    assert_eq!(submit(&mut engine, 0, 1), Err(SubmitError::EmptyPrompt));
    assert_eq!(
        submit(&mut engine, 60, 5),
        Err(SubmitError::CacheTooSmall { prompt_tokens: 60, max_tokens: 5, limit: 64 })
    );
    assert_eq!(
        submit(&mut engine, 1, usize::MAX),
        Err(SubmitError::ContextTooLong { prompt_tokens: 1, max_tokens: usize::MAX, limit: 2000 })
    );
    assert_eq!(submit(&mut engine, 60, 4), Ok(()));
    let bad = engine.submit(Request::new(vec![9999], 1));
    assert!(matches!(bad, Err(SubmitError::TokenOutOfRange { token: 9999, .. })));
    let mut request = Request::new(vec![1], 1);
    request.sampling.temperature = f32::NAN;
    assert!(matches!(engine.submit(request), Err(SubmitError::Sampling(_))));
    let request = Request { stop_strings: vec![String::new()], ..Request::new(vec![1], 1) };
    assert!(matches!(engine.submit(request), Err(SubmitError::Stop(_))));
}

#[test]
fn the_queue_is_bounded() {
    let mut engine = engine(8, 8, EngineConfig { waiting_max: 2, ..EngineConfig::default() });
    let request = || Request::new(bytes("a"), 1);
    engine.submit(request()).unwrap();
    engine.submit(request()).unwrap();
    assert_eq!(engine.submit(request()), Err(SubmitError::QueueFull { max: 2 }));
    engine.step();
    assert!(engine.submit(request()).is_ok());
}

#[test]
fn a_failing_request_takes_no_other_with_it() {
    let expected = run(endless(bytes("fine"), 20)).text;
    let mut engine = engine(64, 64, EngineConfig::default());
    let fine = engine.submit(endless(bytes("fine"), 20)).unwrap();
    let poisoned = engine.submit(endless(vec![byte(b'a'), POISON], 20)).unwrap();
    let broken = engine.submit(endless(vec![BROKEN], 20)).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.extend(engine.step());
    }
    let mut of = |id| {
        let (mine, rest) =
            std::mem::take(&mut events).into_iter().partition(|e: &Event| e.request == id);
        events = rest;
        answer(mine)
    };
    assert!(matches!(
        of(poisoned).finish.reason,
        FinishReason::Failed(GenerationError::Forward(_))
    ));
    assert!(matches!(of(broken).finish.reason, FinishReason::Failed(GenerationError::Choose(_))));
    assert_eq!(of(fine).text, expected);
    assert_eq!(engine.cache().num_available(), 64);
}

#[test]
fn cancelled_requests_end_at_once_and_free_their_blocks() {
    let mut engine = engine(64, 64, EngineConfig { running_max: 1, ..EngineConfig::default() });
    let running = engine.submit(endless(bytes("one"), 500)).unwrap();
    let waiting = engine.submit(endless(bytes("two"), 500)).unwrap();
    engine.step();
    assert!(engine.cancel(waiting));
    assert!(engine.cancel(running));
    assert!(!engine.cancel(running));
    let events = engine.step();
    let reasons = events.iter().filter_map(|e| match &e.kind {
        EventKind::Finished(f) => Some((e.request, &f.reason)),
        _ => None,
    });
    let ids: Vec<_> = reasons
        .map(|(id, reason)| {
            assert!(matches!(reason, FinishReason::Cancelled));
            id
        })
        .collect();
    assert_eq!(ids, [waiting, running]);
    assert!(engine.is_idle());
    assert_eq!(engine.cache().num_available(), 64);
}

#[test]
fn equal_prompts_are_computed_once() {
    let prompt = bytes(&"the same system prompt. ".repeat(8));
    // In chunks, one prompt at a time; and with room for all of them at once.
    for max_rows in [64, 2000] {
        let mut engine = engine(128, max_rows, EngineConfig::default());
        for seed in 0..8 {
            engine.submit(seeded(prompt.clone(), 1, seed)).unwrap();
        }
        let mut cached = Vec::new();
        while !engine.is_idle() {
            for event in engine.step() {
                if let EventKind::Finished(finish) = event.kind {
                    cached.push(finish.usage.cached_prompt);
                }
            }
        }
        // 192 tokens are 12 blocks; of the last, one token at least is always computed.
        assert_eq!(cached, [0, 176, 176, 176, 176, 176, 176, 176]);
        assert_eq!(engine.decoder().num_rows, 192 + 7 * 16);
    }
}

#[test]
fn namespaces_and_modes_do_not_share() {
    let prompt = bytes(&"secret ".repeat(10));
    let mut engine = engine(128, 64, EngineConfig::default());
    let mut cached = |namespace, mode| {
        let request = Request {
            namespace: Namespace([namespace; 32]),
            mode,
            ..Request::new(prompt.clone(), 1)
        };
        let finish = engine.generate(request, |_| ControlFlow::Continue(())).unwrap();
        finish.usage.cached_prompt
    };
    assert_eq!(cached(1, BatchMode::Fast), 0);
    assert_eq!(cached(2, BatchMode::Fast), 0);
    assert_eq!(cached(1, BatchMode::Exact), 0);
    assert_eq!(cached(1, BatchMode::Fast), 64);
    assert_eq!(cached(1, BatchMode::Exact), 64);
}

#[test]
fn a_conversation_finds_its_last_answer() {
    let mut engine = engine(128, 64, EngineConfig::default());
    let mut conversation = bytes("a question of some length, and then ");
    let mut answer = Vec::new();
    let first = endless(conversation.clone(), 60);
    engine
        .generate(first, |event| {
            if let EventKind::Token(token) = &event.kind {
                answer.push(token.token);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    conversation.extend(answer);
    conversation.extend(bytes("another question"));
    let second = Request::new(conversation, 1);
    let finish = engine.generate(second, |_| ControlFlow::Continue(())).unwrap();
    // 36 + 60 tokens, of which the last was never computed: five full blocks.
    assert_eq!(finish.usage.cached_prompt, 80);
}

#[test]
fn a_prompt_in_chunks_does_not_keep_others_waiting() {
    let config = EngineConfig { prompt_rows_max: 8, ..EngineConfig::default() };
    let mut engine = engine(128, 16, config);
    let talking = engine.submit(endless(bytes("a"), 100)).unwrap();
    engine.step();
    engine.submit(endless(bytes(&"long ".repeat(40)), 1)).unwrap();
    for _ in 0..20 {
        let events = engine.step();
        assert!(events.iter().any(|e| e.request == talking), "a step without a token");
    }
}

#[test]
fn timings_are_those_of_the_clock() {
    let now = Rc::new(Cell::new(0u64));
    // The clock must be Send; a raw counter behind a mutex would do, a shared atomic is simpler.
    let ticks = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = {
        let ticks = ticks.clone();
        Box::new(move || Duration::from_secs(ticks.load(std::sync::atomic::Ordering::Relaxed)))
    };
    let mut engine = feilun_infer::engine::Engine::new(
        common::FakeDecoder::new(16, 16),
        std::sync::Arc::new(common::ToyVocabulary { canonical: true }),
        EngineConfig::default(),
        clock,
    );
    engine.submit(endless(bytes("abc"), 3)).unwrap();
    let mut timings = None;
    while timings.is_none() {
        now.set(now.get() + 1);
        ticks.store(now.get(), std::sync::atomic::Ordering::Relaxed);
        for event in engine.step() {
            if let EventKind::Finished(finish) = event.kind {
                timings = Some(finish.timings);
            }
        }
    }
    let timings = timings.unwrap();
    assert_eq!(timings.admitted, Some(Duration::from_secs(1)));
    assert_eq!(timings.first_token, Some(Duration::from_secs(1)));
    assert_eq!(timings.finished, Duration::from_secs(3));
}

#[test]
fn generate_can_be_broken_off_and_keeps_the_events_of_others() {
    let mut engine = engine(64, 64, EngineConfig::default());
    let other = engine.submit(endless(bytes("other"), 4)).unwrap();
    let mut num_tokens = 0;
    let finish = engine
        .generate(endless(bytes("mine"), 100), |event| match event.kind {
            EventKind::Token(_) if num_tokens == 10 => ControlFlow::Break(()),
            EventKind::Token(_) => {
                num_tokens += 1;
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
    assert!(matches!(finish.reason, FinishReason::Cancelled));
    assert_eq!(finish.usage.generated, 11);
    let events = engine.step();
    assert!(events.iter().all(|e| e.request == other));
    assert_eq!(answer(events).tokens.len(), 4);
}

#[test]
fn an_engine_can_be_moved_to_its_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&engine(1, 1, EngineConfig::default()));
}
