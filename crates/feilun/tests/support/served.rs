//! A running `feilun up` with SmolLM2, for tests that need the real server process.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The model file, as `cargo xtask test` provides it.
pub(crate) fn model_file() -> PathBuf {
    let Some(folder) = std::env::var_os("FEILUN_TEST_MODELS") else {
        panic!("FEILUN_TEST_MODELS is not set: run the tests with `cargo xtask test`");
    };
    let path = PathBuf::from(folder).join("smollm2.gguf");
    assert!(path.exists(), "{path:?} is missing: run the tests with `cargo xtask test`");
    path
}

/// The program, with a data directory and nothing of the tester's settings.
pub(crate) fn feilun(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feilun"));
    without_settings(&mut command);
    command.env("FEILUN_DATA_DIR", data).args(args);
    command
}

pub(crate) fn without_settings(command: &mut Command) {
    for name in ["FEILUN_ISA", "FEILUN_THREADS", "FEILUN_DATABASE_URL"] {
        command.env_remove(name);
    }
}

/// The server's arguments but for its model.
pub(crate) const UP: [&str; 5] = ["up", "--listen", "127.0.0.1:0", "--log", "warn"];

/// A running `feilun up`.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) url: String,
    /// From its start until it listened.
    pub(crate) start_time: Duration,
    /// What it said meanwhile and since.
    said: Arc<Mutex<Vec<String>>>,
}

impl Up {
    pub(crate) fn start(data: &Path) -> Up {
        let mut command = feilun(data, &UP);
        command.arg("--model").arg(model_file());
        Up::start_command(command)
    }

    /// `command` becomes a server.
    pub(crate) fn start_command(mut command: Command) -> Up {
        let start = Instant::now();
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it does not listen: {:?}", said.lock().unwrap());
            };
            if let Some(rest) = line.strip_prefix("listening on ") {
                break rest.split(' ').next().unwrap().to_owned();
            }
            said.lock().unwrap().push(line);
        };
        let start_time = start.elapsed();
        // Read on, so that it is never held up by a full pipe.
        let log = Arc::clone(&said);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line));
        });
        Up { child, url, start_time, said }
    }

    pub(crate) fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The last lines of its log, for a test that fails.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said.lock().unwrap();
        said[said.len().saturating_sub(20)..].join("\n")
    }

    /// Status and body of a request.
    pub(crate) fn ask(&self, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = agent().post(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        answer(request.content_type("application/json").send(body.to_string()).unwrap())
    }

    /// Status and body of a request without a body.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(format!("{}{path}", self.url)).call().unwrap())
    }

    /// A file of examples, as OpenAI's clients send it.
    pub(crate) fn upload(&self, text: &str) -> (u16, Value) {
        let part = "--limit\r\nContent-Disposition: form-data; name=";
        let body = format!(
            "{part}\"purpose\"\r\n\r\nfine-tune\r\n\
             {part}\"file\"; filename=\"examples.jsonl\"\r\n\r\n{text}\r\n--limit--\r\n"
        );
        let request = agent().post(format!("{}/v1/files", self.url));
        answer(request.content_type("multipart/form-data; boundary=limit").send(body).unwrap())
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a service manager does.
    pub(crate) fn terminate(mut self) {
        kill_process(self.process(), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.last_words());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that takes every status for an answer.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)));
    config.build().into()
}

fn answer(mut answer: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
