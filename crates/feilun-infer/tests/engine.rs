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
use feilun_model::{BatchMode, KV_BLOCK_TOKENS};

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
            EventKind::Embedding(_) => panic!("nobody asked for an embedding"),
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

/// The choices of a question: only they are scored, and their prompt is computed once.
#[test]
fn prompts_that_are_scored_from_a_token_on_share_what_comes_before() {
    let prompt = bytes(&"a question that fills some blocks ".repeat(3));
    let mut engine = engine(64, 64, EngineConfig::default());
    for (index, choice) in ["yes", "no, never"].into_iter().enumerate() {
        let tokens = [prompt.clone(), bytes(choice)].concat();
        let request = Request { prompt_logprobs: Some(0), ..Request::new(tokens.clone(), 0) };
        let all = run(request.clone()).prompt_logprobs;
        let from = prompt.len();
        let request = Request { prompt_logprobs_from: from, ..request };
        let (mut found, mut finish) = (Vec::new(), None);
        engine.submit(request).unwrap();
        while !engine.is_idle() {
            for event in engine.step() {
                match event.kind {
                    EventKind::PromptLogprobs { start, logprobs } => {
                        assert_eq!(start, from + found.len());
                        found.extend(logprobs);
                    }
                    EventKind::Finished(found) => finish = Some(found),
                    _ => {}
                }
            }
        }
        assert_eq!(found, all[from - 1..]);
        let cached = finish.unwrap().usage.cached_prompt;
        assert_eq!(cached >= from - KV_BLOCK_TOKENS, index > 0, "{cached} of {from}");
    }
    // No token is that far: nothing is scored, and nothing breaks.
    let request =
        Request { prompt_logprobs: Some(0), prompt_logprobs_from: 9, ..endless(bytes("ab"), 3) };
    let found = run(request);
    assert_eq!((found.prompt_logprobs.len(), found.tokens.len()), (0, 3));
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

/// The plain computation: the sum over all prefixes, scaled to length 1.
fn embedding_of(prompt: &[u32]) -> Vec<f32> {
    let mut sums = [0f64; common::HIDDEN_SIZE];
    for end in 1..=prompt.len() {
        for (sum, value) in sums.iter_mut().zip(common::hidden_after(&prompt[..end])) {
            *sum += f64::from(value);
        }
    }
    let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    sums.iter().map(|sum| (sum / norm) as f32).collect()
}

#[test]
fn embeddings_are_the_mean_over_the_prompt() {
    let prompts: Vec<Vec<u32>> =
        (1..8).map(|i| bytes(&"embed me, please ".repeat(i)[..i * 15])).collect();
    // In chunks; and in a cache too small for all, so that some are computed twice.
    for (num_blocks, prompt_rows_max) in [(64, 1000), (64, 7), (8, 20)] {
        let config = EngineConfig { prompt_rows_max, ..EngineConfig::default() };
        let mut engine = engine(num_blocks, 64, config);
        let request = |prompt: &Vec<u32>| Request {
            embedding: true,
            ignore_end_tokens: true,
            ..Request::new(prompt.clone(), prompt.len() % 3)
        };
        let ids: Vec<_> = prompts.iter().map(|p| engine.submit(request(p)).unwrap()).collect();
        let mut found = vec![Vec::new(); prompts.len()];
        let mut num_tokens = 0;
        while !engine.is_idle() {
            for event in engine.step() {
                let index = ids.iter().position(|id| *id == event.request).unwrap();
                match event.kind {
                    EventKind::Embedding(embedding) => {
                        assert!(found[index].is_empty(), "a second embedding");
                        found[index] = embedding;
                    }
                    EventKind::Finished(finish) => {
                        assert!(matches!(finish.reason, FinishReason::Length));
                        num_tokens += finish.usage.generated;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(num_tokens, prompts.iter().map(|p| p.len() % 3).sum::<usize>());
        for (prompt, found) in prompts.iter().zip(&found) {
            assert_eq!(*found, embedding_of(prompt));
        }
    }
}

#[test]
fn a_panic_ends_one_request_alone() {
    let expected = run(endless(bytes("fine"), 20)).text;
    let mut engine = engine(64, 64, EngineConfig::default());
    let fine = engine.submit(endless(bytes("fine"), 20)).unwrap();
    let panics = engine.submit(endless(bytes(common::PANIC), 20)).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.extend(engine.step());
    }
    let (panicked, rest): (Vec<_>, Vec<_>) = events.into_iter().partition(|e| e.request == panics);
    match answer(panicked).finish.reason {
        FinishReason::Failed(GenerationError::Panicked { message }) => {
            assert_eq!(message, "the decoder was told to panic");
        }
        other => panic!("{other:?}"),
    }
    assert!(rest.iter().all(|event| event.request == fine));
    assert_eq!(answer(rest).text, expected);
    assert_eq!(engine.cache().num_available(), 64);
}

/// The tenant of each first token, in order.
fn order_of_first_tokens(
    engine: &mut feilun_infer::Engine<common::FakeDecoder>,
    tenants: &[(feilun_infer::RequestId, u8)],
) -> Vec<u8> {
    let (mut order, mut seen) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        for event in engine.step() {
            if matches!(event.kind, EventKind::Token(_)) && !seen.contains(&event.request) {
                seen.push(event.request);
                order.extend(tenants.iter().find(|(id, _)| *id == event.request).map(|t| t.1));
            }
        }
    }
    order
}

fn of_tenant(tenant: u8, request: Request) -> Request {
    Request { namespace: Namespace([tenant; 32]), ..request }
}

#[test]
fn a_tenant_with_many_requests_does_not_delay_one_with_few() {
    let config = EngineConfig { running_max: 4, ..EngineConfig::default() };
    let mut engine = engine(64, 64, config);
    let prompt = |i: u8| bytes(&format!("question {i} of some length"));
    let submit = |engine: &mut feilun_infer::Engine<_>, tenant, i| {
        let request = of_tenant(tenant, endless(prompt(i), 30));
        (engine.submit(request).unwrap(), tenant)
    };
    let mut tenants: Vec<_> = (0..100).map(|i| submit(&mut engine, 1, i)).collect();
    for _ in 0..10 {
        engine.step();
    }
    // All places are taken, and 96 wait. The newcomer is the next to get a token, but for those
    // that have begun.
    tenants.push(submit(&mut engine, 2, 0));
    assert_eq!(order_of_first_tokens(&mut engine, &tenants[4..])[0], 2);
    assert_eq!(engine.totals().displaced, 1);
    assert_eq!(engine.cache().num_available(), 64);
}

#[test]
fn waiting_tenants_take_turns_by_weight() {
    let config = EngineConfig { running_max: 1, ..EngineConfig::default() };
    let mut engine = engine(64, 64, config);
    let mut tenants = Vec::new();
    for (tenant, weight) in [(1, 1), (2, 3)] {
        for i in 0..24 {
            let request = of_tenant(tenant, endless(bytes(&format!("{tenant}{i:03}abcd")), 9));
            let id = engine.submit(Request { weight, ..request }).unwrap();
            tenants.push((id, tenant));
        }
    }
    let order = order_of_first_tokens(&mut engine, &tenants);
    let of_heavy = order[..24].iter().filter(|tenant| **tenant == 2).count();
    assert!((17..=19).contains(&of_heavy), "{order:?}");
}

#[test]
fn whoever_has_less_of_the_cache_keeps_it() {
    // Nine blocks each in a cache of 20; the newcomer's two are not taken from it again.
    let mut engine = engine(20, 64, EngineConfig::default());
    for i in 0..3 {
        let prompt = bytes(&format!("{i}").repeat(40));
        engine.submit(of_tenant(1, endless(prompt, 100))).unwrap();
    }
    for _ in 0..20 {
        engine.step();
    }
    let newcomer = engine.submit(of_tenant(2, endless(bytes("short"), 20))).unwrap();
    let mut num_steps = 0;
    let mut num_tokens = 0;
    while num_tokens < 20 {
        num_steps += 1;
        assert!(num_steps < 25, "{num_tokens} tokens");
        let events = engine.step();
        let is_token = |e: &&Event| e.request == newcomer && matches!(e.kind, EventKind::Token(_));
        num_tokens += events.iter().filter(is_token).count();
    }
    while !engine.is_idle() {
        engine.step();
    }
    assert_eq!(engine.cache().num_available(), 20);
}

#[test]
fn a_short_prompt_is_not_behind_the_long_one_of_another() {
    let config = EngineConfig { prompt_rows_max: 16, ..EngineConfig::default() };
    let mut engine = engine(200, 64, config);
    engine.submit(of_tenant(1, endless(bytes(&"long ".repeat(300)), 1))).unwrap();
    for _ in 0..5 {
        engine.step();
    }
    let short = engine.submit(of_tenant(2, endless(bytes("a short one"), 1))).unwrap();
    let events: Vec<_> = (0..2).flat_map(|_| engine.step()).collect();
    assert!(events.iter().any(|event| event.request == short));
}

#[test]
fn an_engine_can_be_moved_to_its_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&engine(1, 1, EngineConfig::default()));
}
