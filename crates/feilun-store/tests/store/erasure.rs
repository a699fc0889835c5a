//! What is forgotten is gone, and nothing else is.

use std::path::Path;

use feilun_store::audit::Actor;
use feilun_store::feedback::FeedbackValue;
use feilun_store::files::{FileFilter, NewFile};
use feilun_store::forget::{ForgetReport, Subject};
use feilun_store::id::{FileId, UserId};
use feilun_store::keys::NewKey;
use feilun_store::retention::RetentionReport;
use feilun_store::sessions::{NewSession, SessionOwner};
use feilun_store::turns::{NewTurn, TurnFilter};
use feilun_store::{Page, StoreError, Timestamp};
use serde_json::json;

use crate::administration::{key, user};
use crate::captured::feedback;
use crate::site::{Site, on_both, turn};

on_both! {
    a_user_is_forgotten_with_everything;
    an_end_user_is_forgotten;
    old_turns_are_deleted;
}

const SECRET: &str = "xyzzy-secret-of-anna";
const BY: Actor = Actor::Operator;

/// Whether any file below a folder holds the secret.
fn is_anywhere(folder: &Path) -> bool {
    let contains = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    };
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .any(|path| if path.is_dir() { is_anywhere(&path) } else { contains(&path) })
}

async fn a_user_is_forgotten_with_everything(site: Site) {
    let (store, config) = site.open().await;
    let (anna, bert) = (user(SECRET), user("bert"));
    for user in [&anna, &bert] {
        store.create_user(user.clone(), BY).await.unwrap();
    }
    store.create_key(NewKey { user: Some(anna.id), ..key(1) }, BY).await.unwrap();
    store.create_key(NewKey { user: Some(bert.id), ..key(2) }, BY).await.unwrap();
    let expires_at = Timestamp::from_micros(i64::MAX);
    let session =
        NewSession { token_hash: [1; 32], owner: SessionOwner::User(anna.id), expires_at };
    store.create_session(session).await.unwrap();
    let of = |user: UserId| NewTurn {
        user: Some(user),
        request: json!([{"role": "user", "content": SECRET.repeat(500)}]),
        ..turn(config)
    };
    let (hers, his) = (of(anna.id), NewTurn { request: json!("mine"), ..of(bert.id) });
    for turn in [&hers, &his] {
        store.record_turn(turn.clone()).await.unwrap();
    }
    let her_word = |turn| {
        let comment = FeedbackValue::Comment(SECRET.to_owned());
        let mut said = feedback(turn, comment, config);
        said.user = Some(anna.id);
        said
    };
    for turn in [hers.id, his.id] {
        store.add_feedback(her_word(turn)).await.unwrap();
    }
    let compared = FeedbackValue::Comparison { preferred: his.id, over: hers.id };
    store.add_feedback(feedback(his.id, compared, config)).await.unwrap();
    for (user, text) in [(anna.id, SECRET), (anna.id, "both"), (bert.id, "both")] {
        let mut writer = store.blob_writer(1000).unwrap();
        writer.write(text.as_bytes()).unwrap();
        let (purpose, name) = ("fine-tune".to_owned(), text.to_owned());
        let file = NewFile { id: FileId::new(), purpose, name, user: Some(user), key: None };
        store.add_file(file, writer.finish().unwrap()).await.unwrap();
    }
    if site.is_sqlite() {
        assert!(is_anywhere(site.folder.path()), "the test would see it");
    }

    let report = store.forget(Subject::User(anna.id), BY).await.unwrap();
    let expected = ForgetReport {
        conversations: 1,
        turns: 1,
        feedback: 2,
        events: 0,
        keys: 1,
        sessions: 1,
        files: 2,
        models: vec![hers.model],
    };
    assert_eq!(report, expected);
    assert!(!is_anywhere(site.folder.path()), "the secret is still in a file");
    assert!(matches!(store.user(anna.id).await, Err(StoreError::NoSuchUser(_))));
    assert!(matches!(store.turn(hers.id).await, Err(StoreError::NoSuchTurn(_))));
    assert!(store.session_user([1; 32]).await.unwrap().is_none());
    assert!(store.key_by_hash([1; 32]).await.unwrap().is_none());
    // His is untouched.
    assert_eq!(store.turn(his.id).await.unwrap().recorded, his);
    assert_eq!(store.feedback_of(his.id).await.unwrap(), []);
    assert!(store.key_by_hash([2; 32]).await.unwrap().is_some());
    let files = store.files(&FileFilter::default(), Page::newest(10)).await.unwrap();
    assert_eq!(files.len(), 1);
    store.open_blob(files[0].digest).unwrap();
    let log = store.audit_log(Page::newest(1)).await.unwrap();
    assert_eq!((log[0].action.as_str(), &log[0].object), ("subject.forget", &anna.id.to_string()));
    // Again, and nothing is there.
    let report = store.forget(Subject::User(anna.id), BY).await.unwrap();
    assert_eq!(report, ForgetReport::default());
}

async fn an_end_user_is_forgotten(site: Site) {
    let (store, config) = site.open().await;
    let of = |name: &str| NewTurn { end_user: Some(name.to_owned()), ..turn(config) };
    let (first, other) = (of(SECRET), of("somebody else"));
    // In a conversation that somebody else began.
    let guest = NewTurn { conversation: other.conversation, ..of(SECRET) };
    for turn in [&first, &other, &guest] {
        store.record_turn(turn.clone()).await.unwrap();
    }
    let report = store.forget(Subject::EndUser(SECRET.to_owned()), BY).await.unwrap();
    assert_eq!((report.turns, report.conversations), (2, 1));
    let left = store.turns(&TurnFilter::default(), Page::newest(10)).await.unwrap();
    assert_eq!(left.iter().map(|turn| turn.recorded.id).collect::<Vec<_>>(), [other.id]);
    assert!(!is_anywhere(site.folder.path()), "the name is still in a file");
}

async fn old_turns_are_deleted(site: Site) {
    let (store, config) = site.open().await;
    let at = |micros| NewTurn { received_at: Timestamp::from_micros(micros), ..turn(config) };
    // More than one transaction deletes.
    let old: Vec<_> = (0..600).map(at).collect();
    let young = at(1_000);
    let late = NewTurn { conversation: old[0].conversation, ..at(2_000) };
    futures_util::future::join_all(old.iter().map(|turn| store.record_turn(turn.clone()))).await;
    for turn in [&young, &late] {
        store.record_turn(turn.clone()).await.unwrap();
    }
    let report = store.delete_older_than(Timestamp::from_micros(1_000), BY).await.unwrap();
    assert_eq!(report, RetentionReport { turns: 600, conversations: 599 });
    let left = store.turns(&TurnFilter::default(), Page::newest(10)).await.unwrap();
    let ids: std::collections::BTreeSet<_> = left.iter().map(|turn| turn.recorded.id).collect();
    assert_eq!(ids, [young.id, late.id].into());
    store.conversation(late.conversation).await.unwrap();
    let log = store.audit_log(Page::newest(1)).await.unwrap();
    assert_eq!(log[0].action, "retention.delete");
}
