//! A backup brings everything back, into the same database and into the other.

use feilun_store::audit::{Actor, NewAuditEntry};
use feilun_store::conversations::ConversationFilter;
use feilun_store::feedback::FeedbackValue;
use feilun_store::files::{FileFilter, NewFile};
use feilun_store::id::FileId;
use feilun_store::keys::NewKey;
use feilun_store::{Page, Store, StoreError};
use serde_json::json;

use crate::administration::{key, model, user};
use crate::captured::feedback;
use crate::site::{Site, block_on, on_both, turn};

on_both! {
    everything_comes_back;
    a_damaged_backup_restores_nothing;
}

const BY: Actor = Actor::Operator;

async fn fill(store: &Store) {
    let config = store.record_config(&json!({"a": 1e-7})).await.unwrap();
    let anna = user("anna");
    store.create_user(anna.clone(), BY).await.unwrap();
    store.create_key(NewKey { user: Some(anna.id), ..key(1) }, BY).await.unwrap();
    store.record_model(model(1)).await.unwrap();
    // More than are read at once.
    for index in 0..70 {
        let mut new = turn(config);
        new.user = (index % 2 == 0).then_some(anna.id);
        let id = new.id;
        store.record_turn(new).await.unwrap();
        let value = match index % 3 {
            0 => FeedbackValue::Score(0.1 + f64::from(index)),
            1 => FeedbackValue::Comment("飞轮\0".to_owned()),
            _ => FeedbackValue::Rating(false),
        };
        store.add_feedback(feedback(id, value, config)).await.unwrap();
    }
    let mut writer = store.blob_writer(100).unwrap();
    writer.write(b"bytes of a file").unwrap();
    let (purpose, name) = ("fine-tune".to_owned(), "a.jsonl".to_owned());
    let file = NewFile { id: FileId::new(), purpose, name, user: Some(anna.id), key: None };
    store.add_file(file, writer.finish().unwrap()).await.unwrap();
    let (action, object) = ("test.fill".to_owned(), "\0".to_owned());
    store.audit(NewAuditEntry { actor: BY, action, object, detail: json!([]) }).await.unwrap();
}

/// Everything that can be asked for.
async fn content(store: &Store) -> String {
    let turns = store.turns(&Default::default(), Page::oldest(1000)).await.unwrap();
    let mut said = Vec::new();
    for turn in &turns {
        said.extend(store.feedback_of(turn.recorded.id).await.unwrap());
    }
    let filter = ConversationFilter { search: Some("flywheel".to_owned()), ..Default::default() };
    let conversations = store.conversations(&filter, Page::oldest(1000)).await.unwrap();
    let files = store.files(&FileFilter::default(), Page::oldest(10)).await.unwrap();
    store.open_blob(files[0].digest).unwrap();
    let (users, models) = (store.users(Page::oldest(10)).await, store.models().await);
    let key = store.key_by_hash([1; 32]).await.unwrap().unwrap();
    let log = store.audit_log(Page::oldest(100)).await.unwrap();
    format!(
        "{turns:#?} {said:#?} {conversations:#?} {files:?} {users:?} {models:?} {key:?} {log:?}"
    )
}

async fn everything_comes_back(site: Site) {
    let store = Store::open(&site.url, site.options()).await.unwrap();
    fill(&store).await;
    let backup = site.folder.path().join("backup");
    let saved = store.backup(&backup).await.unwrap();
    assert!(saved.rows > 200 && saved.blobs == 1, "{saved:?}");
    let again = store.backup(&backup).await.unwrap_err();
    assert!(matches!(again, StoreError::Exists { what: "folder", .. }), "{again}");
    for other in [Site::sqlite(), Site::postgres()] {
        let restored = Store::restore(&backup, &other.url, other.options()).await;
        let (restored, report) = restored.unwrap();
        assert_eq!(report, saved);
        assert_eq!(content(&restored).await, content(&store).await);
        // It goes on from there.
        let config = restored.record_config(&json!(2)).await.unwrap();
        restored.record_turn(turn(config)).await.unwrap();
        let full = Store::restore(&backup, &other.url, other.options()).await.map(drop);
        assert!(matches!(full, Err(StoreError::Exists { .. })), "{full:?}");
    }
}

async fn a_damaged_backup_restores_nothing(site: Site) {
    let store = Store::open(&site.url, site.options()).await.unwrap();
    fill(&store).await;
    let backup = site.folder.path().join("backup");
    store.backup(&backup).await.unwrap();
    let other = Site::sqlite();
    let restore = async || Store::restore(&backup, &other.url, other.options()).await.map(drop);
    let turns = std::fs::read(backup.join("turns.jsonl")).unwrap();
    let mut damaged = turns.clone();
    damaged[1000] ^= 1;
    std::fs::write(backup.join("turns.jsonl"), damaged).unwrap();
    assert!(matches!(restore().await, Err(StoreError::Damaged { .. })));
    std::fs::write(backup.join("turns.jsonl"), turns).unwrap();
    let manifest = std::fs::read_to_string(backup.join("manifest.json")).unwrap();
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"schema\": ", "\"schema\": 100"),
        ("\"tables\"", "\"desks\""),
        ("\"blobs\": [\n    \"", "\"blobs\": [\n    \"../../x"),
    ] {
        assert!(manifest.contains(from), "{manifest}");
        std::fs::write(backup.join("manifest.json"), manifest.replace(from, to)).unwrap();
        let error = restore().await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
    assert!(!other.url.sqlite_path().unwrap().exists(), "nothing was begun");
    std::fs::write(backup.join("manifest.json"), manifest).unwrap();
    restore().await.unwrap();
}

#[test]
fn a_backup_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::sqlite();
    block_on(async {
        let (store, _) = site.open().await;
        let backup = site.folder.path().join("backup");
        store.backup(&backup).await.unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(backup.clone()), 0o700);
        assert_eq!(mode(backup.join("manifest.json")), 0o600);
    });
}
