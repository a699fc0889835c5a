//! Opening: new, again, together, what a newer program made, what is no database.

use feilun_store::{Store, StoreError, StoreUrl};
use futures_util::future::join_all;
use sqlx::{Connection as _, Executor as _};

use crate::site::{Site, administer, block_on, on_both, turn};

on_both! {
    many_open_a_new_database_together;
    a_newer_schema_is_refused;
    another_history_is_refused;
}

/// Runs a statement behind the store's back.
async fn meddle(site: &Site, sql: &str) {
    if let Some(path) = site.url.sqlite_path() {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        connection.execute(sqlx::raw_sql(sql)).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let (_, schema) = site.address.split_once("search_path]=").unwrap();
        administer(format!("SET search_path = {schema}; {sql}"));
    }
}

async fn many_open_a_new_database_together(site: Site) {
    let stores = join_all((0..8).map(|_| Store::open(&site.url, site.options()))).await;
    for store in stores {
        let store = store.unwrap();
        let config = store.record_config(&().into()).await.unwrap();
        store.record_turn(turn(config)).await.unwrap();
    }
}

async fn a_newer_schema_is_refused(site: Site) {
    site.open().await.0.close().await.unwrap();
    let newer = "INSERT INTO schema_migrations
        SELECT 99, digest, 0 FROM schema_migrations WHERE number = 1";
    meddle(&site, newer).await;
    let error = Store::open(&site.url, site.options()).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::SchemaTooNew { found: 99, .. }), "{error}");
    meddle(&site, "DELETE FROM schema_migrations WHERE number = 99").await;
    site.open().await;
}

async fn another_history_is_refused(site: Site) {
    site.open().await.0.close().await.unwrap();
    let other = if site.is_sqlite() { "x'00'" } else { "'\\x00'" };
    let digest = format!("UPDATE schema_migrations SET digest = {other}");
    meddle(&site, &digest).await;
    let error = Store::open(&site.url, site.options()).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::SchemaDiffers { number: 1 }), "{error}");
}

#[test]
fn what_is_no_database_is_left_alone() {
    let site = Site::sqlite();
    let path = site.url.sqlite_path().unwrap();
    let text = "some notes of mine\n".repeat(1000);
    std::fs::write(path, &text).unwrap();
    block_on(async {
        let error = Store::open(&site.url, site.options()).await.map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        let nowhere = StoreUrl::sqlite(site.folder.path().join("no/such/folder/feilun.db"));
        let error = Store::open(&nowhere, site.options()).await.map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Io { what: "open", .. }), "{error}");
    });
}

#[test]
fn the_file_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::sqlite();
    block_on(async {
        let _store = site.open().await;
        for name in ["feilun.db", "feilun.db-wal", "feilun.db-shm"] {
            let metadata = std::fs::metadata(site.folder.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        }
    });
}
