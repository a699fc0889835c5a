//! `cargo xtask bench serve`: our server and llama.cpp's `llama-server` on the same model file
//! and threads, in alternation; and what our server itself costs.
//!
//! Start at [`run`]. Each measurement starts its server anew, so none inherits another's caches.

pub(crate) mod client;
pub(crate) mod load;
mod report;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::side_by_side::{self, median};
use crate::{models, peer, say};
use load::{chat, chatting, percentile_ms, together, words};
use report::{Measurement, Report, Test};
use servers::Contender;

/// Measure serving side by side with llama.cpp's server
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Threads of each server; without it one per processor
    #[arg(long)]
    threads: Option<usize>,
    /// Tests to run: all whose name begins like one of these
    #[arg(long, value_delimiter = ',', default_value = "chats,long,cached,overhead")]
    tests: Vec<String>,
    /// Turns of each server in each test
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeat: u64,
    /// One turn each, and shorter ones
    #[arg(long, conflicts_with = "repeat")]
    quick: bool,
    /// Measure every way to build the peer instead of the first
    #[arg(long)]
    every_build: bool,
    /// The feilun program; built in release mode where not given
    #[arg(long)]
    feilun: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// How much is asked.
struct Effort {
    turns: u64,
    chats_each: usize,
    /// Of the clients that chat alone, and of those beside long prompts.
    idle_time: Duration,
    loaded_time: Duration,
    num_prompts: usize,
    overhead_seconds: u32,
}

/// Clients and tokens of the tests, as the goals have them.
const NUM_CHATS: usize = 16;
const CHAT_TOKENS: usize = 64;
const NUM_BESIDE: usize = 4;
const LONG_TOKENS: usize = 4000;
const CACHED_TOKENS: usize = 1000;
const REQUESTS_PER_SECOND: u32 = 200;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let model = models::fetch()?.join("smollm2.gguf");
    let feilun = side_by_side::feilun(arguments.feilun.as_deref())?;
    let threads = arguments.threads.unwrap_or_else(num_processors);
    let effort = arguments.effort();
    let data = std::env::temp_dir().join(format!("feilun-bench-serve-{}", std::process::id()));
    let measured = measure(arguments, &effort, &feilun, &data, &model, threads);
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let report = measured?;
    let text = if arguments.json { report.json()? } else { report.table() };
    crate::say_to_stdout(&text);
    Ok(())
}

fn num_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Arguments {
    fn wants(&self, test: Test) -> bool {
        self.tests.iter().any(|name| test.name().starts_with(name.as_str()))
    }

    fn effort(&self) -> Effort {
        let seconds = Duration::from_secs;
        if self.quick {
            Effort {
                turns: 1,
                chats_each: 1,
                idle_time: seconds(5),
                loaded_time: seconds(15),
                num_prompts: 3,
                overhead_seconds: 5,
            }
        } else {
            Effort {
                turns: self.repeat,
                chats_each: 2,
                idle_time: seconds(8),
                loaded_time: seconds(20),
                num_prompts: 5,
                overhead_seconds: 10,
            }
        }
    }
}

fn measure(
    arguments: &Arguments,
    effort: &Effort,
    feilun: &Path,
    data: &Path,
    model: &Path,
    threads: usize,
) -> anyhow::Result<Report> {
    let mut report = Report::new(threads);
    let sides = [Test::Chats, Test::Long, Test::Cached].map(|test| arguments.wants(test));
    if sides.contains(&true) {
        let builds = peer::set_up_servers(arguments.every_build)?;
        let mut contenders = vec![Contender::Feilun { program: feilun, data }];
        contenders.extend(builds.iter().map(Contender::Peer));
        for turn in 1..=effort.turns {
            for test in [Test::Chats, Test::Long, Test::Cached] {
                if !arguments.wants(test) {
                    continue;
                }
                for contender in &contenders {
                    say(&format!("{turn}/{}: {}, {}", effort.turns, test.name(), contender.name()));
                    let found = match test {
                        Test::Chats => chats(contender, model, threads, effort)?,
                        Test::Long => long_prompts(contender, model, threads, effort)?,
                        _ => cached_prompts(contender, model, threads, effort)?,
                    };
                    report.add(test, contender.name(), found);
                }
            }
        }
    }
    if arguments.wants(Test::Overhead) {
        say("overhead of our server, with a stub for the engine");
        for _ in 0..effort.turns {
            let found = overhead(feilun, data, effort.overhead_seconds)?;
            report.add(Test::Overhead, "feilun", found);
        }
    }
    Ok(report)
}

/// Many chats at once: tokens per second in all.
fn chats(
    contender: &Contender<'_>,
    model: &Path,
    threads: usize,
    effort: &Effort,
) -> anyhow::Result<Measurement> {
    let server = contender.start(model, threads, NUM_CHATS, 512)?;
    let ask = || chat(&words(32), CHAT_TOKENS);
    together(server.address(), NUM_CHATS, 1, || chat(&words(32), 8))?;
    let (streamed, time) = together(server.address(), NUM_CHATS, effort.chats_each, ask)?;
    let tokens: u64 = streamed.iter().map(|streamed| streamed.completion_tokens).sum();
    Ok(Measurement { value: tokens as f64 / time.as_secs_f64(), detail: Vec::new() })
}

/// Chats beside somebody who sends long prompts: how much longer the 99th percentile between
/// tokens is than without.
fn long_prompts(
    contender: &Contender<'_>,
    model: &Path,
    threads: usize,
    effort: &Effort,
) -> anyhow::Result<Measurement> {
    let server = contender.start(model, threads, NUM_BESIDE + 1, LONG_TOKENS + 600)?;
    let address = server.address();
    let (idle, _) = chatting(address, NUM_BESIDE, effort.idle_time, None)?;
    let long = || client::stream(address, &chat(&words(LONG_TOKENS), 1)).map(drop);
    let (loaded, num_prompts) = chatting(address, NUM_BESIDE, effort.loaded_time, Some(&long))?;
    let (idle, loaded) = (percentile_ms(&idle, 0.99), percentile_ms(&loaded, 0.99));
    let detail = vec![
        ("idle_p99_ms", idle),
        ("loaded_p99_ms", loaded),
        ("prompts_per_second", num_prompts as f64 / effort.loaded_time.as_secs_f64()),
    ];
    Ok(Measurement { value: loaded / idle, detail })
}

/// Time to the first token of prompts that were never asked, over that of the same again.
fn cached_prompts(
    contender: &Contender<'_>,
    model: &Path,
    threads: usize,
    effort: &Effort,
) -> anyhow::Result<Measurement> {
    let server = contender.start(model, threads, 2, CACHED_TOKENS + 600)?;
    let address = server.address();
    client::stream(address, &chat(&words(32), 8))?;
    let (mut new, mut again) = (Vec::new(), Vec::new());
    for _ in 0..effort.num_prompts {
        let body = chat(&words(CACHED_TOKENS), 2);
        for times in [&mut new, &mut again] {
            times.push(client::stream(address, &body)?.first.as_secs_f64() * 1e3);
        }
    }
    let detail = vec![("new_ms", median(&new)), ("cached_ms", median(&again))];
    Ok(Measurement { value: median(&new) / median(&again), detail })
}

/// What a request costs in our server besides the engine, with turns recorded and without.
fn overhead(feilun: &Path, data: &Path, seconds: u32) -> anyhow::Result<Measurement> {
    let ask = |more: &[&str]| {
        let mut command = Command::new(feilun);
        command.arg("--data").arg(data).args(["bench", "serve", "--json"]);
        command.args(["--rate", &REQUESTS_PER_SECOND.to_string()]);
        command.args(["--seconds", &seconds.to_string()]).args(more);
        side_by_side::json_of(&mut command)
    };
    let (with, without) = (ask(&[])?, ask(&["--no-capture"])?);
    let number = |said: &serde_json::Value, name: &str| said[name].as_f64().unwrap_or(f64::NAN);
    let detail = vec![
        ("p50_ms", number(&with, "p50_ms")),
        ("p99_ms", number(&with, "p99_ms")),
        ("without_capture_p50_ms", number(&without, "p50_ms")),
        ("without_capture_p99_ms", number(&without, "p99_ms")),
        ("failed", number(&with, "failed") + number(&without, "failed")),
    ];
    Ok(Measurement { value: number(&with, "p99_ms"), detail })
}
