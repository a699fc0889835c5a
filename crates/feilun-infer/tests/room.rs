//! Several models at work for many callers, with decoders that are hashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod common;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{FakeDecoder, FakeLogits, PANIC, bytes, toy_text};
use feilun_infer::engine::{Engine, EngineConfig};
use feilun_infer::event::{EventKind, Finish, FinishReason, GenerationError};
use feilun_infer::room::{
    ModelDigest, ModelParts, ModelState, ResidentModel, Room, RoomConfig, RoomError, Submission,
    SubmitError, Tenant, Ticket,
};
use feilun_infer::{ConstraintLimits, Decoder, Request, SamplingParams};
use feilun_model::{BatchMode, ForwardError, ModelConfig, Segment};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
const CONSTRAINT_BYTES: usize = 1 << 20;
const DECODER_BYTES: usize = 1 << 20;
const MODEL_BYTES: usize = CONSTRAINT_BYTES + DECODER_BYTES;

fn config() -> RoomConfig {
    let constraints =
        ConstraintLimits { cache_bytes: CONSTRAINT_BYTES, ..ConstraintLimits::default() };
    RoomConfig { constraints, ..RoomConfig::new(1, 3 * MODEL_BYTES) }
}

/// A decoder that can be held up, and that can be told to fail where no request is to blame.
struct Gated {
    inner: FakeDecoder,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    is_broken: AtomicBool,
}

impl Gate {
    fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
    }

    fn pass(&self) {
        let start = Instant::now();
        while *self.is_shut.lock().unwrap() {
            assert!(start.elapsed() < PATIENCE, "nobody opens the gate");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Decoder for Gated {
    type Logits<'a> = FakeLogits;

    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn num_blocks(&self) -> usize {
        self.inner.num_blocks()
    }

    fn max_rows(&self) -> usize {
        assert!(!self.gate.is_broken.load(Ordering::Relaxed), "the engine was told to break");
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
        self.gate.pass();
        self.inner.forward(segments, mode)
    }
}

fn parts(digest: u8) -> ModelParts {
    ModelParts {
        digest: ModelDigest([digest; 32]),
        text: toy_text(),
        chat_format: None,
        decoder_bytes: DECODER_BYTES,
    }
}

fn install(room: &Room, digest: u8) -> (Arc<ResidentModel>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let decoder = Gated { inner: FakeDecoder::new(400, 64), gate: Arc::clone(&gate) };
    (room.install(parts(digest), decoder).unwrap(), gate)
}

fn tenant(id: u8) -> Tenant {
    Tenant::new([id; 16])
}

fn endless(text: &str, max_tokens: usize) -> Request {
    Request { ignore_end_tokens: true, ..Request::new(bytes(text), max_tokens) }
}

/// All that a request tells, and the ticket that keeps it going.
struct Answer {
    _ticket: Ticket,
    events: Receiver<EventKind>,
}

impl Answer {
    /// Token ids, and the end.
    fn wait(&self) -> (Vec<u32>, Finish) {
        let mut tokens = Vec::new();
        loop {
            match self.events.recv_timeout(PATIENCE).expect("an end") {
                EventKind::Token(token) => tokens.push(token.token),
                EventKind::Finished(finish) => {
                    assert!(self.events.recv().is_err(), "something after the end");
                    return (tokens, finish);
                }
                _ => {}
            }
        }
    }

    fn wait_for_token(&self) {
        while !matches!(self.events.recv_timeout(PATIENCE).unwrap(), EventKind::Token(_)) {}
    }
}

fn submit(
    room: &Room,
    model: &Arc<ResidentModel>,
    tenant: Tenant,
    request: Request,
) -> Result<Answer, SubmitError> {
    let (sender, events) = channel();
    let sink = Box::new(move |kind| {
        // The test may have lost interest.
        let _ = sender.send(kind);
        ControlFlow::Continue(())
    });
    let ticket = room.submit(Submission { model: Arc::clone(model), request, tenant, sink })?;
    Ok(Answer { _ticket: ticket, events })
}

/// What an engine of its own would answer.
fn alone(request: &Request) -> Vec<u32> {
    let vocabulary = toy_text().vocabulary();
    let clock = Box::new(|| Duration::ZERO);
    let config = EngineConfig::default();
    let mut engine = Engine::new(FakeDecoder::new(400, 64), vocabulary, config, clock);
    let mut tokens = Vec::new();
    let on_event = |event: &feilun_infer::Event| {
        if let EventKind::Token(token) = &event.kind {
            tokens.push(token.token);
        }
        ControlFlow::Continue(())
    };
    engine.generate(request.clone(), on_event).unwrap();
    tokens
}

/// Waits until something is so.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn check_empty(room: &Room) {
    eventually("nothing waits, runs or holds blocks", || {
        let status = room.status();
        status.waiting == 0
            && status
                .models
                .iter()
                .all(|model| model.running == 0 && model.waiting == 0 && model.blocks.used == 0)
    });
}

#[test]
fn answers_are_those_of_an_engine_alone_whoever_else_comes_and_goes() {
    let room = Room::start(config()).unwrap();
    let models = [install(&room, 1).0, install(&room, 2).0];
    std::thread::scope(|scope| {
        for caller in 0..6u8 {
            let (room, models) = (&room, &models);
            scope.spawn(move || {
                let mut open = Vec::new();
                for i in 0..30u8 {
                    let seed = u64::from(caller) * 1000 + u64::from(i);
                    let sampling = SamplingParams { seed, ..SamplingParams::default() };
                    let prompt = "You are a helpful assistant. ".repeat(usize::from(i) % 3);
                    let prompt = bytes(&format!("{prompt}{caller} asks {i}"));
                    let mode = if i % 4 == 0 { BatchMode::Exact } else { BatchMode::Fast };
                    let max_tokens = usize::from(i) * 7 % 50;
                    let request = Request { sampling, mode, ..Request::new(prompt, max_tokens) };
                    let model = &models[usize::from(i) % 2];
                    let answer = submit(room, model, tenant(caller % 3), request.clone()).unwrap();
                    match seed % 5 {
                        // Dropped at once, or after it has begun.
                        0 => drop(answer),
                        1 if max_tokens > 0 => {
                            answer.wait_for_token();
                            answer._ticket.cancel();
                        }
                        _ => open.push((request, answer)),
                    }
                }
                for (request, answer) in open {
                    let (tokens, finish) = answer.wait();
                    assert_eq!(tokens, alone(&request));
                    assert!(!matches!(
                        finish.reason,
                        FinishReason::Cancelled | FinishReason::Failed(_)
                    ));
                }
            });
        }
    });
    check_empty(&room);
    let status = room.status();
    let ended = |f: fn(&feilun_infer::room::RequestTotals) -> u64| {
        status.models.iter().map(|model| f(&model.requests)).sum::<u64>()
    };
    assert_eq!(ended(|r| r.finished) + ended(|r| r.cancelled), 6 * 30);
    assert_eq!(ended(|r| r.failed), 0);
}

#[test]
fn a_sink_that_breaks_off_ends_its_request() {
    let room = Room::start(config()).unwrap();
    let (model, _) = install(&room, 1);
    let (sender, events) = channel();
    let mut num_tokens = 0;
    let sink = Box::new(move |kind: EventKind| {
        num_tokens += 1;
        sender.send(kind).unwrap();
        if num_tokens == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let request = endless("go on", 1500);
    let submission = Submission { model, request, tenant: tenant(1), sink };
    let _ticket = room.submit(submission).unwrap();
    // The sink is dropped, and with it the sender, after the fifth.
    assert_eq!(events.iter().count(), 5);
    check_empty(&room);
    assert_eq!(room.status().models[0].requests.cancelled, 1);
}

#[test]
fn what_panics_ends_alone() {
    let room = Room::start(config()).unwrap();
    let (model, _) = install(&room, 1);
    let fine = endless("fine", 200);
    let expected = alone(&fine);
    let answer = submit(&room, &model, tenant(1), fine).unwrap();
    let panicked = submit(&room, &model, tenant(1), endless(PANIC, 9)).unwrap();
    let (_, finish) = panicked.wait();
    assert!(matches!(
        finish.reason,
        FinishReason::Failed(GenerationError::Panicked { message }) if message.contains("told to panic")
    ));
    let sink = Box::new(|_| panic!("a sink was told to panic"));
    let (model_of_sink, request) = (Arc::clone(&model), endless("sink", 1000));
    let submission = Submission { model: model_of_sink, request, tenant: tenant(2), sink };
    let _ticket = room.submit(submission).unwrap();
    assert_eq!(answer.wait().0, expected);
    check_empty(&room);
    assert_eq!(model.state(), ModelState::Serving);
}

#[test]
fn a_model_whose_engine_breaks_fails_alone_and_says_so() {
    let room = Room::start(config()).unwrap();
    let ((first, gate), (second, _)) = (install(&room, 1), install(&room, 2));
    gate.shut();
    let lost = submit(&room, &first, tenant(1), endless("lost", 50)).unwrap();
    let waits = submit(&room, &first, tenant(1), endless("waits", 50)).unwrap();
    gate.is_broken.store(true, Ordering::Relaxed);
    gate.open();
    for answer in [lost, waits] {
        let reason = answer.wait().1.reason;
        assert!(matches!(reason, FinishReason::Failed(GenerationError::EngineLost { .. })));
    }
    assert!(matches!(first.state(), ModelState::Failed { .. }));
    let refused = submit(&room, &first, tenant(1), endless("more", 5)).err().unwrap();
    assert!(matches!(refused, SubmitError::ModelFailed { .. }));
    let failed = |m: &feilun_infer::room::ModelStatus| matches!(m.state, ModelState::Failed { .. });
    assert_eq!(room.status().models.iter().filter(|model| failed(model)).count(), 1);
    assert_eq!(submit(&room, &second, tenant(1), endless("x", 9)).unwrap().wait().0.len(), 9);
    // Loaded again, it serves again.
    let (again, _) = install(&room, 1);
    assert_eq!(submit(&room, &again, tenant(1), endless("x", 9)).unwrap().wait().0.len(), 9);
    assert!(!room.status().models.iter().any(failed));
}

#[test]
fn when_the_room_closes_every_request_is_told() {
    let room = Room::start(config()).unwrap();
    let (model, gate) = install(&room, 1);
    gate.shut();
    let answers: Vec<Answer> =
        (0..9).map(|i| submit(&room, &model, tenant(i), endless("told", 500)).unwrap()).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(room));
        std::thread::sleep(Duration::from_millis(20));
        gate.open();
    });
    for answer in answers {
        let reason = answer.wait().1.reason;
        assert!(matches!(reason, FinishReason::Failed(GenerationError::EngineLost { .. })));
    }
}

#[test]
fn tenants_share_nothing_with_others_and_everything_with_themselves() {
    let room = Room::start(config()).unwrap();
    let (model, _) = install(&room, 1);
    let cached = |id| {
        let request = Request {
            // What a caller says of itself does not count.
            namespace: feilun_infer::kv::prefix::Namespace([9; 32]),
            ..endless(&"the same secret ".repeat(8), 1)
        };
        submit(&room, &model, tenant(id), request).unwrap().wait().1.usage.cached_prompt
    };
    assert_eq!((cached(1), cached(2)), (0, 0));
    assert_eq!((cached(1), cached(2)), (112, 112));
    assert_eq!(room.status().models[0].requests.cached_prompt_tokens, 224);
}

#[test]
fn queues_are_bounded_for_each_tenant_and_in_all() {
    let room = Room::start(RoomConfig { waiting_max: 5, running_max: 1, ..config() }).unwrap();
    let (model, gate) = install(&room, 1);
    let few = |id| Tenant { waiting_max: 3, ..tenant(id) };
    gate.shut();
    let mut answers = vec![submit(&room, &model, few(1), endless("a", 3)).unwrap()];
    // Wherever the first is, it counts until the engine has made a step.
    let mut refused = Vec::new();
    for _ in 0..6 {
        match submit(&room, &model, few(1), endless("b", 3)) {
            Ok(answer) => answers.push(answer),
            Err(error) => refused.push(error),
        }
    }
    assert_eq!(answers.len(), 3);
    let SubmitError::QuotaFull { waiting: 3, max: 3, retry_after } = refused[0] else {
        panic!("{refused:?}");
    };
    assert!(retry_after >= Duration::from_secs(1) && retry_after <= Duration::from_secs(60));
    let mut others = Vec::new();
    let full = loop {
        match submit(&room, &model, few(2), endless("c", 3)) {
            Ok(answer) => others.push(answer),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SubmitError::QueueFull { waiting: 5, max: 5, .. }), "{full:?}");
    assert_eq!(others.len(), 2);
    let too_long = submit(&room, &model, tenant(3), endless("d", 5000)).err().unwrap();
    let limit = 2000;
    assert_eq!(
        too_long,
        SubmitError::Request(feilun_infer::request::SubmitError::ContextTooLong {
            prompt_tokens: 1,
            max_tokens: 5000,
            limit
        })
    );
    gate.open();
    for answer in answers.iter().chain(&others) {
        assert_eq!(answer.wait().0.len(), 3);
    }
    check_empty(&room);
}

#[test]
fn one_request_is_not_delayed_by_a_hundred_of_another() {
    let room = Room::start(RoomConfig { running_max: 4, ..config() }).unwrap();
    let (model, gate) = install(&room, 1);
    gate.shut();
    let order = Arc::new(Mutex::new(Vec::new()));
    let submit = |id: u8| {
        let order = Arc::clone(&order);
        let sink = Box::new(move |kind| {
            if matches!(kind, EventKind::Finished(_)) {
                order.lock().unwrap().push(id);
            }
            ControlFlow::Continue(())
        });
        let model = Arc::clone(&model);
        let (request, tenant) = (endless("some question", 40), tenant(id));
        room.submit(Submission { model, request, tenant, sink }).unwrap()
    };
    let _many: Vec<Ticket> = (0..100).map(|_| submit(1)).collect();
    let _one = submit(2);
    gate.open();
    eventually("all have ended", || order.lock().unwrap().len() == 101);
    // Four at a time: it was among the first four, or the next.
    let place = order.lock().unwrap().iter().position(|id| *id == 2).unwrap();
    assert!(place < 8, "{place}");
}

#[test]
fn an_unloaded_model_finishes_what_it_has_and_gives_its_memory_back() {
    let room = Room::start(config()).unwrap();
    let (model, gate) = install(&room, 1);
    assert_eq!(room.status().memory_bytes, MODEL_BYTES);
    assert_eq!(model.bytes(), MODEL_BYTES);
    gate.shut();
    let running = submit(&room, &model, tenant(1), endless("running", 20)).unwrap();
    room.unload(&model.digest()).unwrap();
    assert!(room.model(&model.digest()).is_none());
    assert!(matches!(room.unload(&model.digest()), Err(RoomError::NoSuchModel(_))));
    let refused = submit(&room, &model, tenant(1), endless("late", 5)).err().unwrap();
    assert_eq!(refused, SubmitError::Unloaded(model.digest()));
    // The same model once more, while the first still has something to do.
    let (again, _) = install(&room, 1);
    let second = submit(&room, &again, tenant(1), endless("running", 20)).unwrap();
    assert_eq!(room.status().memory_bytes, 2 * MODEL_BYTES);
    gate.open();
    assert_eq!(running.wait().0, second.wait().0);
    eventually("the memory is back", || room.status().memory_bytes == MODEL_BYTES);
    assert_eq!(room.models().len(), 1);
}

#[test]
fn memory_is_refused_beyond_the_budget() {
    let room = Room::start(config()).unwrap();
    for digest in 1..=3 {
        install(&room, digest);
    }
    // A model that is there is not counted twice.
    install(&room, 3);
    let refused = room.install(parts(4), FakeDecoder::new(9, 9)).err().unwrap();
    assert!(matches!(
        refused,
        RoomError::Memory { needed: MODEL_BYTES, used, max, evicts: false }
            if used == 3 * MODEL_BYTES && max == used
    ));
    room.unload(&ModelDigest([2; 32])).unwrap();
    eventually("there is room again", || room.install(parts(4), FakeDecoder::new(9, 9)).is_ok());
}

#[test]
fn models_take_turns() {
    let room = Room::start(config()).unwrap();
    let (first, second) = (install(&room, 1).0, install(&room, 2).0);
    let long = submit(&room, &first, tenant(1), endless("long", 1500)).unwrap();
    long.wait_for_token();
    let short = submit(&room, &second, tenant(1), endless("short", 20)).unwrap();
    assert_eq!(short.wait().0.len(), 20);
    assert!(!long.events.try_iter().any(|kind| matches!(kind, EventKind::Finished(_))));
}
