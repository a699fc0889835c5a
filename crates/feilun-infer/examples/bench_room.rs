//! What prompts cost those who are waiting for tokens, and what a cached prefix saves.
//!
//! `cargo run --release -p feilun-infer --example bench_room -- MODEL [CLIENTS [THREADS [TARGET_MS [SLOWDOWN]]]]`

#![allow(clippy::print_stdout, reason = "a measurement is for reading")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use feilun_infer::Request;
use feilun_infer::event::{EventKind, Finish, FinishReason};
use feilun_infer::room::{
    ModelSource, ResidentModel, Room, RoomConfig, Submission, Tenant, Ticket,
};

const PROMPT_TOKENS: usize = 4000;
/// Few, so that the clients' own prompts do not count.
const QUESTION_TOKENS: usize = 8;
const ANSWER_TOKENS: usize = 300;
/// Shorter than the prompt takes.
const PHASE: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let path =
        args.next().ok_or("usage: bench_room MODEL [CLIENTS [THREADS [TARGET_MS [SLOWDOWN]]]]")?;
    let num_clients: u8 = args.next().map_or(Ok(4), |arg| arg.parse())?;
    let threads = args.next().map_or(Ok(2), |arg| arg.parse())?;
    let mut config = RoomConfig::new(threads, 8 << 30);
    if let Some(millis) = args.next() {
        config.inter_token_target = Duration::from_millis(millis.parse()?);
    }
    if let Some(slowdown) = args.next() {
        config.slowdown_max = slowdown.parse()?;
    }
    println!(
        "{num_clients} clients, {threads} threads, target {:?} or {} times",
        config.inter_token_target, config.slowdown_max
    );
    let room = Room::start(config)?;
    let source = ModelSource { kv_bytes_max: 2 << 30, ..ModelSource::new(path) };
    let model = room.load(&source)?;
    first_token(&room, &model)?;
    let alone = prompts_alone(&room, &model)?;
    company(&room, &model, num_clients, alone)
}

/// Tokens that no other prompt begins with.
fn tokens(model: &ResidentModel, seed: usize, len: usize) -> Vec<u32> {
    let vocab_size = model.config().vocab_size.min(model.text().tokenizer.vocab_size());
    (0..len).map(|i| ((seed * 7919 + i * (104_729 + seed) + 11) % vocab_size) as u32).collect()
}

/// Submits a request whose end comes through the channel.
fn ask(
    room: &Room,
    model: &Arc<ResidentModel>,
    tenant: u8,
    request: Request,
) -> Outcome<(Ticket, Receiver<Finish>)> {
    let (sender, ends) = channel();
    let sink = Box::new(move |kind| {
        if let EventKind::Finished(finish) = kind {
            let _ = sender.send(finish);
        }
        ControlFlow::Continue(())
    });
    let tenant = Tenant::new([tenant; 16]);
    let model = Arc::clone(model);
    Ok((room.submit(Submission { model, request, tenant, sink })?, ends))
}

/// The end of a request, which must not be a failure.
fn end(ends: &Receiver<Finish>) -> Outcome<Finish> {
    let finish = ends.recv()?;
    match finish.reason {
        FinishReason::Failed(error) => Err(error.into()),
        _ => Ok(finish),
    }
}

fn first_token(room: &Room, model: &Arc<ResidentModel>) -> Outcome<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for seed in 0..5 {
        let mut prompt = tokens(model, 100 + seed, 1000);
        for times in [&mut without, &mut with] {
            let (_ticket, ends) = ask(room, model, 0, Request::new(prompt.clone(), 1))?;
            times.push(end(&ends)?.timings.first_token.unwrap_or_default());
            // Another question after the same 960 tokens.
            for token in &mut prompt[960..] {
                *token = (*token + 1) % 1000;
            }
        }
    }
    let (without, with) = (median(&mut without), median(&mut with));
    let ratio = without.as_secs_f64() / with.as_secs_f64();
    println!(
        "first token of a prompt of 1,000: {without:.1?}; 960 of them cached: {with:.1?}; {ratio:.1}x"
    );
    Ok(())
}

/// Prompt tokens per second while nobody else is there.
fn prompts_alone(room: &Room, model: &Arc<ResidentModel>) -> Outcome<f64> {
    let mut times = Vec::new();
    for seed in 0..3 {
        let prompt = tokens(model, 200 + seed, PROMPT_TOKENS);
        let (_ticket, ends) = ask(room, model, 0, Request::new(prompt, 1))?;
        times.push(end(&ends)?.timings.finished);
    }
    let speed = PROMPT_TOKENS as f64 / median(&mut times).as_secs_f64();
    println!("prompts of {PROMPT_TOKENS} alone: {speed:.0} tokens/s");
    Ok(speed)
}

/// Clients that ask one question after the other, and the times between the tokens of an answer.
struct Clients {
    gaps: Arc<Mutex<Vec<Duration>>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    fn start(room: &Room, model: &Arc<ResidentModel>, num_clients: u8) -> Clients {
        let gaps = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (1..=num_clients).map(|client| {
            let (room, model) = (room.clone(), Arc::clone(model));
            let (gaps, is_over) = (Arc::clone(&gaps), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let prompt =
                        tokens(&model, usize::from(client) * 1000 + round, QUESTION_TOKENS);
                    answer(&room, &model, client, prompt, &gaps).map_err(|e| e.to_string())?;
                    round += 1;
                }
                Ok(())
            })
        });
        Clients { threads: threads.collect(), gaps, is_over }
    }

    /// Median and 99th percentile of the gaps since the last call, and their number.
    fn take(&self) -> Outcome<(Duration, Duration, usize)> {
        let mut gaps = std::mem::take(&mut *self.gaps.lock().map_err(|_| "a sink panicked")?);
        gaps.sort_unstable();
        let at = |share: f64| gaps.get((gaps.len() as f64 * share) as usize).copied();
        let (Some(median), Some(p99)) = (at(0.5), at(0.99)) else { return Err("no tokens".into()) };
        Ok((median, p99, gaps.len()))
    }

    fn stop(self) -> Outcome<()> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    }
}

/// One answer of [`ANSWER_TOKENS`].
fn answer(
    room: &Room,
    model: &Arc<ResidentModel>,
    client: u8,
    prompt: Vec<u32>,
    gaps: &Arc<Mutex<Vec<Duration>>>,
) -> Outcome<()> {
    let (sender, ends) = channel();
    let gaps = Arc::clone(gaps);
    let mut last: Option<Instant> = None;
    let sink = Box::new(move |kind| {
        match kind {
            EventKind::Token(_) => {
                let now = Instant::now();
                if let (Some(last), Ok(mut gaps)) = (last.replace(now), gaps.lock()) {
                    gaps.push(now - last);
                }
            }
            EventKind::Finished(finish) => {
                let _ = sender.send(finish);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let request = Request { ignore_end_tokens: true, ..Request::new(prompt, ANSWER_TOKENS) };
    let (model, tenant) = (Arc::clone(model), Tenant::new([client; 16]));
    let _ticket = room.submit(Submission { model, request, tenant, sink })?;
    end(&ends).map(drop)
}

fn company(room: &Room, model: &Arc<ResidentModel>, num_clients: u8, alone: f64) -> Outcome<()> {
    let clients = Clients::start(room, model, num_clients);
    std::thread::sleep(Duration::from_secs(2));
    clients.take()?;
    for round in 0..2 {
        std::thread::sleep(PHASE);
        let (idle_median, idle_p99, num_idle) = clients.take()?;
        let start = Instant::now();
        let before = prompt_rows(room);
        let prompt = tokens(model, 300 + round, PROMPT_TOKENS);
        let (ticket, _ends) = ask(room, model, 200, Request::new(prompt, 1))?;
        while start.elapsed() < PHASE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let rows = prompt_rows(room) - before;
        drop(ticket);
        let (median, p99, num_busy) = clients.take()?;
        let ratio = p99.as_secs_f64() / idle_p99.as_secs_f64();
        println!("between tokens, idle: median {idle_median:.1?}, p99 {idle_p99:.1?} ({num_idle})");
        println!(
            "beside a prompt: median {median:.1?}, p99 {p99:.1?} ({num_busy}); p99 {ratio:.2}x idle"
        );
        let speed = rows as f64 / PHASE.as_secs_f64();
        println!("all prompts: {speed:.0} tokens/s, {:.0} % of alone", 100.0 * speed / alone);
    }
    clients.stop()
}

fn prompt_rows(room: &Room) -> u64 {
    room.status().models.iter().map(|model| model.totals.prompt_rows).sum()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
