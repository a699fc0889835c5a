//! Users, keys, sessions, models, aliases, runs, consent, the audit log.

use std::time::Duration;

use feilun_store::aliases::{AliasTarget, NewAliasMove};
use feilun_store::audit::{Actor, NewAuditEntry};
use feilun_store::digest::ModelDigest;
use feilun_store::id::{KeyId, RunId, UserId};
use feilun_store::keys::NewKey;
use feilun_store::models::{ModelKind, NewModel};
use feilun_store::runs::{NewRun, NewRunEvent, RunChange, RunFilter, RunStatus};
use feilun_store::sessions::{NewSession, SessionOwner};
use feilun_store::users::{NewUser, Role, UserChange};
use feilun_store::{Page, Store, StoreError, Timestamp};
use serde_json::json;

use crate::site::{Site, on_both, turn};

on_both! {
    users_are_added_and_changed;
    keys_are_found_while_they_may_be_used;
    sessions_end;
    sessions_of_keys_end_with_the_key;
    a_no_anywhere_wins_and_reaches_back;
    models_are_recorded_once;
    an_alias_moves_if_it_is_where_it_was_thought;
    two_who_move_an_alias_do_not_both_win;
    runs_go_forward;
    the_audit_log_keeps_what_it_is_told;
}

pub(crate) fn user(name: &str) -> NewUser {
    let password_hash = Some("$argon2id$v=19$hash".to_owned());
    NewUser {
        id: UserId::new(),
        name: name.to_owned(),
        role: Role::Member,
        password_hash,
        consent: None,
    }
}

pub(crate) fn key(hash: u8) -> NewKey {
    NewKey {
        id: KeyId::new(),
        hash: [hash; 32],
        name: "ci".to_owned(),
        role: Role::App,
        user: None,
        consent: None,
        requests_per_minute: Some(60),
        tokens_per_minute: Some(u32::MAX),
        expires_at: None,
    }
}

pub(crate) fn model(byte: u8) -> NewModel {
    NewModel {
        digest: ModelDigest::from_bytes([byte; 32]),
        name: format!("model-{byte}"),
        kind: ModelKind::Base,
        base: None,
        parent: None,
        run: None,
        config: None,
        size_bytes: 1 << 40,
        detail: json!({"licence": "MIT"}),
    }
}

const BY: Actor = Actor::Operator;

async fn users_are_added_and_changed(site: Site) {
    let (store, _) = site.open().await;
    let anna = user("anna");
    store.create_user(anna.clone(), BY).await.unwrap();
    let found = store.user(anna.id).await.unwrap();
    assert_eq!((found.name.as_str(), found.role), ("anna", Role::Member));
    assert_eq!(found.password_hash, anna.password_hash);
    assert!(!format!("{found:?}").contains("argon2"), "a hash in a log");
    let same_name = store.create_user(user("anna"), BY).await.unwrap_err();
    assert!(matches!(same_name, StoreError::Exists { what: "user", .. }), "{same_name}");
    let change = UserChange { role: Some(Role::Admin), disabled: Some(true), ..Default::default() };
    store.change_user(anna.id, change, BY).await.unwrap();
    let found = store.user_by_name("anna").await.unwrap().unwrap();
    assert_eq!((found.id, found.role), (anna.id, Role::Admin));
    assert!(found.disabled_at.is_some());
    assert!(store.user_by_name("nobody\0").await.unwrap().is_none());
    let missing = store.change_user(UserId::new(), UserChange::default(), BY).await;
    assert!(matches!(missing, Err(StoreError::NoSuchUser(_))));
    store.create_user(user("bert"), BY).await.unwrap();
    let names: Vec<_> = store.users(Page::oldest(9)).await.unwrap();
    assert_eq!(names.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["anna", "bert"]);
}

async fn keys_are_found_while_they_may_be_used(site: Site) {
    let (store, _) = site.open().await;
    let new = key(1);
    store.create_key(new.clone(), BY).await.unwrap();
    let found = store.key_by_hash(new.hash).await.unwrap().unwrap();
    assert_eq!((found.id, found.role, found.name.as_str()), (new.id, Role::App, "ci"));
    assert_eq!((found.requests_per_minute, found.tokens_per_minute), (Some(60), Some(u32::MAX)));
    assert!(store.key_by_hash([2; 32]).await.unwrap().is_none());
    let same_hash = store.create_key(key(1), BY).await.unwrap_err();
    assert!(matches!(same_hash, StoreError::Exists { what: "key", .. }), "{same_hash}");

    store.revoke_key(new.id, BY).await.unwrap();
    assert!(store.key_by_hash(new.hash).await.unwrap().is_none());
    let revoked_at = store.key(new.id).await.unwrap().revoked_at.unwrap();
    store.revoke_key(new.id, BY).await.unwrap();
    assert_eq!(store.key(new.id).await.unwrap().revoked_at, Some(revoked_at));

    let now = Timestamp::now();
    let old = NewKey { expires_at: Some(now.minus(Duration::from_secs(1))), ..key(3) };
    let young = NewKey { expires_at: Some(now.plus(Duration::from_secs(60))), ..key(4) };
    store.create_key(old, BY).await.unwrap();
    store.create_key(young, BY).await.unwrap();
    assert!(store.key_by_hash([3; 32]).await.unwrap().is_none());
    assert!(store.key_by_hash([4; 32]).await.unwrap().is_some());

    let anna = user("anna");
    store.create_user(anna.clone(), BY).await.unwrap();
    store.create_key(NewKey { user: Some(anna.id), ..key(5) }, BY).await.unwrap();
    assert!(store.key_by_hash([5; 32]).await.unwrap().is_some());
    let change = UserChange { disabled: Some(true), ..Default::default() };
    store.change_user(anna.id, change, BY).await.unwrap();
    assert!(store.key_by_hash([5; 32]).await.unwrap().is_none());
    assert_eq!(store.list_keys(Page::newest(100)).await.unwrap().len(), 4);
    let refused = store.create_key(NewKey { user: Some(UserId::new()), ..key(6) }, BY).await;
    assert!(matches!(refused, Err(StoreError::NoSuchUser(_))));
}

async fn sessions_end(site: Site) {
    let (store, _) = site.open().await;
    let anna = user("anna");
    store.create_user(anna.clone(), BY).await.unwrap();
    let begin = async |byte: u8, seconds: i64| {
        let expires_at = Timestamp::from_micros(Timestamp::now().as_micros() + seconds * 1_000_000);
        let session =
            NewSession { token_hash: [byte; 32], owner: SessionOwner::User(anna.id), expires_at };
        store.create_session(session).await.unwrap();
    };
    let is_on = async |byte: u8| store.session_user([byte; 32]).await.unwrap().is_some();
    begin(1, 60).await;
    begin(2, -1).await;
    begin(3, 60).await;
    assert_eq!(store.session_user([1; 32]).await.unwrap().unwrap().id, anna.id);
    assert!(!is_on(2).await, "it has ended");
    store.end_session([1; 32]).await.unwrap();
    assert!(!is_on(1).await);
    assert!(is_on(3).await);
    let change = UserChange { password_hash: Some("other".to_owned()), ..Default::default() };
    store.change_user(anna.id, change, BY).await.unwrap();
    assert!(!is_on(3).await, "another password ends sessions");
    let expires_at = Timestamp::now();
    let stranger =
        NewSession { token_hash: [4; 32], owner: SessionOwner::User(UserId::new()), expires_at };
    assert!(matches!(store.create_session(stranger).await, Err(StoreError::NoSuchUser(_))));
}

async fn sessions_of_keys_end_with_the_key(site: Site) {
    let (store, _) = site.open().await;
    let new_key = key(7);
    store.create_key(new_key.clone(), BY).await.unwrap();
    let owner = SessionOwner::Key(new_key.id);
    let later = Timestamp::now().plus(std::time::Duration::from_secs(60));
    let begin = async |byte: u8, owner, expires_at| {
        store.create_session(NewSession { token_hash: [byte; 32], owner, expires_at }).await
    };
    let whose = async |byte: u8| {
        let found = store.session_key([byte; 32]).await.unwrap();
        found.map(|key| key.id)
    };
    begin(1, owner, later).await.unwrap();
    begin(2, owner, Timestamp::now()).await.unwrap();
    assert_eq!(whose(1).await, Some(new_key.id));
    assert_eq!(whose(2).await, None, "it has ended");
    assert_eq!(whose(3).await, None, "there is none");
    assert!(store.session_user([1; 32]).await.unwrap().is_none());
    let stranger = SessionOwner::Key(KeyId::new());
    assert!(matches!(begin(4, stranger, later).await, Err(StoreError::NoSuchKey(_))));
    // Only so many: the oldest ends.
    for byte in 100..200 {
        begin(byte, owner, later).await.unwrap();
    }
    assert_eq!(whose(1).await, None);
    assert_eq!(whose(199).await, Some(new_key.id));
    store.revoke_key(new_key.id, BY).await.unwrap();
    assert_eq!(whose(199).await, None, "it ends with its key");
}

async fn a_no_anywhere_wins_and_reaches_back(site: Site) {
    let (store, config) = site.open().await;
    let (anna, new_key) = (user("anna"), key(1));
    store.create_user(anna.clone(), BY).await.unwrap();
    store.create_key(new_key.clone(), BY).await.unwrap();
    let say = async |consent: Option<bool>| {
        let mut new = turn(config);
        (new.user, new.key, new.consent) = (Some(anna.id), Some(new_key.id), consent);
        let id = new.id;
        store.record_turn(new).await.unwrap();
        id
    };
    let may_learn = async |id| store.turn(id).await.unwrap().may_learn;
    let user_says = async |consent: Option<bool>| {
        let change = UserChange { consent: Some(consent), ..Default::default() };
        store.change_user(anna.id, change, BY).await.unwrap();
    };
    assert!(!may_learn(say(None).await).await);
    assert!(may_learn(say(Some(true)).await).await);
    user_says(Some(true)).await;
    let said = say(None).await;
    assert!(may_learn(said).await);
    assert!(!may_learn(say(Some(false)).await).await);
    store.set_key_consent(new_key.id, Some(false), BY).await.unwrap();
    assert!(!may_learn(say(Some(true)).await).await);
    assert!(!may_learn(said).await, "a no of the key takes back what was given");
    store.set_key_consent(new_key.id, None, BY).await.unwrap();
    let said = say(None).await;
    assert!(may_learn(said).await);
    user_says(Some(false)).await;
    assert!(!may_learn(said).await, "a no of the user takes back what was given");
}

async fn models_are_recorded_once(site: Site) {
    let (store, _) = site.open().await;
    store.record_model(model(1)).await.unwrap();
    store.record_model(NewModel { name: "other".to_owned(), ..model(1) }).await.unwrap();
    let found = store.model(model(1).digest).await.unwrap();
    assert_eq!(found.recorded, model(1));
    let adapter = NewModel {
        kind: ModelKind::Adapter,
        base: Some(model(1).digest),
        parent: Some(model(1).digest),
        run: Some(RunId::new()),
        ..model(2)
    };
    store.record_model(adapter.clone()).await.unwrap();
    assert_eq!(store.model(adapter.digest).await.unwrap().recorded, adapter);
    assert_eq!(store.models().await.unwrap().len(), 2);
    let refused = store.record_model(NewModel { kind: ModelKind::Adapter, ..model(3) }).await;
    assert!(matches!(refused, Err(StoreError::Invalid { field: "base", .. })));
    store.block_model(adapter.digest, "it saw what it must not", BY).await.unwrap();
    let blocked = store.model(adapter.digest).await.unwrap().blocked.unwrap();
    assert_eq!(blocked.1, "it saw what it must not");
}

fn target(byte: u8) -> Option<AliasTarget> {
    Some(AliasTarget { model: model(byte).digest, adapter: None })
}

fn a_move(expected: Option<AliasTarget>, to: Option<AliasTarget>) -> NewAliasMove {
    let (alias, reason) = ("assistant@production".to_owned(), "gate 7\0".to_owned());
    NewAliasMove { alias, expected, to, actor: Actor::User(UserId::from_bytes([1; 16])), reason }
}

async fn pointed(store: &Store) -> Option<AliasTarget> {
    store.alias("assistant@production").await.unwrap().map(|alias| alias.target)
}

async fn an_alias_moves_if_it_is_where_it_was_thought(site: Site) {
    let (store, _) = site.open().await;
    for byte in 1..=3 {
        store.record_model(model(byte)).await.unwrap();
    }
    let with_adapter = Some(AliasTarget { model: model(1).digest, adapter: Some(model(3).digest) });
    let moved = store.move_alias(a_move(None, target(1))).await.unwrap();
    assert_eq!((moved.from, moved.to), (None, target(1)));
    for (wrong, to) in [
        (None, target(2)),
        (target(2), target(1)),
        (with_adapter, target(2)),
        (target(2), None),
        (None, None),
    ] {
        let refused = store.move_alias(a_move(wrong, to)).await.unwrap_err();
        assert!(matches!(refused, StoreError::AliasMoved { .. }), "{refused}");
    }
    assert_eq!(pointed(&store).await, target(1));
    store.move_alias(a_move(target(1), with_adapter)).await.unwrap();
    let refused = store.move_alias(a_move(target(1), target(2))).await.unwrap_err();
    assert!(matches!(refused, StoreError::AliasMoved { .. }), "{refused}");
    store.move_alias(a_move(with_adapter, target(2))).await.unwrap();
    let refused = store.move_alias(a_move(target(2), target(9))).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchModel(_)), "{refused}");
    store.block_model(model(1).digest, "bad", BY).await.unwrap();
    let refused = store.move_alias(a_move(target(2), target(1))).await.unwrap_err();
    assert!(matches!(refused, StoreError::ModelBlocked { .. }), "{refused}");
    assert_eq!(store.aliases().await.unwrap().len(), 1);
    store.move_alias(a_move(target(2), None)).await.unwrap();
    assert_eq!(pointed(&store).await, None);

    let history = store.alias_history("assistant@production", Page::oldest(9)).await.unwrap();
    let moves: Vec<_> = history.iter().map(|moved| (moved.from, moved.to)).collect();
    let expected = [
        (None, target(1)),
        (target(1), with_adapter),
        (with_adapter, target(2)),
        (target(2), None),
    ];
    assert_eq!(moves, expected);
    assert_eq!(history[0], moved);
    let log = store.audit_log(Page::newest(100)).await.unwrap();
    assert_eq!(log.iter().filter(|entry| entry.action == "alias.move").count(), 4);
    assert_eq!(log[0].actor, Actor::User(UserId::from_bytes([1; 16])));
}

async fn two_who_move_an_alias_do_not_both_win(site: Site) {
    // Two stores, as two processes would have.
    let (one, _) = site.open().await;
    let (other, _) = site.open().await;
    for byte in 1..=2 {
        one.record_model(model(byte)).await.unwrap();
    }
    one.move_alias(a_move(None, target(1))).await.unwrap();
    let mut here = target(1);
    for _ in 0..20 {
        let there = if here == target(1) { target(2) } else { target(1) };
        let (a, b) = tokio::join!(
            one.move_alias(a_move(here, there)),
            other.move_alias(a_move(here, there))
        );
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        here = there;
        assert_eq!(pointed(&one).await, here);
    }
    let history = one.alias_history("assistant@production", Page::oldest(100)).await.unwrap();
    assert_eq!(history.len(), 21);
}

async fn runs_go_forward(site: Site) {
    let (store, config) = site.open().await;
    let new = NewRun {
        id: RunId::new(),
        kind: "tune".to_owned(),
        user: None,
        key: None,
        base: Some(model(1).digest),
        config: Some(config),
        detail: json!({"epochs": 1}),
    };
    store.record_run(new.clone()).await.unwrap();
    let status = |status| RunChange { status: Some(status), ..Default::default() };
    let run = store.change_run(new.id, status(RunStatus::Running)).await.unwrap();
    assert!(run.started_at.is_some() && run.finished_at.is_none());
    let refused = store.change_run(new.id, status(RunStatus::Queued)).await.unwrap_err();
    assert!(matches!(refused, StoreError::RunStatus { found: "running", .. }), "{refused}");
    let done = RunChange {
        status: Some(RunStatus::Failed),
        error: Some("NaN\0 in batch 3".to_owned()),
        detail: Some(json!({"epochs": 2})),
        ..Default::default()
    };
    let run = store.change_run(new.id, done).await.unwrap();
    assert_eq!(run.error.as_deref(), Some("NaN\0 in batch 3"));
    assert_eq!(run.recorded.detail, json!({"epochs": 2}));
    assert!(run.finished_at.is_some());
    let refused = store.change_run(new.id, status(RunStatus::Succeeded)).await.unwrap_err();
    assert!(matches!(refused, StoreError::RunStatus { found: "failed", .. }), "{refused}");
    assert_eq!(store.run(new.id).await.unwrap(), run);
    let filters = [
        RunFilter { status: Some(RunStatus::Failed), ..RunFilter::default() },
        RunFilter { kind: Some("tune".to_owned()), ..RunFilter::default() },
        RunFilter { status: Some(RunStatus::Queued), ..RunFilter::default() },
        RunFilter { key: Some(KeyId::new()), ..RunFilter::default() },
        RunFilter { user: Some(UserId::new()), ..RunFilter::default() },
    ];
    for (index, filter) in filters.iter().enumerate() {
        let found = store.runs(filter, Page::newest(5)).await.unwrap();
        let expected: &[_] = if index < 2 { std::slice::from_ref(&run) } else { &[] };
        assert_eq!(found, expected, "{filter:?}");
    }

    let event = |message: &str| NewRunEvent {
        run: new.id,
        level: "info".to_owned(),
        message: message.to_owned(),
        data: json!({"step": 1}),
    };
    for message in ["one", "two\0"] {
        store.add_run_event(event(message)).await.unwrap();
    }
    let events = store.run_events(new.id, Page::oldest(10)).await.unwrap();
    let events: Vec<_> = events.into_iter().map(|event| event.recorded).collect();
    assert_eq!(events, [event("one"), event("two\0")]);
    let stray = NewRunEvent { run: RunId::new(), ..event("x") };
    assert!(matches!(store.add_run_event(stray).await, Err(StoreError::NoSuchRun(_))));
}

async fn the_audit_log_keeps_what_it_is_told(site: Site) {
    let (store, _) = site.open().await;
    let actors = [BY, Actor::User(UserId::new()), Actor::Key(KeyId::new())];
    for actor in actors {
        let object = "any \0 text".to_owned();
        let entry =
            NewAuditEntry { actor, action: "server.start".to_owned(), object, detail: json!([1]) };
        store.audit(entry).await.unwrap();
    }
    let log = store.audit_log(Page::oldest(10)).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.actor).collect::<Vec<_>>(), actors);
    assert_eq!((log[0].object.as_str(), &log[0].detail), ("any \0 text", &json!([1])));
}
