//! Writes that share a commit: the same as one by one, and no more together than they must be.

use feilun_store::digest::ConfigHash;
use feilun_store::feedback::FeedbackValue;
use feilun_store::id::{ConversationId, TurnId};
use feilun_store::turns::NewTurn;
use feilun_store::{Page, Store, StoreError, StoreOptions};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::captured::feedback;
use crate::site::{Site, block_on, on_both, turn};

on_both! {
    one_that_fails_fails_alone;
    many_at_once_are_all_there;
    a_full_queue_refuses;
    whoever_leaves_takes_nothing_back;
}

async fn one_that_fails_fails_alone(site: Site) {
    let (store, config) = site.open().await;
    let good: Vec<NewTurn> = (0..20).map(|_| turn(config)).collect();
    let bad = turn(ConfigHash::from_bytes([1; 32]));
    let mut all = good.clone();
    all.insert(7, bad.clone());
    all.insert(13, good[2].clone());
    let outcomes = join_all(all.iter().map(|turn| store.record_turn(turn.clone()))).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match (index, outcome) {
            (7, Err(StoreError::NoSuchConfig(_))) | (13, Err(StoreError::Exists { .. })) => (),
            (_, Ok(())) if index != 7 && index != 13 => (),
            _ => panic!("{index}: {outcome:?}"),
        }
    }
    for turn in good {
        assert_eq!(store.turn(turn.id).await.unwrap().recorded, turn);
    }
    assert!(store.turn(bad.id).await.is_err());
    assert!(store.conversation(bad.conversation).await.is_err());
}

async fn many_at_once_are_all_there(site: Site) {
    let (store, config) = site.open().await;
    let writers = (0..50).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..10 {
                let new = turn(config);
                let id = new.id;
                store.record_turn(new).await.unwrap();
                // Feedback is taken as soon as the turn is acknowledged.
                let rating = feedback(id, FeedbackValue::Rating(true), config);
                store.add_feedback(rating).await.unwrap();
                ids.push(id);
            }
            ids
        })
    });
    let mut ids: Vec<TurnId> = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        ids.extend(writer.await.unwrap());
    }
    ids.sort();
    let found = store.turns(&Default::default(), Page::oldest(1000)).await.unwrap();
    assert_eq!(found.iter().map(|turn| turn.recorded.id).collect::<Vec<_>>(), ids);
}

async fn a_full_queue_refuses(site: Site) {
    let options = StoreOptions { queue_writes_max: 4, ..site.options() };
    let store = Store::open(&site.url, options).await.unwrap();
    let config = store.record_config(&().into()).await.unwrap();
    let turns: Vec<NewTurn> = (0..50).map(|_| turn(config)).collect();
    let outcomes = join_all(turns.iter().map(|turn| store.record_turn(turn.clone()))).await;
    let mut num_refused = 0;
    for (turn, outcome) in turns.iter().zip(outcomes) {
        match outcome {
            Ok(()) => drop(store.turn(turn.id).await.unwrap()),
            Err(error @ StoreError::QueueFull { .. }) => {
                assert!(error.is_transient());
                assert!(store.turn(turn.id).await.is_err());
                num_refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(num_refused > 0 && num_refused < 50, "{num_refused}");
    // Bytes have a bound too; one write larger than it passes alone.
    let options = StoreOptions { queue_bytes_max: 2048, ..site.options() };
    let store = Store::open(&site.url, options).await.unwrap();
    store.record_turn(turn(config)).await.unwrap();
    let (a, b) = tokio::join!(store.record_turn(turn(config)), store.record_turn(turn(config)));
    assert!(a.is_ok(), "{a:?}");
    assert!(matches!(b, Err(StoreError::QueueFull { .. })), "{b:?}");
}

async fn whoever_leaves_takes_nothing_back(site: Site) {
    let (store, config) = site.open().await;
    let new = turn(config);
    let id = new.id;
    {
        let recording = std::pin::pin!(store.record_turn(new));
        assert!(futures_util::poll!(recording).is_pending());
    }
    store.close().await.unwrap();
    let (store, _) = site.open().await;
    store.turn(id).await.unwrap();
}

/// A write of the property test; numbers choose among the turns there are.
#[derive(Clone, Debug)]
enum Op {
    Turn { conversation: u8, parent: Option<usize>, config_is_known: bool },
    SameTurnAgain(usize),
    Rate(usize),
    Compare(usize, usize),
    Rename(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let parent = proptest::option::weighted(0.3, 0..8_usize);
    prop_oneof![
        4 => (0..4_u8, parent, proptest::bool::weighted(0.9)).prop_map(
            |(conversation, parent, config_is_known)| Op::Turn {
                conversation,
                parent,
                config_is_known
            }
        ),
        1 => (0..8_usize).prop_map(Op::SameTurnAgain),
        2 => (0..8_usize).prop_map(Op::Rate),
        1 => (0..8_usize, 0..8_usize).prop_map(|(a, b)| Op::Compare(a, b)),
        1 => (0..5_u8).prop_map(Op::Rename),
    ]
}

fn conversation(number: u8) -> ConversationId {
    ConversationId::from_bytes([number; 16])
}

/// The turn that the operation at `index` records; ids grow with the index.
fn turn_at(ops: &[Op], index: usize, config: ConfigHash) -> Option<NewTurn> {
    let id = |index: usize| TurnId::from_bytes((index as u128 + 1).to_be_bytes());
    let Op::Turn { conversation: number, parent, config_is_known } = ops.get(index)? else {
        return None;
    };
    let mut new = turn(if *config_is_known { config } else { ConfigHash::from_bytes([1; 32]) });
    new.id = id(index);
    new.conversation = conversation(*number);
    new.parent = parent.map(id);
    (new.received_at, new.first_token_at) = (feilun_store::Timestamp::from_micros(1), None);
    new.finished_at = new.received_at;
    Some(new)
}

/// Does it; the outcome without what differs from store to store.
async fn apply(store: &Store, ops: &[Op], index: usize, config: ConfigHash) -> String {
    let nth = |index: usize| TurnId::from_bytes((index as u128 + 1).to_be_bytes());
    let rate =
        async |turn, value| store.add_feedback(feedback(turn, value, config)).await.map(drop);
    let outcome = match &ops[index] {
        Op::Turn { .. } => store.record_turn(turn_at(ops, index, config).unwrap()).await,
        Op::SameTurnAgain(earlier) => match turn_at(ops, *earlier, config) {
            Some(turn) => store.record_turn(turn).await,
            None => Ok(()),
        },
        Op::Rate(turn) => rate(nth(*turn), FeedbackValue::Rating(true)).await,
        Op::Compare(a, b) => {
            let (preferred, over) = (nth(*a), nth(*b));
            rate(preferred, FeedbackValue::Comparison { preferred, over }).await
        }
        Op::Rename(number) => {
            store.rename_conversation(conversation(*number), &format!("title {index}")).await
        }
    };
    format!("{outcome:?}")
}

/// Everything that is in a store.
async fn content(store: &Store) -> String {
    let turns = store.turns(&Default::default(), Page::oldest(1000)).await.unwrap();
    let conversations = store.conversations(&Default::default(), Page::oldest(1000)).await.unwrap();
    let mut said = Vec::new();
    for turn in &turns {
        let feedback = store.feedback_of(turn.recorded.id).await.unwrap();
        said.extend(feedback.into_iter().map(|feedback| feedback.recorded));
    }
    format!("{turns:#?} {conversations:#?} {said:#?}")
}

fn together_is_as_one_by_one(ops: &[Op], site: fn() -> Site) {
    let (one_by_one, together) = (site(), site());
    block_on(async {
        let (a, config) = one_by_one.open().await;
        let (b, _) = together.open().await;
        let mut expected = Vec::new();
        for index in 0..ops.len() {
            expected.push(apply(&a, ops, index, config).await);
        }
        // All are queued in this order before the first is answered.
        let found = join_all((0..ops.len()).map(|index| apply(&b, ops, index, config))).await;
        assert_eq!(found, expected);
        assert_eq!(content(&b).await, content(&a).await);
    });
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(24))]
    #[test]
    fn together_is_as_one_by_one_on_sqlite(ops in proptest::collection::vec(op(), 1..24)) {
        together_is_as_one_by_one(&ops, Site::sqlite);
    }
}

proptest! {
    #![proptest_config(config(12))]
    #[test]
    fn together_is_as_one_by_one_on_postgres(ops in proptest::collection::vec(op(), 1..24)) {
        together_is_as_one_by_one(&ops, Site::postgres);
    }
}
