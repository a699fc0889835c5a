//! A process that is killed while it writes: nothing that it acknowledged is lost, and nothing
//! is torn.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use feilun_store::id::TurnId;
use feilun_store::{Page, Store};

use crate::child::{Said, Worker, derived};
use crate::site::{Site, on_both};

on_both! {
    a_killed_writer_loses_nothing;
    #[ignore = "takes minutes; its result is in the lab book"]
    two_hundred_kills_lose_nothing;
}

async fn a_killed_writer_loses_nothing(site: Site) {
    kill_again_and_again(&site, 5).await;
}

async fn two_hundred_kills_lose_nothing(site: Site) {
    kill_again_and_again(&site, 200).await;
}

async fn kill_again_and_again(site: &Site, num_kills: usize) {
    let mut acknowledged = Acknowledged::default();
    let (mut slowest, mut last) = (Duration::ZERO, None);
    for _ in 0..num_kills {
        let mut worker = Worker::start(site, "write");
        let first = worker.next().unwrap();
        let said = worker.kill_after(random_pause());
        acknowledged.add(first);
        said.into_iter().for_each(|said| acknowledged.add(said));
        let start = Instant::now();
        let store = Store::open(&site.url, site.options()).await.unwrap();
        store.ping().await.unwrap();
        slowest = slowest.max(start.elapsed());
        // Only what is new since the last time, or many kills would take their square of time.
        last = check(&store, &mut acknowledged, last).await;
        store.close().await.unwrap();
    }
    // And all of it at the end.
    let store = Store::open(&site.url, site.options()).await.unwrap();
    let mut all = acknowledged.everything();
    check(&store, &mut all, None).await;
    println!(
        "{num_kills} kills: {} turns and {} pieces of feedback were acknowledged and are there; \
         the slowest opening took {slowest:?}",
        all.num_turns, all.num_feedback
    );
}

#[derive(Default)]
struct Acknowledged {
    turns: BTreeSet<TurnId>,
    rated: BTreeSet<TurnId>,
    seen: BTreeSet<(TurnId, bool)>,
    num_turns: usize,
    num_feedback: usize,
}

impl Acknowledged {
    fn add(&mut self, said: Said) {
        match said {
            Said::Turn(turn) => {
                self.turns.insert(turn);
                self.seen.insert((turn, false));
            }
            Said::Feedback(turn, _) => {
                self.rated.insert(turn);
                self.seen.insert((turn, true));
            }
            other => panic!("the child said {other:?}"),
        }
    }

    fn everything(&self) -> Self {
        let mut all = Self::default();
        for &(turn, is_feedback) in &self.seen {
            if is_feedback {
                all.rated.insert(turn)
            } else {
                all.turns.insert(turn)
            };
        }
        (all.num_turns, all.num_feedback) = (all.turns.len(), all.rated.len());
        all
    }
}

/// Every turn behind `after` is whole, and every acknowledged one is there, with its feedback.
async fn check(
    store: &Store,
    acknowledged: &mut Acknowledged,
    after: Option<TurnId>,
) -> Option<TurnId> {
    let mut page = Page { after, ..Page::oldest(500) };
    loop {
        let turns = store.turns(&Default::default(), page).await.unwrap();
        let Some(last) = turns.last() else { break };
        page = page.behind(last.recorded.id);
        for turn in turns {
            let recorded = turn.recorded;
            assert_eq!(recorded, derived(recorded.id, recorded.config), "a torn turn");
            acknowledged.turns.remove(&recorded.id);
            if acknowledged.rated.remove(&recorded.id) {
                assert_eq!(store.feedback_of(recorded.id).await.unwrap().len(), 1);
            }
        }
    }
    assert!(acknowledged.turns.is_empty(), "lost turns: {:?}", acknowledged.turns);
    assert!(acknowledged.rated.is_empty(), "lost feedback: {:?}", acknowledged.rated);
    page.after
}

fn random_pause() -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    Duration::from_micros(random % 200_000)
}
