//! A server that is killed under load, again and again.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use crate::check::check;
use crate::load::{Ledger, load};
use crate::site::Site;

/// What an ordinary restart may take; a busy machine is no failure, so it is only said.
const RESTART_TIME: Duration = Duration::from_secs(2);

#[test]
fn a_killed_server_loses_nothing() {
    kill_again_and_again(&Site::sqlite(), 6);
}

#[test]
fn a_server_killed_beside_postgres_loses_nothing() {
    kill_again_and_again(&Site::postgres(), 4);
}

#[test]
#[ignore = "takes minutes; its result is in the lab book"]
fn two_hundred_kills_lose_nothing() {
    kill_again_and_again(&Site::sqlite(), 200);
}

#[test]
#[ignore = "takes minutes; its result is in the lab book"]
fn two_hundred_kills_beside_postgres_lose_nothing() {
    kill_again_and_again(&Site::postgres(), 200);
}

fn kill_again_and_again(site: &Site, num_kills: usize) {
    let mut all = Ledger::default();
    let (mut restarts, mut last) = (Vec::new(), None);
    let mut server = Some(site.start());
    for _ in 0..num_kills {
        let up = server.take().unwrap();
        let url = up.url.clone();
        let ledger = load(&url, |ledger| {
            // Something was acknowledged before every kill, or it would show nothing.
            while ledger.lock().unwrap().turns.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(random_pause());
            up.kill();
        });
        assert!(ledger.refusals.is_empty(), "{:?}", ledger.refusals);
        let up = site.start();
        assert_eq!(up.get("/readyz").0, 200);
        restarts.push(up.start_time);
        // Only what is new, or many kills would take their square of time.
        last = check(&site.url, &ledger, last);
        all.add(ledger);
        server = Some(up);
    }
    server.take().unwrap().terminate();
    check(&site.url, &all, None);
    restarts.sort();
    let late = restarts.iter().filter(|time| **time > RESTART_TIME).count();
    println!(
        "{num_kills} kills: {} turns and {} pieces of feedback were acknowledged and are there; \
         {} connections broke; restarts took {:?} (median) to {:?}, {late} more than 2 s",
        all.turns.len(),
        all.feedback.len(),
        all.num_broken,
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1],
    );
    assert!(all.turns.len() >= num_kills, "{} turns", all.turns.len());
}

/// Long enough for some answers of a slow machine.
fn random_pause() -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    Duration::from_micros(random % 600_000)
}
