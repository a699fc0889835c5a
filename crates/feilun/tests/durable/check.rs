//! Whether what a server acknowledged is in its store, and every row of it whole.

use feilun_store::id::TurnId;
use feilun_store::{Page, Store, StoreOptions, StoreUrl};

use crate::load::{Ledger, message};

/// Looks into the store behind the server's back; of turns, at those behind `after`. It returns
/// the last one.
#[track_caller]
pub(crate) fn check(url: &StoreUrl, ledger: &Ledger, after: Option<TurnId>) -> Option<TurnId> {
    let blobs = tempfile::tempdir().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(url, StoreOptions::new(blobs.path())).await.unwrap();
        let last = check_turns(&store, ledger, after).await;
        for (feedback, turn) in &ledger.feedback {
            let all = store.feedback_of(*turn).await.unwrap();
            assert!(all.iter().any(|found| found.id == *feedback), "lost feedback {feedback}");
        }
        // The next server is the first to open it.
        store.close().await.unwrap();
        last
    })
}

async fn check_turns(store: &Store, ledger: &Ledger, after: Option<TurnId>) -> Option<TurnId> {
    let mut page = Page { after, ..Page::oldest(500) };
    let mut missing = ledger.turns.clone();
    loop {
        let turns = store.turns(&Default::default(), page).await.unwrap();
        let Some(last) = turns.last() else { break };
        page = page.behind(last.recorded.id);
        for turn in turns {
            let turn = turn.recorded;
            let asked = turn.request[0]["content"].as_str().unwrap();
            let number = asked.split(' ').next().unwrap().trim_start_matches('n');
            assert_eq!(asked, message(number.parse().unwrap()), "a torn request");
            assert_eq!(turn.answer_tokens.len(), turn.answer_logprobs.len(), "a torn answer");
            assert!(!turn.prompt_tokens.is_empty() && !turn.answer_tokens.is_empty());
            assert!(["stop", "length"].contains(&&*turn.finish_reason), "{}", turn.finish_reason);
            store.conversation(turn.conversation).await.unwrap();
            if let Some(text) = missing.remove(&turn.id) {
                assert_eq!(turn.answer["content"], text, "not what the caller read");
            }
        }
    }
    assert!(missing.is_empty(), "lost turns: {:?}", missing.keys());
    page.after
}
