//! A server in this process: real sockets and a real database, a stub for the engine.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feilun_server::stub::{StubBackend, StubOptions};
use feilun_server::{NewKey, Parts, ServerConfig};
use feilun_store::audit::Actor;
use feilun_store::id::KeyId;
use feilun_store::users::Role;
use feilun_store::{Store, StoreOptions, StoreUrl, Timestamp};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) stub: Arc<StubBackend>,
    pub(crate) trainer: Arc<FakeTrainer>,
    pub(crate) runtime: Runtime,
    has_key: AtomicBool,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

pub(crate) mod fake_trainer;

use fake_trainer::FakeTrainer;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `code` of an error.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or("(none)").to_owned()
    }

    #[track_caller]
    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or("(none)").to_owned()
    }

    /// The data of a stream's events, `[DONE]` as null.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.map(|data| match data {
            "[DONE]" => Value::Null,
            json => serde_json::from_str(json).unwrap_or_else(|_| panic!("no JSON: {json}")),
        })
        .collect()
    }
}

impl TestServer {
    pub(crate) fn start() -> TestServer {
        TestServer::with(StubOptions::default(), |_| {})
    }

    pub(crate) fn with(stub: StubOptions, change: impl FnOnce(&mut ServerConfig)) -> TestServer {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::sqlite(folder.path().join("feilun.db"));
        let options = StoreOptions::new(folder.path().join("blobs"));
        let store = runtime.block_on(Store::open(&url, options)).unwrap();
        let stub = Arc::new(StubBackend::new(stub).unwrap());
        let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let trainer = Arc::new(FakeTrainer::default());
        let parts = Parts {
            backend: Arc::<StubBackend>::clone(&stub),
            store: store.clone(),
            trainer: Some(Arc::<FakeTrainer>::clone(&trainer)),
        };
        let bound = runtime.block_on(feilun_server::bind(config, parts)).unwrap();
        let address = bound.address();
        let stop = CancellationToken::new();
        let task = runtime.spawn(bound.run(stop.clone()));
        TestServer {
            address,
            store,
            stub,
            trainer,
            runtime,
            has_key: AtomicBool::new(false),
            stop,
            task: Some(task),
            _folder: folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body))
    }

    pub(crate) fn chat(&self, body: Value) -> Answer {
        self.post("/v1/chat/completions", &chat(body))
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let agent: ureq::Agent = config.into();
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(body.to_string()).unwrap())
            }
            None => agent.run(request.body(()).unwrap()),
        };
        let mut response = response.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    /// Sends a form with these fields; `file` gets a file name.
    pub(crate) fn form(&self, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let mut body = String::new();
        for (name, value) in fields {
            let file = if *name == "file" { "; filename=\"../a b.jsonl\"" } else { "" };
            let head = format!("Content-Disposition: form-data; name=\"{name}\"{file}");
            body += &format!("--limit\r\n{head}\r\n\r\n{value}\r\n");
        }
        body += "--limit--\r\n";
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = agent.post(self.url("/v1/files"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.content_type("multipart/form-data; boundary=limit");
        let mut response = request.send(body).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    /// Sends bytes as they are and reads until the other side closes, or three seconds passed.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A key that works, and its secret.
    pub(crate) fn key(&self, role: Role) -> String {
        self.key_with(role, |_| {}).1
    }

    pub(crate) fn key_with(
        &self,
        role: Role,
        change: impl FnOnce(&mut feilun_store::keys::NewKey),
    ) -> (KeyId, String) {
        let secret = NewKey::random().unwrap();
        let mut key = feilun_store::keys::NewKey {
            id: KeyId::new(),
            hash: secret.hash,
            name: format!("test {role}"),
            role,
            user: None,
            consent: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            expires_at: None,
        };
        change(&mut key);
        let id = key.id;
        self.runtime.block_on(self.store.create_key(key, Actor::Operator)).unwrap();
        if !self.has_key.swap(true, Ordering::Relaxed) {
            // How long the server may believe that there is none.
            std::thread::sleep(Duration::from_millis(1100));
        }
        (id, secret.secret)
    }

    /// Waits until nothing is generated any more.
    #[track_caller]
    pub(crate) fn wait_until_idle(&self) {
        for _ in 0..200 {
            if self.stub.num_running() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} requests are still at work", self.stub.num_running());
    }

    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            self.runtime.block_on(task).unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn expired() -> Option<Timestamp> {
    Some(Timestamp::now().minus(Duration::from_secs(1)))
}

/// A chat of one message, with more fields.
pub(crate) fn chat(more: Value) -> Value {
    let mut body = serde_json::json!({
        "model": "stub",
        "messages": [{"role": "user", "content": "Hello, 飞轮!"}],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}
