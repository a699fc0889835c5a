//! What capture costs. Not a test: it prints, and nothing of it can fail by being slow.

use std::time::{Duration, Instant};

use feilun_store::Store;
use feilun_store::digest::ConfigHash;
use feilun_store::id::TurnId;

use crate::child::derived;
use crate::site::{Site, on_both};

on_both! {
    #[ignore = "a measurement; its result is in the lab book"]
    turns_per_second_and_latency;
}

async fn turns_per_second_and_latency(site: Site) {
    let (store, config) = site.open().await;
    for num_writers in [1, 16, 128] {
        let start = Instant::now();
        let writers: Vec<_> = (0..num_writers)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut num_turns = 0;
                    while start.elapsed() < Duration::from_secs(3) {
                        store.record_turn(derived(TurnId::new(), config)).await.unwrap();
                        num_turns += 1;
                    }
                    num_turns
                })
            })
            .collect();
        let mut num_turns = 0;
        for writer in writers {
            num_turns += writer.await.unwrap();
        }
        let rate = f64::from(num_turns) / start.elapsed().as_secs_f64();
        println!("{num_writers} writers: {rate:.0} turns/s");
    }
    let latencies = at_200_per_second(&store, config).await;
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "at 200 turns/s: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// An open loop: the next turn comes whether the one before is answered or not.
async fn at_200_per_second(store: &Store, config: ConfigHash) -> Vec<Duration> {
    let mut clock = tokio::time::interval(Duration::from_millis(5));
    let mut waiting = Vec::new();
    for _ in 0..2000 {
        let due = clock.tick().await;
        let store = store.clone();
        waiting.push(tokio::spawn(async move {
            store.record_turn(derived(TurnId::new(), config)).await.unwrap();
            due.elapsed()
        }));
    }
    let mut latencies = Vec::new();
    for turn in waiting {
        latencies.push(turn.await.unwrap());
    }
    latencies.sort();
    latencies
}
