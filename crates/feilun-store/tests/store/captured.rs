//! What is captured comes back as it was: turns, conversations, feedback, events.

use std::collections::BTreeMap;

use feilun_store::audit::Actor;
use feilun_store::conversations::ConversationFilter;
use feilun_store::digest::ConfigHash;
use feilun_store::events::{EventKind, NewEvent};
use feilun_store::feedback::{FeedbackValue, NewFeedback};
use feilun_store::id::{ConversationId, TurnId, UserId};
use feilun_store::split::Split;
use feilun_store::turns::TurnFilter;
use feilun_store::{Page, Store, StoreError, Timestamp};
use serde_json::json;

use crate::site::{Site, on_both, turn};

on_both! {
    a_turn_comes_back_as_it_was;
    turns_are_listed_in_pages;
    a_turn_must_fit_its_surroundings;
    conversations_are_found_and_renamed;
    feedback_comes_back_as_it_was;
    events_come_back_as_they_were;
    conversations_are_deleted_with_what_is_theirs;
}

pub(crate) fn feedback(turn: TurnId, value: FeedbackValue, config: ConfigHash) -> NewFeedback {
    let tags = BTreeMap::from([("screen".to_owned(), "chat".to_owned())]);
    NewFeedback {
        turn,
        value,
        choice: Some(1),
        tags,
        user: None,
        end_user: None,
        key: None,
        config,
    }
}

async fn a_turn_comes_back_as_it_was(site: Site) {
    let (store, config) = site.open().await;
    let recorded = turn(config);
    store.record_turn(recorded.clone()).await.unwrap();
    let found = store.turn(recorded.id).await.unwrap();
    assert_eq!(found.recorded, recorded);
    assert_eq!(found.split, Split::of(recorded.conversation));
    assert!(!found.may_learn, "nobody said yes");
    let missing = TurnId::new();
    assert!(matches!(store.turn(missing).await, Err(StoreError::NoSuchTurn(id)) if id == missing));

    let mut other = turn(config);
    (other.adapter, other.alias, other.app, other.template, other.seed) = Default::default();
    (other.answer, other.answer_logprobs, other.error) = Default::default();
    (other.first_token_at, other.consent) = (None, Some(true));
    store.record_turn(other.clone()).await.unwrap();
    let found = store.turn(other.id).await.unwrap();
    assert_eq!(found.recorded, other);
    assert!(found.may_learn);
    // It is on the disk, not in this process.
    store.close().await.unwrap();
    let again = Store::open(&site.url, site.options()).await.unwrap();
    assert_eq!(again.turn(other.id).await.unwrap().recorded, other);
    assert_eq!(again.config(config).await.unwrap(), json!({"test": true}));
}

async fn turns_are_listed_in_pages(site: Site) {
    let (store, config) = site.open().await;
    let user = UserId::new();
    let mut ids = Vec::new();
    for index in 0..7 {
        let mut new = turn(config);
        new.user = (index != 3).then_some(user);
        new.consent = Some(index % 2 == 0);
        ids.push(new.id);
        store.record_turn(new).await.unwrap();
    }
    let filter = TurnFilter { user: Some(user), ..TurnFilter::default() };
    let mut page = Page::oldest(4);
    let mut found = Vec::new();
    loop {
        let turns = store.turns(&filter, page).await.unwrap();
        let Some(last) = turns.last() else { break };
        page = page.behind(last.recorded.id);
        found.extend(turns.iter().map(|turn| turn.recorded.id));
    }
    ids.remove(3);
    assert_eq!(found, ids);
    let learnable = TurnFilter { may_learn: Some(true), ..filter };
    let newest = store.turns(&learnable, Page::newest(2)).await.unwrap();
    assert_eq!(newest.iter().map(|turn| turn.recorded.id).collect::<Vec<_>>(), [ids[5], ids[3]]);
    let future = TurnFilter { since: Some(Timestamp::from_micros(i64::MAX)), ..Default::default() };
    assert_eq!(store.turns(&future, Page::newest(2)).await.unwrap().len(), 0);
}

async fn a_turn_must_fit_its_surroundings(site: Site) {
    let (store, config) = site.open().await;
    let first = turn(config);
    store.record_turn(first.clone()).await.unwrap();
    let again = store.record_turn(first.clone()).await.unwrap_err();
    assert!(matches!(&again, StoreError::Exists { what: "turn", .. }), "{again}");

    let mut stranger = turn(config);
    (stranger.conversation, stranger.user) = (first.conversation, Some(UserId::new()));
    let refused = store.record_turn(stranger).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchConversation(_)), "{refused}");

    let mut child = turn(config);
    (child.conversation, child.parent) = (first.conversation, Some(first.id));
    store.record_turn(child.clone()).await.unwrap();
    let mut orphan = turn(config);
    orphan.parent = Some(first.id);
    let refused = store.record_turn(orphan.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchTurn(id) if id == first.id), "{refused}");
    // What was refused left no conversation behind.
    let refused = store.conversation(orphan.conversation).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchConversation(_)), "{refused}");

    let unknown = ConfigHash::from_bytes([1; 32]);
    let refused = store.record_turn(turn(unknown)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchConfig(hash) if hash == unknown), "{refused}");
    let all = store.turns(&TurnFilter::default(), Page::oldest(10)).await.unwrap();
    assert_eq!(all.iter().map(|turn| turn.recorded.id).collect::<Vec<_>>(), [first.id, child.id]);
}

async fn conversations_are_found_and_renamed(site: Site) {
    let (store, config) = site.open().await;
    let user = Some(UserId::new());
    let mut conversations = Vec::new();
    for (index, asked) in ["Ärger mit 100%", "rivers of CHINA", "a_b", "axb"].iter().enumerate() {
        let mut new = turn(config);
        new.user = user;
        new.request = json!([{"role": "user", "content": asked}]);
        new.received_at = Timestamp::from_micros(1_000_000 + index as i64);
        conversations.push(new.conversation);
        store.record_turn(new).await.unwrap();
    }
    let search = async |needle: &str| -> Vec<ConversationId> {
        let search = Some(needle.to_owned());
        let filter = ConversationFilter { user, search, ..Default::default() };
        let found = store.conversations(&filter, Page::oldest(10)).await.unwrap();
        found.iter().map(|conversation| conversation.id).collect()
    };
    assert_eq!(search("ÄRGER").await, conversations[..1]);
    assert_eq!(search("100%").await, conversations[..1]);
    assert_eq!(search("China").await, conversations[1..2]);
    assert_eq!(search("a_b").await, conversations[2..3]);
    assert_eq!(search("flywheel").await, conversations, "the answers have it");
    assert_eq!(search("' OR 1 = 1 --").await, []);
    // A NUL byte counts as a space, in what is searched and in what is searched for.
    assert_eq!(search("mit\u{0}100").await, conversations[..1]);

    let renamed = conversations[1];
    store.rename_conversation(renamed, "Flüsse'; DROP TABLE turns; --").await.unwrap();
    assert_eq!(search("FLÜSSE'; drop").await, [renamed]);
    let found = store.conversation(renamed).await.unwrap();
    assert_eq!(found.title.as_deref(), Some("Flüsse'; DROP TABLE turns; --"));
    let first = store.conversation(conversations[0]).await.unwrap();
    assert_eq!(first.title.as_deref(), Some("Ärger mit 100%"));
    let missing = ConversationId::new();
    let refused = store.rename_conversation(missing, "x").await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchConversation(id) if id == missing));

    // In pages, by the time of the last turn.
    let filter = ConversationFilter { user, ..Default::default() };
    let newest = store.conversations(&filter, Page::newest(3)).await.unwrap();
    let ids: Vec<_> = newest.iter().map(|conversation| conversation.id).collect();
    assert_eq!(ids, [conversations[3], conversations[2], conversations[1]]);
    let page = Page::newest(3).behind(newest[2].cursor());
    assert_eq!(store.conversations(&filter, page).await.unwrap(), [first]);
}

async fn feedback_comes_back_as_it_was(site: Site) {
    let (store, config) = site.open().await;
    let (one, other) = (turn(config), turn(config));
    let (preferred, over) = (one.id, other.id);
    store.record_turn(one).await.unwrap();
    store.record_turn(other).await.unwrap();
    let values = [
        FeedbackValue::Rating(true),
        FeedbackValue::Rating(false),
        FeedbackValue::Score(1e308),
        FeedbackValue::Score(-0.1),
        FeedbackValue::Score(f64::MIN_POSITIVE),
        FeedbackValue::Comment("schön \0 '; DROP TABLE feedback".to_owned()),
        FeedbackValue::Demonstration(json!({"role": "assistant", "content": "飞轮"})),
        FeedbackValue::Comparison { preferred, over },
    ];
    let mut ids = Vec::new();
    for value in &values {
        ids.push(store.add_feedback(feedback(preferred, value.clone(), config)).await.unwrap());
    }
    let found = store.feedback_of(preferred).await.unwrap();
    assert_eq!(found.iter().map(|feedback| feedback.id).collect::<Vec<_>>(), ids);
    for (found, value) in found.into_iter().zip(values) {
        assert_eq!(found.recorded, feedback(preferred, value, config));
    }
    let missing = TurnId::new();
    for value in [
        FeedbackValue::Rating(true),
        FeedbackValue::Comparison { preferred: missing, over: preferred },
    ] {
        let refused = store.add_feedback(feedback(missing, value, config)).await.unwrap_err();
        assert!(matches!(refused, StoreError::NoSuchTurn(id) if id == missing), "{refused}");
    }
    for value in [
        FeedbackValue::Score(f64::NAN),
        FeedbackValue::Score(f64::INFINITY),
        FeedbackValue::Demonstration(json!([])),
        FeedbackValue::Comparison { preferred, over: preferred },
        FeedbackValue::Comparison { preferred: over, over: missing },
    ] {
        let refused = store.add_feedback(feedback(preferred, value, config)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { field: "value", .. }), "{refused}");
    }
}

async fn events_come_back_as_they_were(site: Site) {
    let (store, config) = site.open().await;
    let new = turn(config);
    let turn = new.id;
    store.record_turn(new).await.unwrap();
    let event = |turn, kind| NewEvent {
        turn,
        kind,
        detail: json!({"position": 3}),
        user: Some(UserId::from_bytes([1; 16])),
        end_user: Some("somebody".to_owned()),
        key: None,
        config,
    };
    for &kind in EventKind::ALL {
        store.add_event(event(turn, kind)).await.unwrap();
    }
    let found = store.events_of(turn).await.unwrap();
    let expected: Vec<_> = EventKind::ALL.iter().map(|&kind| event(turn, kind)).collect();
    assert_eq!(found.into_iter().map(|event| event.recorded).collect::<Vec<_>>(), expected);
    let missing = TurnId::new();
    let refused = store.add_event(event(missing, EventKind::Copy)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchTurn(id) if id == missing), "{refused}");
}

async fn conversations_are_deleted_with_what_is_theirs(site: Site) {
    let (store, config) = site.open().await;
    let (gone, kept) = (turn(config), turn(config));
    store.record_turn(gone.clone()).await.unwrap();
    store.record_turn(kept.clone()).await.unwrap();
    let compared = FeedbackValue::Comparison { preferred: kept.id, over: gone.id };
    store.add_feedback(feedback(kept.id, compared, config)).await.unwrap();
    let rating = FeedbackValue::Rating(true);
    store.add_feedback(feedback(gone.id, rating.clone(), config)).await.unwrap();
    store.add_feedback(feedback(kept.id, rating.clone(), config)).await.unwrap();
    store.delete_conversation(gone.conversation, Actor::Operator).await.unwrap();
    assert!(store.turn(gone.id).await.is_err());
    assert_eq!(store.feedback_of(gone.id).await.unwrap(), []);
    let left = store.feedback_of(kept.id).await.unwrap();
    assert_eq!(left.iter().map(|left| &left.recorded.value).collect::<Vec<_>>(), [&rating]);
    let log = store.audit_log(Page::newest(1)).await.unwrap();
    assert_eq!(log[0].action, "conversation.delete");
    assert_eq!(log[0].object, gone.conversation.to_string());
    let again = store.delete_conversation(gone.conversation, Actor::Operator).await;
    assert!(matches!(again, Err(StoreError::NoSuchConversation(_))));
}
