//! A place for a store: a SQLite file, or a schema of the tests' PostgreSQL.

use std::future::Future;
use std::path::PathBuf;

use feilun_store::digest::{ConfigHash, ModelDigest, TemplateHash};
use feilun_store::id::{ConversationId, TurnId};
use feilun_store::turns::{Api, NewTurn};
use feilun_store::{Store, StoreOptions, StoreUrl, Timestamp};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// Defines a test for each database from one body, an async function of a [`Site`].
macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident;)+) => {
        mod sqlite {
            $($(#[$attribute])* #[test] fn $name() {
                crate::site::run(crate::site::Site::sqlite(), super::$name);
            })+
        }
        mod postgres {
            $($(#[$attribute])* #[test] fn $name() {
                crate::site::run(crate::site::Site::postgres(), super::$name);
            })+
        }
    };
}
pub(crate) use on_both;

/// Where a test's store is.
pub(crate) struct Site {
    pub(crate) url: StoreUrl,
    /// As the tests must say it to a child, with the password.
    pub(crate) address: String,
    pub(crate) folder: TempDir,
    schema: Option<String>,
}

/// The address of the tests' PostgreSQL.
pub(crate) fn postgres_address() -> String {
    std::env::var("FEILUN_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "FEILUN_TEST_POSTGRES is not set: start the tests with `cargo xtask test -p \
             feilun-store`, or set it to the address of a PostgreSQL for tests"
        )
    })
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

pub(crate) fn run<F: Future<Output = ()>>(site: Site, body: impl FnOnce(Site) -> F) {
    block_on(body(site));
}

impl Site {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("sqlite:{}", folder.path().join("feilun.db").display());
        Self { url: address.parse().unwrap(), address, folder, schema: None }
    }

    pub(crate) fn postgres() -> Self {
        let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
        administer(format!("CREATE SCHEMA {schema}"));
        let address = format!("{}?options[search_path]={schema}", postgres_address());
        let url = address.parse().unwrap();
        Self { url, address, folder: tempfile::tempdir().unwrap(), schema: Some(schema) }
    }

    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions::new(self.blobs())
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.folder.path().join("blobs")
    }

    /// A store, and the configuration that its turns bear.
    pub(crate) async fn open(&self) -> (Store, ConfigHash) {
        let store = Store::open(&self.url, self.options()).await.unwrap();
        let config = store.record_config(&json!({"test": true})).await.unwrap();
        (store, config)
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.schema.is_none()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(schema) = &self.schema {
            let sql = format!("SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE");
            administer(sql);
        }
    }
}

/// Runs a statement on the tests' PostgreSQL, from within async code or without.
pub(crate) fn administer(sql: String) {
    let done = std::thread::spawn(move || {
        block_on(async {
            let mut connection = PgConnection::connect(&postgres_address()).await.unwrap();
            connection.execute(sqlx::raw_sql(&sql)).await.unwrap();
            connection.close().await.unwrap();
        });
    });
    // While a test fails already, its failure is what counts.
    if done.join().is_err() && !std::thread::panicking() {
        panic!("the tests' PostgreSQL refused a statement");
    }
}

/// A turn that begins a conversation of its own.
pub(crate) fn turn(config: ConfigHash) -> NewTurn {
    let received_at = Timestamp::now();
    NewTurn {
        id: TurnId::new(),
        conversation: ConversationId::new(),
        parent: None,
        user: None,
        end_user: None,
        key: None,
        app: Some("assistant".to_owned()),
        model: ModelDigest::from_bytes([7; 32]),
        adapter: Some(ModelDigest::from_bytes([8; 32])),
        alias: Some("assistant@production".to_owned()),
        api: Api::Chat,
        request: json!([{"role": "user", "content": "What is a 飞轮?\u{0}"}]),
        answer: json!({"role": "assistant", "content": "A flywheel."}),
        prompt_tokens: vec![1, 2, 3, u32::MAX],
        answer_tokens: vec![4, 5],
        answer_logprobs: vec![-0.25, f32::NEG_INFINITY],
        seed: Some(u64::MAX),
        sampling: json!({"temperature": 0.1, "top_p": 1e-300}),
        template: Some(TemplateHash::from_bytes([9; 32])),
        config,
        consent: None,
        finish_reason: "stop".to_owned(),
        received_at,
        first_token_at: Some(received_at),
        finished_at: received_at,
        num_cached_tokens: 2,
        error: Some("none, but with a NUL: \0".to_owned()),
    }
}
