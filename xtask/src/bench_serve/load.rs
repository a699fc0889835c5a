//! What clients ask, and clients that ask it side by side.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use super::client::{self, Streamed};

/// How the test model is called by ours; the peer takes any name.
const MODEL: &str = "smollm2";
/// Its two tokens that end an answer. They are never chosen, so that all answers are of one
/// length.
const ENDS: [&str; 2] = ["0", "2"];

/// Words that are a token each.
const WORDS: [&str; 16] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group",
];

/// A text of about so many tokens, which nobody has asked before.
pub(crate) fn words(num_tokens: usize) -> String {
    static SEED: AtomicU64 = AtomicU64::new(0);
    // A process starts somewhere else each time: caches of a server outlive no run, but data may.
    let mut state = SEED.fetch_add(1, Ordering::Relaxed) ^ (u64::from(std::process::id()) << 32);
    let mut text = String::with_capacity(num_tokens * 7);
    for _ in 0..num_tokens {
        // Knuth's linear congruential generator; its upper bits are good enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 60) as usize]);
        text.push(' ');
    }
    text
}

/// A chat to be streamed, greedily.
pub(crate) fn chat(text: &str, max_tokens: usize) -> Value {
    let bias: Value = ENDS.iter().map(|id| ((*id).to_owned(), json!(-100))).collect();
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "logit_bias": bias,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
}

/// So many clients, each with so many chats behind each other; all that was streamed, and the
/// time it took.
pub(super) fn together(
    address: SocketAddr,
    num_clients: usize,
    chats_each: usize,
    chat: impl Fn() -> Value + Sync,
) -> anyhow::Result<(Vec<Streamed>, Duration)> {
    let start = Instant::now();
    let results: Vec<anyhow::Result<Vec<Streamed>>> = std::thread::scope(|scope| {
        let client = || (0..chats_each).map(|_| client::stream(address, &chat())).collect();
        let threads: Vec<_> = (0..num_clients).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(joined).collect()
    });
    let time = start.elapsed();
    let mut all = Vec::new();
    for result in results {
        all.extend(result?);
    }
    Ok((all, time))
}

/// Chatting clients for a while, and `beside` as often as fits meanwhile. The gaps between tokens
/// of the chats, and how often `beside` was done.
pub(crate) fn chatting(
    address: SocketAddr,
    num_clients: usize,
    time: Duration,
    beside: Option<&(dyn Fn() -> anyhow::Result<()> + Sync)>,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let stop = AtomicBool::new(false);
    let gaps = Mutex::new(Vec::new());
    let deadline = Instant::now() + time;
    let results: Vec<anyhow::Result<usize>> = std::thread::scope(|scope| {
        let (stop, gaps) = (&stop, &gaps);
        let chatter = move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let streamed = client::stream(address, &chat(&words(32), 96))?;
                if let Ok(mut gaps) = gaps.lock() {
                    gaps.extend(streamed.gaps);
                }
                count += 1;
            }
            Ok(count)
        };
        let mut threads: Vec<_> = (0..num_clients).map(|_| scope.spawn(chatter)).collect();
        let mut beside_done = Ok(0);
        while Instant::now() < deadline && threads.iter().all(|thread| !thread.is_finished()) {
            match beside {
                None => std::thread::sleep(Duration::from_millis(100)),
                Some(beside) => match beside() {
                    Ok(()) => beside_done = beside_done.map(|count| count + 1),
                    Err(error) => {
                        beside_done = Err(error);
                        break;
                    }
                },
            }
        }
        stop.store(true, Ordering::Relaxed);
        let mut results = vec![beside_done];
        results.extend(threads.drain(..).map(joined));
        results
    });
    let mut counts = results.into_iter();
    let beside_done = counts.next().transpose()?.unwrap_or(0);
    for count in counts {
        count?;
    }
    let gaps = gaps.into_inner().unwrap_or_default();
    if gaps.is_empty() {
        bail!("nothing was measured: give it more time");
    }
    Ok((gaps, beside_done))
}

/// A panic of a client as an error.
pub(super) fn joined<T>(
    thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<T>>,
) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a client panicked"))
}

/// The value below which this share of the others lies, in milliseconds. NaN of nothing.
pub(crate) fn percentile_ms(times: &[Duration], share: f64) -> f64 {
    let mut sorted: Vec<Duration> = times.to_vec();
    sorted.sort();
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&times, 0.5), 101.0);
        assert_eq!(percentile_ms(&times, 0.99), 199.0);
        assert_eq!(percentile_ms(&times, 1.0), 200.0);
        assert!(percentile_ms(&[], 0.5).is_nan());
    }

    #[test]
    fn texts_differ() {
        let (one, other) = (words(50), words(50));
        assert_ne!(one, other);
        assert_eq!(one.split_whitespace().count(), 50);
    }
}
