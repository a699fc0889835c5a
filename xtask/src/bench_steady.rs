//! `cargo xtask bench steady`: half an hour of mixed load on one server, with a thousand clients
//! that dawdle or vanish. Does memory stay, is a place never given back, do the others wait?

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;

use crate::bench_serve::client;
use crate::bench_serve::load::{chat, chatting, percentile_ms, words};
use crate::server::Server;
use crate::{models, say, side_by_side};

/// Load a server with a mix of everything, and watch its memory and its places
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Threads of the server; without it one per processor
    #[arg(long)]
    threads: Option<usize>,
    /// The feilun program; built in release mode where not given
    #[arg(long)]
    feilun: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Clients whose time between tokens is measured.
const NUM_CHATTERS: usize = 4;
/// Connections that are open and send nothing, or half of something, or read nothing.
const NUM_DAWDLERS: usize = 1000;
/// One in so many of them sends all of a request, and reads nothing of the answer.
const UNREAD_EVERY: usize = 20;
/// How long one of them stays.
const DAWDLING_TIME: Duration = Duration::from_secs(40);
/// Clients that leave in the middle of an answer.
const NUM_VANISHERS: usize = 2;
/// The chatters alone, before everything else begins.
const IDLE_TIME: Duration = Duration::from_secs(20);
const SAMPLE_TIME: Duration = Duration::from_secs(5);
/// What the server may take to be idle again: the longest of its own limits and a little more.
const CALM_TIME: Duration = Duration::from_secs(90);
/// Of the samples, those in which caches and the allocator are still growing.
const WARM_UP_SHARE: f64 = 0.2;
/// How much memory may grow after that: a twentieth, and what an allocator may keep.
const GROWTH_MAX: (f64, f64) = (1.05, 32.0);

/// A look at the server.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    minutes: f64,
    resident_mib: f64,
    running: f64,
    waiting: f64,
    connections: f64,
    /// Of the chatters, since the sample before.
    inter_token_p99_ms: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    minutes: f64,
    idle_inter_token_p99_ms: f64,
    inter_token_p99_ms: f64,
    /// Of the two.
    ratio: f64,
    chats: u64,
    other_requests: u64,
    vanished: u64,
    dawdled: u64,
    /// Of chats and other requests: refused or broken off.
    failed: u64,
    first_failure: Option<String>,
    resident_mib_warm: f64,
    resident_mib_max: f64,
    resident_mib_end: f64,
    is_memory_flat: bool,
    /// At the end, after everybody has left.
    stuck_requests: f64,
    open_connections: f64,
    seconds_until_idle: f64,
    samples: Vec<Sample>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !(0.1..=10_000.0).contains(&arguments.minutes) {
        bail!("--minutes {}: expected 0.1 to 10000", arguments.minutes);
    }
    allow_many_sockets()?;
    let model = models::fetch()?.join("smollm2.gguf");
    let feilun = side_by_side::feilun(arguments.feilun.as_deref())?;
    let data = std::env::temp_dir().join(format!("feilun-bench-steady-{}", std::process::id()));
    let measured = measure(arguments, &feilun, &data, &model);
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let report = measured?;
    let text = if arguments.json { serde_json::to_string_pretty(&report)? } else { report.table() };
    crate::say_to_stdout(&text);
    Ok(())
}

/// For us and for the server, which inherits it.
fn allow_many_sockets() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

fn measure(
    arguments: &Arguments,
    feilun: &Path,
    data: &Path,
    model: &Path,
) -> anyhow::Result<Report> {
    let threads = arguments.threads.map(|threads| threads.to_string());
    let more: Vec<&str> = threads.iter().flat_map(|count| ["--threads", count]).collect();
    let server = Server::start(feilun, data, model, &more)?;
    let address = server.address;
    say("the chatters alone");
    let (idle, _) = chatting(address, NUM_CHATTERS, IDLE_TIME, None)?;
    say("everybody");
    let counts = Counts::default();
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(arguments.minutes * 60.0);
    let stop = AtomicBool::new(false);
    let samples = std::thread::scope(|scope| {
        let (counts, stop) = (&counts, &stop);
        let until_stopped = move |act: &dyn Fn(&Counts)| {
            while !stop.load(Ordering::Relaxed) {
                act(counts);
            }
        };
        for _ in 0..NUM_CHATTERS {
            scope.spawn(move || until_stopped(&|counts| chatter(address, counts)));
        }
        scope.spawn(move || until_stopped(&|counts| various(address, counts)));
        for _ in 0..NUM_VANISHERS {
            scope.spawn(move || until_stopped(&|counts| vanish(address, counts)));
        }
        scope.spawn(move || dawdle(address, counts, stop));
        let samples = watch(&server, counts, start, deadline);
        stop.store(true, Ordering::Relaxed);
        samples
    })?;
    say("nobody any more");
    let left = Instant::now();
    let last = loop {
        let sample = sample(&server, start, f64::NAN)?;
        // This very question is a connection.
        let is_idle = sample.running + sample.waiting == 0.0 && sample.connections <= 1.0;
        if is_idle || left.elapsed() > CALM_TIME {
            break sample;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    Ok(counts.report(&idle, samples, &last, left.elapsed()))
}

/// What the clients found.
#[derive(Default)]
struct Counts {
    chats: AtomicU64,
    other_requests: AtomicU64,
    vanished: AtomicU64,
    dawdled: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
    /// Gaps since the last sample, and all.
    gaps: Mutex<Vec<Duration>>,
    all_gaps: Mutex<Vec<Duration>>,
}

impl Counts {
    fn count<T>(&self, counter: &AtomicU64, result: anyhow::Result<T>) -> Option<T> {
        counter.fetch_add(1, Ordering::Relaxed);
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut first) = self.first_failure.lock() {
            first.get_or_insert_with(|| format!("{error:#}"));
        }
        // Whoever is refused comes back later.
        std::thread::sleep(Duration::from_millis(500));
        None
    }

    /// The gaps since the last call.
    fn take_gaps(&self) -> Vec<Duration> {
        let new = self.gaps.lock().map(|mut gaps| std::mem::take(&mut *gaps)).unwrap_or_default();
        if let Ok(mut all) = self.all_gaps.lock() {
            all.extend(&new);
        }
        new
    }

    fn report(
        self,
        idle: &[Duration],
        samples: Vec<Sample>,
        last: &Sample,
        until_idle: Duration,
    ) -> Report {
        self.take_gaps();
        let gaps = self.all_gaps.into_inner().unwrap_or_default();
        let (idle, loaded) = (percentile_ms(idle, 0.99), percentile_ms(&gaps, 0.99));
        let num_warm = (samples.len() as f64 * WARM_UP_SHARE) as usize;
        let warm = samples.get(num_warm).map_or(f64::NAN, |sample| sample.resident_mib);
        let later = samples.iter().skip(num_warm).map(|sample| sample.resident_mib);
        let max = later.fold(f64::NAN, f64::max);
        let end = samples.last().map_or(f64::NAN, |sample| sample.resident_mib);
        let (factor, more) = GROWTH_MAX;
        Report {
            minutes: samples.last().map_or(0.0, |sample| sample.minutes),
            idle_inter_token_p99_ms: idle,
            inter_token_p99_ms: loaded,
            ratio: loaded / idle,
            chats: self.chats.into_inner(),
            other_requests: self.other_requests.into_inner(),
            vanished: self.vanished.into_inner(),
            dawdled: self.dawdled.into_inner(),
            failed: self.failed.into_inner(),
            first_failure: self.first_failure.into_inner().unwrap_or_default(),
            resident_mib_warm: warm,
            resident_mib_max: max,
            resident_mib_end: end,
            is_memory_flat: end <= warm * factor + more,
            stuck_requests: last.running + last.waiting,
            open_connections: last.connections - 1.0,
            seconds_until_idle: until_idle.as_secs_f64(),
            samples,
        }
    }
}

fn chatter(address: SocketAddr, counts: &Counts) {
    let streamed = client::stream(address, &chat(&words(48), 96));
    if let Some(streamed) = counts.count(&counts.chats, streamed)
        && let Ok(mut gaps) = counts.gaps.lock()
    {
        gaps.extend(streamed.gaps);
    }
}

/// One of everything else that can be asked: a long prompt, a schema, feedback, scores, vectors.
fn various(address: SocketAddr, counts: &Counts) {
    let ask = |path: &str, body: &serde_json::Value| {
        counts.count(&counts.other_requests, client::ask(address, path, body))
    };
    let long = client::stream(address, &chat(&words(1000), 8));
    if let Some(long) = counts.count(&counts.other_requests, long) {
        ask("/v1/feedback", &json!({"turn_id": long.id, "kind": "rating", "value": true}));
    }
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let messages = json!([{"role": "user", "content": words(16)}]);
    ask(
        "/v1/chat/completions",
        &json!({"model": "smollm2", "messages": messages, "max_tokens": 32, "n": 2,
            "response_format": format}),
    );
    ask(
        "/v1/completions",
        &json!({"model": "smollm2", "prompt": [words(64), words(64)], "echo": true, "logprobs": 1,
            "max_tokens": 0}),
    );
    ask("/v1/embeddings", &json!({"model": "smollm2", "input": words(64)}));
    std::thread::sleep(Duration::from_millis(500));
}

/// Asks for a long answer, and leaves at some moment of it.
fn vanish(address: SocketAddr, counts: &Counts) {
    let number = counts.vanished.fetch_add(1, Ordering::Relaxed);
    let request = client::request(address, "/v1/chat/completions", &chat(&words(64), 400));
    if let Ok(mut socket) = TcpStream::connect(address) {
        // It may be shown out at any moment; that is no failure.
        let _ = socket.write_all(request.as_bytes());
        std::thread::sleep(Duration::from_millis(number * 37 % 400));
    }
    std::thread::sleep(Duration::from_millis(400));
}

/// Keeps a thousand connections that do nothing useful; the oldest makes room for the next.
fn dawdle(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    let mut open: VecDeque<(Instant, TcpStream)> = VecDeque::with_capacity(NUM_DAWDLERS);
    while !stop.load(Ordering::Relaxed) {
        while open.front().is_some_and(|(since, _)| since.elapsed() > DAWDLING_TIME) {
            open.pop_front();
        }
        if open.len() < NUM_DAWDLERS
            && let Ok(mut socket) = TcpStream::connect(address)
        {
            let number = counts.dawdled.fetch_add(1, Ordering::Relaxed) as usize;
            let request = client::request(address, "/v1/chat/completions", &chat(&words(16), 64));
            let part = match number % 3 {
                _ if number.is_multiple_of(UNREAD_EVERY) => request.len(),
                0 => 0,
                1 => request.len() / 8,
                _ => request.len() - 10,
            };
            let _ = socket.write_all(&request.as_bytes()[..part]);
            open.push_back((Instant::now(), socket));
        }
        // A thousand within some twenty seconds.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Looks at the server until `deadline`.
fn watch(
    server: &Server,
    counts: &Counts,
    start: Instant,
    deadline: Instant,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    while Instant::now() < deadline {
        std::thread::sleep(SAMPLE_TIME.min(deadline.saturating_duration_since(Instant::now())));
        let p99 = percentile_ms(&counts.take_gaps(), 0.99);
        let sample = sample(server, start, p99)?;
        if samples.len().is_multiple_of(12) {
            say(&sample.line());
        }
        samples.push(sample);
    }
    Ok(samples)
}

fn sample(server: &Server, start: Instant, p99: f64) -> anyhow::Result<Sample> {
    let page = client::get(server.address, "/metrics").context("the server does not answer")?;
    let figure = |name: &str| -> f64 {
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Ok(Sample {
        minutes: start.elapsed().as_secs_f64() / 60.0,
        resident_mib: resident_mib(server.id())?,
        running: figure("feilun_requests_running{"),
        waiting: figure("feilun_requests_waiting{"),
        connections: figure("feilun_connections "),
        inter_token_p99_ms: p99,
    })
}

fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("/proc tells no VmRSS")? / 1024.0)
}

impl Sample {
    fn line(&self) -> String {
        format!(
            "{:6.1} min {:8.0} MiB {:4} running {:4} waiting {:5} connections  p99 {:7.1} ms",
            self.minutes,
            self.resident_mib,
            self.running,
            self.waiting,
            self.connections,
            self.inter_token_p99_ms
        )
    }
}

impl Report {
    /// For people: a line for each twentieth of the time, and what follows from all.
    fn table(&self) -> String {
        let mut text = String::new();
        let step = (self.samples.len() / 20).max(1);
        for sample in self.samples.iter().step_by(step) {
            let _ = writeln!(text, "{}", sample.line());
        }
        let _ = writeln!(
            text,
            "\nmemory: {:.0} MiB when warm, {:.0} at most, {:.0} at the end: {}",
            self.resident_mib_warm,
            self.resident_mib_max,
            self.resident_mib_end,
            if self.is_memory_flat { "flat" } else { "GROWS" }
        );
        let _ = writeln!(
            text,
            "between tokens: p99 {:.1} ms, alone {:.1} ms: {:.2}x (goal: at most 2)",
            self.inter_token_p99_ms, self.idle_inter_token_p99_ms, self.ratio
        );
        let _ = writeln!(
            text,
            "asked: {} chats, {} others, of which {} failed ({}); {} vanished, {} dawdled",
            self.chats,
            self.other_requests,
            self.failed,
            self.first_failure.as_deref().unwrap_or("none"),
            self.vanished,
            self.dawdled
        );
        let _ = write!(
            text,
            "afterwards: {} requests stuck, {} connections open, after {:.1} s",
            self.stuck_requests, self.open_connections, self.seconds_until_idle
        );
        text
    }
}
