//! SmolLM2 through suites of all kinds: what is measured is what the engine says, whatever is
//! computed together, and a run that was broken off ends like one that was not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use feilun_eval::results::{Evaluation, Evaluations, Identity, Manifest, ResultsError};
use feilun_eval::run::{Answer, Encoder, Ended, ItemResult, Settings, Workload, run};
use feilun_eval::suite::{Suite, names};
use feilun_infer::{Engine, EngineConfig, ModelText};
use feilun_kernels::Pool;
use feilun_model::{BatchMode, Model, ModelFiles, Session, SessionOptions};

struct World {
    engine: Engine<Session>,
    encoder: Encoder,
    text: ModelText,
}

/// Room for what a judge is asked, short enough that a page takes several windows.
const WINDOW: usize = 192;

fn world() -> World {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join("smollm2.gguf");
    assert!(path.exists(), "{path:?} is missing: run the tests with `cargo xtask test`");
    let files = ModelFiles::open(&path).unwrap();
    let text = ModelText::open(&files).unwrap();
    let chat = Arc::new(text.chat_format(&files).unwrap().unwrap());
    let mut pool = Pool::new(2).unwrap();
    let model = Arc::new(Model::load(&files, &mut pool).unwrap());
    let options = SessionOptions {
        max_rows: 128,
        max_logit_rows: 65,
        num_blocks: 64,
        ..SessionOptions::new(files.config())
    };
    let session = Session::new(model, pool, options).unwrap();
    let start = Instant::now();
    let clock = Box::new(move || start.elapsed());
    let engine = Engine::new(session, text.vocabulary(), EngineConfig::default(), clock);
    let encoder = Encoder::new(text.clone(), chat, WINDOW);
    World { engine, encoder, text }
}

fn suite() -> Suite {
    let long = "The tide comes in and the tide goes out, and nobody asks it why. ".repeat(30);
    let mut lines = String::from(
        r#"{"suite":"all","scorer":{"kind":"contains"},"max_tokens":8}
{"id":"capital","prompt":"The capital of France is","reference":["Paris"],"skill":"recall"}
{"id":"chat","messages":[{"role":"user","content":"What is the capital of France?"}],"reference":["Paris"],"max_tokens":24,"skill":"recall"}
{"id":"hot","prompt":"The opposite of hot is","choices":["cold","banana","very hot"],"answer":0}
{"id":"begin","prompt":"","choices":["The","zzqx"],"answer":0}
{"id":"spaces","prompt":"Two plus two equals \n ","choices":["four","fourteen thousand"],"answer":0}
{"id":"better","messages":[{"role":"user","content":"Say hello."}],"chosen":"Hello! How can I help you today?","rejected":"qpx zzv 13 13 13"}
{"id":"judge","prompt":"2+2?","first":"4","second":"A banana.","label":"first"}
{"id":"short","text":"Hi."}
"#,
    );
    lines += &format!("{{\"id\":\"long\",\"text\":\"{long}\"}}\n");
    lines += &format!("{{\"id\":\"too-long\",\"prompt\":\"{long}\",\"reference\":[\"x\"]}}\n");
    Suite::read(lines.as_bytes(), "all").unwrap().unwrap()
}

fn settings() -> Settings {
    Settings { seed: 1, temperature: 0.0, adapter: None, mode: BatchMode::Fast }
}

/// Results by item; `order` says which items, in which order.
fn results(
    world: &mut World,
    suite: &Suite,
    order: &[usize],
    settings: &Settings,
) -> Vec<ItemResult> {
    let workload = Workload::new(suite, order.iter().copied(), &world.encoder);
    let mut found = Vec::new();
    let ended = run(suite, workload, &mut world.engine, settings, &|| false, &mut |results| {
        found.extend_from_slice(results);
        Ok::<(), Infallible>(())
    });
    assert_eq!(ended.unwrap(), Ended::Finished);
    let place = |result: &ItemResult| suite.items().iter().position(|item| item.id == result.id);
    found.sort_by_key(place);
    found
}

fn of<'r>(results: &'r [ItemResult], id: &str) -> &'r ItemResult {
    results.iter().find(|result| result.id == id).unwrap()
}

#[test]
fn measured_is_what_the_model_says() {
    let mut world = world();
    let suite = suite();
    let all: Vec<usize> = (0..suite.items().len()).collect();
    let found = results(&mut world, &suite, &all, &settings());
    assert_eq!(found.len(), suite.items().len());

    // The same in another order, one by one, and with other neighbours in the cache.
    let backwards: Vec<usize> = all.iter().rev().copied().collect();
    assert_eq!(results(&mut world, &suite, &backwards, &settings()), found);
    for &index in &all {
        let alone = results(&mut world, &suite, &[index], &settings());
        assert_eq!(alone, found[index..=index]);
    }

    let capital = of(&found, "capital");
    assert_eq!(capital.problem, None, "{capital:?}");
    assert_eq!(capital.metrics[names::SCORE], [1.0, 1.0]);
    assert_eq!(capital.skill.as_deref(), Some("recall"));
    assert!(matches!(&capital.answer, Some(Answer::Text { text, .. }) if text.contains("Paris")));
    assert_eq!(of(&found, "chat").metrics[names::SCORE], [1.0, 1.0]);
    for id in ["hot", "begin", "spaces"] {
        assert_eq!(of(&found, id).metrics[names::ACC], [1.0, 1.0], "{id}");
        // What all tasks have in common.
        assert_eq!(of(&found, id).metrics[names::SCORE], [1.0, 1.0], "{id}");
    }
    assert_eq!(of(&found, "better").metrics[names::PREFERENCE], [1.0, 1.0]);
    let judge = of(&found, "judge");
    let num_unparsable = judge.metrics[names::UNPARSABLE][0];
    assert_eq!(num_unparsable > 0.0, !judge.metrics.contains_key(names::AGREEMENT));
    let problem = of(&found, "too-long").problem.as_deref().unwrap();
    assert!(problem.contains("exceed 193"), "{problem}");
    assert!(of(&found, "too-long").metrics.is_empty());
}

/// Log-likelihoods are those of `Engine::score`, summed by hand.
#[test]
fn log_likelihoods_are_sums_over_the_right_tokens() {
    let mut world = world();
    let suite = suite();
    let all: Vec<usize> = (0..suite.items().len()).collect();
    let found = results(&mut world, &suite, &all, &settings());
    let encode = |text: &str| world.text.encode(text).unwrap();
    let bos = world.text.tokenizer.bos().unwrap();
    let mut sum = |tokens: &[u32], from: usize| -> f64 {
        let scored = world.engine.score(tokens.to_vec(), None, BatchMode::Fast).unwrap().unwrap();
        scored[from - 1..].iter().map(|&logprob| f64::from(logprob)).sum()
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * a.abs().max(1.0), "{a} and {b}");

    let Some(Answer::Choices { logprobs, .. }) = &of(&found, "hot").answer else { panic!() };
    let from = encode("The opposite of hot is").len();
    for (choice, &logprob) in ["cold", "banana", "very hot"].iter().zip(logprobs) {
        close(sum(&encode(&format!("The opposite of hot is {choice}")), from), logprob);
    }
    // Spaces at a prompt's end belong to what follows them.
    let Some(Answer::Choices { logprobs, .. }) = &of(&found, "spaces").answer else { panic!() };
    let from = encode("Two plus two equals").len();
    close(sum(&encode("Two plus two equals \n  four"), from), logprobs[0]);
    // Nothing before: the token that begins texts.
    let Some(Answer::Choices { logprobs, .. }) = &of(&found, "begin").answer else { panic!() };
    close(sum(&[vec![bos], encode(" The")].concat(), 1), logprobs[0]);

    let text = "The tide comes in and the tide goes out, and nobody asks it why. ".repeat(30);
    let tokens = encode(&text);
    assert!(tokens.len() > 2 * WINDOW, "{}", tokens.len());
    let mut expected = sum(&[&[bos], &tokens[..WINDOW]].concat(), 1);
    let mut predicted = WINDOW;
    while predicted < tokens.len() {
        let end = (predicted + WINDOW).min(tokens.len());
        let window = &tokens[end - WINDOW - 1..end];
        expected += sum(window, window.len() - (end - predicted));
        predicted = end;
    }
    let long = of(&found, "long");
    let Some(Answer::Likelihood { logprob, tokens: num_tokens, bytes }) = &long.answer else {
        panic!()
    };
    close(expected, *logprob);
    assert_eq!((*num_tokens, *bytes), (tokens.len(), text.len()));
    let bits = &long.metrics[names::BITS_PER_BYTE];
    close(bits[0], -expected / std::f64::consts::LN_2);
    assert_eq!(bits[1], text.len() as f64);
}

#[test]
fn seeds_belong_to_items() {
    let mut world = world();
    let lines: String = (0..6)
        .map(|n| format!("{{\"id\":\"i{n}\",\"prompt\":\"Once upon a time\",\"reference\":[\"x\"],\"scorer\":{{\"kind\":\"contains\"}},\"max_tokens\":6}}\n"))
        .collect();
    let suite = Suite::read(lines.as_bytes(), "seeds").unwrap().unwrap();
    let warm = |seed| Settings { seed, temperature: 1.0, ..settings() };
    let first = results(&mut world, &suite, &[0, 1, 2, 3, 4, 5], &warm(7));
    assert_eq!(
        results(&mut world, &suite, &[4, 2], &warm(7)),
        [first[2].clone(), first[4].clone()]
    );
    assert_ne!(results(&mut world, &suite, &[0, 1, 2, 3, 4, 5], &warm(8)), first);
    let answers = |results: &[ItemResult]| -> Vec<String> {
        let text = |result: &ItemResult| match &result.answer {
            Some(Answer::Text { text, .. }) => text.clone(),
            other => panic!("{other:?}"),
        };
        results.iter().map(text).collect()
    };
    let mut texts = answers(&first);
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 1, "equal prompts draw the same: {texts:?}");
}

fn manifest(suite: &Suite) -> Manifest {
    let identity = Identity {
        suite_digest: suite.digest().to_hex().to_string(),
        model_digest: "m".into(),
        adapter_digest: None,
        limit: None,
        seed: 1,
        temperature: 0.0,
        numerics: "native".into(),
        exact: false,
        window: WINDOW,
        version: "0".into(),
    };
    Manifest {
        id: identity.id(),
        suite: suite.name().into(),
        model: "smollm2".into(),
        adapter: None,
        num_items: suite.items().len(),
        metrics: suite.metrics().to_vec(),
        begun: 1,
        finished: None,
        seconds: 0.0,
        identity,
    }
}

/// Evaluates what is left, and stops after so many steps. The evaluation, if it is finished.
fn take_up(
    world: &mut World,
    suite: &Suite,
    root: &Evaluations,
    steps: usize,
) -> Option<Evaluation> {
    let mut ongoing = root.begin(manifest(suite), suite, false).unwrap();
    let left = (0..suite.items().len()).filter(|&i| !ongoing.done().contains(&suite.items()[i].id));
    let workload = Workload::new(suite, left.collect::<Vec<_>>(), &world.encoder);
    let left = Cell::new(steps);
    let stop = || left.replace(left.get().saturating_sub(1)) == 0;
    let ended = run(suite, workload, &mut world.engine, &settings(), &stop, &mut |results| {
        ongoing.keep(results)
    });
    match ended.unwrap() {
        Ended::Finished => Some(ongoing.finish(suite).unwrap()),
        Ended::Stopped => {
            ongoing.pause().unwrap();
            None
        }
    }
}

#[test]
fn broken_off_and_damaged_evaluations_end_like_undisturbed_ones() {
    let suite = suite();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [calm, wild] = [0, 1].map(|i| Evaluations::new(folders[i].path()));
    let undisturbed = take_up(&mut world(), &suite, &calm, usize::MAX).unwrap();
    let id = undisturbed.manifest.id.clone();
    let items = |root: &Evaluations| root.folder(&id).join("items.jsonl");

    // Broken off again and again; what was being computed is lost with the engine, and each time
    // the file gets a torn line.
    let mut num_stops = 0;
    let finished = loop {
        if let Some(finished) = take_up(&mut world(), &suite, &wild, 4 + num_stops) {
            break finished;
        }
        num_stops += 1;
        let mut bytes = std::fs::read(items(&wild)).unwrap();
        bytes.extend(br#"{"id":"short","metr"#);
        std::fs::write(items(&wild), bytes).unwrap();
    };
    assert!(num_stops > 2, "{num_stops}");
    assert_eq!(finished.results, undisturbed.results);
    assert_eq!(std::fs::read(items(&wild)).unwrap(), std::fs::read(items(&calm)).unwrap());
    assert_eq!(wild.find(&id[..5]).unwrap().results, undisturbed.results);
    assert_eq!(wild.suite(&finished.manifest).unwrap(), suite);

    // A finished one stays as it is; a damaged one says so, and is mended by going on.
    let before = wild.find(&id).unwrap().manifest;
    take_up(&mut world(), &suite, &wild, usize::MAX).unwrap();
    assert_eq!(wild.find(&id).unwrap().manifest, before);
    let mut bytes = std::fs::read(items(&wild)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 9].fill(0);
    std::fs::write(items(&wild), bytes).unwrap();
    assert!(matches!(wild.find(&id), Err(ResultsError::Item { .. })));
    take_up(&mut world(), &suite, &wild, usize::MAX).unwrap();
    assert_eq!(std::fs::read(items(&wild)).unwrap(), std::fs::read(items(&calm)).unwrap());
}

#[test]
fn an_evaluation_is_worked_on_by_one_process() {
    let suite = suite();
    let folder = tempfile::tempdir().unwrap();
    let root = Evaluations::new(folder.path());
    let _held = root.begin(manifest(&suite), &suite, false).unwrap();
    let error = root.begin(manifest(&suite), &suite, false).unwrap_err();
    assert!(matches!(error, ResultsError::Locked { .. }), "{error}");
    let error = root.find("ffff").unwrap_err();
    assert!(matches!(error, ResultsError::NotFound { .. }), "{error}");
}
