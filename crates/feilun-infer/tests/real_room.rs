//! A room with real models: loading, the budget, adapters, embeddings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use feilun_infer::event::{EventKind, Finish, FinishReason};
use feilun_infer::room::{
    ModelSource, ResidentModel, Room, RoomConfig, RoomError, Submission, Tenant, Ticket,
};
use feilun_infer::{ConstraintSource, Request, SamplingParams};
use feilun_kernels::Pool;
use feilun_model::save::{AdapterInfo, NamedTensor, save_adapter};
use feilun_model::{
    BatchMode, BlockId, LayerTensor, LogitRows, Model, ModelFiles, Segment, Session, SessionOptions,
};

fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("FEILUN_TEST_MODELS")
        .map(PathBuf::from)
        .expect("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask test`", path.display());
    path
}

fn source(name: &str) -> ModelSource {
    ModelSource { kv_bytes_max: 64 << 20, ..ModelSource::new(path(name)) }
}

/// What a request tells, and the ticket that keeps it going.
type Asked = (Ticket, Receiver<EventKind>);

fn submit(room: &Room, model: &Arc<ResidentModel>, request: Request) -> Asked {
    let (sender, events) = channel();
    let sink = Box::new(move |kind| {
        let _ = sender.send(kind);
        ControlFlow::Continue(())
    });
    let tenant = Tenant::new([1; 16]);
    let submission = Submission { model: Arc::clone(model), request, tenant, sink };
    (room.submit(submission).unwrap(), events)
}

fn wait((_ticket, events): Asked) -> (Vec<EventKind>, Finish) {
    let mut found = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_secs(60)).unwrap() {
            EventKind::Finished(finish) => return (found, finish),
            other => found.push(other),
        }
    }
}

fn text(asked: Asked) -> String {
    let (events, finish) = wait(asked);
    assert!(!matches!(finish.reason, FinishReason::Failed(_)), "{:?}", finish.reason);
    let texts = events.into_iter().filter_map(|kind| match kind {
        EventKind::Token(token) => Some(token.text),
        _ => None,
    });
    texts.collect::<String>() + &finish.text
}

/// The plain computation: all positions in one step, their final hidden states, their mean.
fn embedding_of(prompt: &[u32]) -> Vec<f32> {
    let files = ModelFiles::open(path("smollm2.gguf")).unwrap();
    let model = Arc::new(Model::load(&files, &mut Pool::new(2).unwrap()).unwrap());
    let hidden_size = model.config().hidden_size;
    let options = SessionOptions { num_blocks: 32, ..SessionOptions::new(model.config()) };
    let mut session = Session::new(model, Pool::new(2).unwrap(), options).unwrap();
    let blocks: Vec<BlockId> = (0..32).map(BlockId).collect();
    let segment = Segment {
        tokens: prompt,
        start: 0,
        blocks: &blocks,
        logits: LogitRows::None,
        adapter: None,
    };
    let logits = session.forward(&[segment], BatchMode::Exact).unwrap();
    let mut mean = vec![0f64; hidden_size];
    for token in 0..prompt.len() {
        let mut hidden = vec![0.0; hidden_size];
        logits.hidden(token, &mut hidden);
        mean.iter_mut().zip(hidden).for_each(|(mean, value)| *mean += f64::from(value));
    }
    let length = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
    mean.iter().map(|value| (value / length) as f32).collect()
}

/// Writes an adapter of rank 2 on the queries of the first layer.
fn write_adapter(folder: &Path, model: &ResidentModel, seed: f32) {
    let (hidden_size, q_size) = (model.config().hidden_size, model.config().q_size());
    let wave = |len: usize| -> Vec<f32> { (0..len).map(|i| (i as f32 * seed).sin()).collect() };
    let (a, b) = (wave(2 * hidden_size), wave(2 * q_size));
    let name =
        |half| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight");
    let (name_a, name_b) = (name("A"), name("B"));
    let tensors = [
        NamedTensor { name: &name_a, shape: &[2, hidden_size], values: &a },
        NamedTensor { name: &name_b, shape: &[q_size, 2], values: &b },
    ];
    let targets = &[LayerTensor::AttnQ];
    let info = AdapterInfo { rank: 2, alpha: 2.0, targets, base: "a test" };
    save_adapter(folder, &info, tensors).unwrap();
}

fn adapters(room: &Room, model: &Arc<ResidentModel>, request: &Request) {
    let folder = tempfile::tempdir().unwrap();
    let before = room.status().memory_bytes;
    let loaded = [1.7, 2.3].map(|seed| {
        let folder = folder.path().join(seed.to_string());
        write_adapter(&folder, model, seed);
        model.load_adapter(&folder).unwrap()
    });
    let each = 4 * 2 * (model.config().hidden_size + model.config().q_size());
    assert_eq!(room.status().memory_bytes, before + 2 * each);
    model.load_adapter(&folder.path().join("1.7")).unwrap();
    assert_eq!(model.adapters().len(), 2);

    // Each alone, then all in one batch.
    let of = |adapter| Request { adapter, ..request.clone() };
    let requests = [of(None), of(Some(loaded[0].clone())), of(Some(loaded[1].clone()))];
    let alone = requests.clone().map(|request| text(submit(room, model, request)));
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "{alone:?}");
    let together = requests.clone().map(|request| submit(room, model, request)).map(text);
    assert_eq!(together, alone);

    let [first, second] = loaded;
    model.unload_adapter(&first.digest).unwrap();
    assert!(model.adapter(&first.digest).is_none());
    assert!(matches!(model.unload_adapter(&first.digest), Err(RoomError::NoSuchAdapter(_))));
    model.unload_adapter(&second.digest).unwrap();
    // Whoever still has it can use it, and it counts.
    assert!(room.status().memory_bytes > before);
    assert_eq!(text(submit(room, model, requests[2].clone())), alone[2]);
    drop((first, second, requests));
    assert!(model.adapters().is_empty());
    let start = Instant::now();
    while room.status().memory_bytes != before {
        assert!(start.elapsed() < Duration::from_secs(20), "the memory of adapters is lost");
        // The engine thread lets go of the last request after it has told its end.
        std::thread::sleep(Duration::from_millis(1));
        model.adapters();
    }
}

#[test]
fn one_room_loads_answers_embeds_and_makes_room() {
    let budget = 540 << 20;
    let room = Room::start(RoomConfig { step_rows_max: 64, ..RoomConfig::new(2, budget) }).unwrap();
    let smollm2 = room.load(&source("smollm2.gguf")).unwrap();
    assert!(Arc::ptr_eq(&smollm2, &room.load(&source("smollm2.gguf")).unwrap()));
    assert_eq!(room.status().memory_bytes, smollm2.bytes());
    assert!(smollm2.chat_format().is_some());

    let prompt = smollm2.text().encode("The capital of France is").unwrap();
    let greedy = Request { sampling: SamplingParams::greedy(), ..Request::new(prompt, 8) };
    let plain = text(submit(&room, &smollm2, greedy.clone()));
    assert!(plain.contains("Paris"), "{plain:?}");
    let source_of_digits = ConstraintSource::Regex("[0-9]{3}".to_owned());
    let constraint = Some(smollm2.constraints().compile(&source_of_digits).unwrap());
    let digits = text(submit(&room, &smollm2, Request { constraint, ..greedy.clone() }));
    assert!(digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()), "{digits:?}");

    adapters(&room, &smollm2, &greedy);

    // An embedding over several steps is that of a single one.
    let long = smollm2.text().encode(&"A fly-wheel stores energy. ".repeat(20)).unwrap();
    assert!(long.len() > 100);
    let request =
        Request { embedding: true, mode: BatchMode::Exact, ..Request::new(long.clone(), 0) };
    let (events, _) = wait(submit(&room, &smollm2, request));
    let [EventKind::Embedding(embedding)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*embedding, embedding_of(&long));

    // The other model does not fit beside this one, unless this one may go.
    let refused = room.load(&source("gemma3.gguf")).err().unwrap();
    assert!(matches!(refused, RoomError::Memory { evicts: false, .. }), "{refused}");
    let gemma3 = room.load(&ModelSource { evict_idle: true, ..source("gemma3.gguf") }).unwrap();
    assert!(room.model(&smollm2.digest()).is_none());
    assert_eq!(room.status().memory_bytes, gemma3.bytes());
    let tiny = ModelSource { kv_bytes_max: 10, ..source("smollm2.gguf") };
    assert!(matches!(room.load(&tiny), Err(RoomError::KvCacheTooSmall { found: 10, .. })));
}
