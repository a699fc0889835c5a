//! `feilun bench serve`: what the server itself costs, without a model.
//!
//! A server in this process with a stub for the engine, asked over loopback at a fixed rate: a
//! request is due when the clock says so, whether those before are answered or not, and its
//! time runs from then (an open loop; a closed one would hide the waiting).

use std::sync::Arc;
use std::time::{Duration, Instant};

use feilun_server::stub::{StubBackend, StubOptions};
use feilun_server::{Parts, ServerConfig};
use feilun_store::{Store, StoreOptions, StoreUrl};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::commands::Session;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Measure what the server costs per request, with a stub in the engine's place
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun bench serve
  feilun bench serve --rate 500 --seconds 20 --json
  feilun bench serve --no-capture")]
pub(crate) struct ServeArgs {
    /// Requests in a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Tokens of each answer
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    tokens: u32,
    /// Do not record turns, to see what recording costs
    #[arg(long)]
    no_capture: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    requests: usize,
    requests_per_second: f64,
    tokens_per_second: f64,
    capture: bool,
    failed: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub(crate) fn run(args: &ServeArgs, session: &Session) -> Outcome {
    let folder = session.data.path().join(format!("bench-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(args, &folder);
    std::fs::remove_dir_all(&folder)?;
    let report = measured?;
    if args.json {
        return output::json(&report);
    }
    output::data(format!(
        "{} requests, {:.0}/s, capture {}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {} failed",
        report.requests,
        report.requests_per_second,
        if report.capture { "on" } else { "off" },
        report.p50_ms,
        report.p90_ms,
        report.p99_ms,
        report.max_ms,
        report.failed
    ))
}

/// On the disk of the data directory: a commit costs what that disk takes.
fn measure(args: &ServeArgs, folder: &std::path::Path) -> Outcome<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = StoreUrl::sqlite(folder.join("feilun.db"));
        let store = Store::open(&url, StoreOptions::new(folder.join("blobs"))).await?;
        let stub = Arc::new(StubBackend::new(StubOptions {
            running_max: 100_000,
            answer: Some("x".repeat(args.tokens as usize)),
            ..StubOptions::default()
        })?);
        let mut config = ServerConfig::new(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        config.capture = !args.no_capture;
        let parts = Parts { backend: stub, store: store.clone(), trainer: None };
        let bound = feilun_server::bind(config, parts).await?;
        let address = bound.address();
        let stop = CancellationToken::new();
        let server = tokio::spawn(bound.run(stop.clone()));
        let client = Arc::new(Client::new(address));
        // Connections, caches and the database's files, before anything is counted.
        load(&client, args.rate, args.rate.min(200)).await?;
        let start = Instant::now();
        let times = load(&client, args.rate, args.rate.saturating_mul(args.seconds)).await?;
        let elapsed = start.elapsed().as_secs_f64();
        stop.cancel();
        server.await?;
        store.close().await?;
        Ok(report(args, &times, elapsed))
    })
}

/// Times of the requests; `None` for one that failed.
type Times = Vec<Option<Duration>>;

/// Sends so many requests, each when it is due. The clock is a thread that sleeps: the runtime's
/// timer has a resolution of a millisecond, which would be counted as the server's.
async fn load(client: &Arc<Client>, rate: u32, count: u32) -> Outcome<Times> {
    let (runtime, client) = (tokio::runtime::Handle::current(), Arc::clone(client));
    let send = move || {
        let start = Instant::now();
        let period = Duration::from_secs(1) / rate;
        let mut tasks = Vec::with_capacity(count as usize);
        for index in 0..count {
            let due = start + period * index;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let client = Arc::clone(&client);
            let ask = async move { client.ask().await.ok().map(|()| due.elapsed()) };
            tasks.push(runtime.spawn(ask));
        }
        tasks
    };
    let tasks = tokio::task::spawn_blocking(send).await?;
    let mut times = Vec::with_capacity(tasks.len());
    for task in tasks {
        times.push(task.await?);
    }
    Ok(times)
}

fn report(args: &ServeArgs, times: &[Option<Duration>], elapsed: f64) -> Report {
    let mut answered: Vec<f64> =
        times.iter().flatten().map(|time| time.as_secs_f64() * 1e3).collect();
    answered.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (answered.len() as f64 * share) as usize;
        answered.get(index).or(answered.last()).copied().unwrap_or(f64::NAN)
    };
    let rate = answered.len() as f64 / elapsed;
    Report {
        requests: times.len(),
        requests_per_second: rate,
        tokens_per_second: rate * f64::from(args.tokens),
        capture: !args.no_capture,
        failed: times.len() - answered.len(),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}

/// The least of a client: connections that are kept, and one request that is always the same.
struct Client {
    address: std::net::SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    request: Vec<u8>,
}

impl Client {
    fn new(address: std::net::SocketAddr) -> Client {
        let body = r#"{"model":"stub","messages":[{"role":"user","content":"What is there?"}]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Client { address, idle: Mutex::default(), request: request.into_bytes() }
    }

    async fn ask(&self) -> Outcome {
        let kept = self.idle.lock().await.pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(&self.request).await?;
        let mut answer = Vec::with_capacity(2048);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(Failure::failed("the server closed the connection"));
            }
            if is_whole(&answer) {
                break;
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(Failure::failed("the server refused"));
        }
        self.idle.lock().await.push(stream);
        Ok(())
    }
}

/// Whether head and body are there; the server always tells the body's length.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| answer.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..answer.len() {
            assert!(!is_whole(&answer[..end]), "{end}");
        }
        assert!(is_whole(answer));
    }
}
