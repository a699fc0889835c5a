//! A running `feilun up`, and how to ask it.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Up {
    /// Starts it, and waits until it listens. The command ends with `--listen 127.0.0.1:0`.
    pub(crate) fn start(mut command: Command) -> Up {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let url = loop {
            let Some(Ok(line)) = lines.next() else { panic!("it does not listen: {said:?}") };
            if let Some(rest) = line.strip_prefix("listening on ") {
                break rest.split(' ').next().unwrap().to_owned();
            }
            said.push(line);
        };
        // So that it is never held up by a pipe that nobody reads.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Up { child, url }
    }

    pub(crate) fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)));
        config.build().into()
    }

    pub(crate) fn ask(&self, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = Up::agent().post(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        answer(request.content_type("application/json").send(body.to_string()).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(Up::agent().get(format!("{}{path}", self.url)).call().unwrap())
    }

    /// A file of examples, as OpenAI's clients send it.
    pub(crate) fn upload(&self, text: &str) -> (u16, Value) {
        let part = "--limit\r\nContent-Disposition: form-data; name=";
        let body = format!(
            "{part}\"purpose\"\r\n\r\nfine-tune\r\n\
             {part}\"file\"; filename=\"examples.jsonl\"\r\n\r\n{text}\r\n--limit--\r\n"
        );
        let request = Up::agent().post(format!("{}/v1/files", self.url));
        answer(request.content_type("multipart/form-data; boundary=limit").send(body).unwrap())
    }

    /// As a service manager does.
    pub(crate) fn terminate(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn answer(mut answer: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
