//! Uploaded files: rows and bytes come and go together.

use std::io::Read as _;

use feilun_store::audit::Actor;
use feilun_store::files::{FileFilter, NewFile};
use feilun_store::id::{FileId, KeyId};
use feilun_store::{Page, StoreError};

use crate::site::{Site, on_both};

on_both! {
    bytes_go_with_the_last_file_that_has_them;
    a_refused_file_leaves_no_bytes;
}

fn file(name: &str) -> NewFile {
    let key = Some(KeyId::from_bytes([1; 16]));
    let (purpose, name) = ("fine-tune".to_owned(), name.to_owned());
    NewFile { id: FileId::new(), purpose, name, user: None, key }
}

async fn bytes_go_with_the_last_file_that_has_them(site: Site) {
    let (store, _) = site.open().await;
    let (one, other) = (file("../../etc/passwd"), file("b.jsonl"));
    let mut digest = None;
    for file in [&one, &other] {
        let mut writer = store.blob_writer(1 << 20).unwrap();
        writer.write(b"{\"messages\": []}\n").unwrap();
        let staged = writer.finish().unwrap();
        digest = Some(staged.digest());
        store.add_file(file.clone(), staged).await.unwrap();
    }
    let digest = digest.unwrap();
    let found = store.file(one.id).await.unwrap();
    assert_eq!((&found.recorded, found.digest, found.size_bytes), (&one, digest, 17));
    let filter = FileFilter { purpose: Some("fine-tune".to_owned()), key: one.key, user: None };
    assert_eq!(store.files(&filter, Page::oldest(10)).await.unwrap().len(), 2);
    store.delete_file(one.id, Actor::Operator).await.unwrap();
    let mut text = String::new();
    store.open_blob(digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"messages\": []}\n");
    store.delete_file(other.id, Actor::Operator).await.unwrap();
    assert!(matches!(store.open_blob(digest), Err(StoreError::NoSuchBlob(_))));
    let again = store.delete_file(other.id, Actor::Operator).await;
    assert!(matches!(again, Err(StoreError::NoSuchFile(_))));
}

async fn a_refused_file_leaves_no_bytes(site: Site) {
    let (store, _) = site.open().await;
    let write = |text: &str| {
        let mut writer = store.blob_writer(1 << 20).unwrap();
        writer.write(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let first = file("a");
    store.add_file(first.clone(), write("one")).await.unwrap();
    let staged = write("two");
    let digest = staged.digest();
    let refused = store.add_file(first, staged).await.unwrap_err();
    assert!(matches!(refused, StoreError::Exists { what: "file", .. }), "{refused}");
    assert!(matches!(store.open_blob(digest), Err(StoreError::NoSuchBlob(_))));
    let refused = store.add_file(file("a\0b"), write("three")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { field: "name", .. }), "{refused}");
}
