//! Clients that ask a server as fast as it answers, and remember what it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feilun_store::id::{FeedbackId, TurnId};
use serde_json::{Value, json};

use crate::up::agent;

/// Clients at the same time, so that commits are shared.
const NUM_CLIENTS: usize = 8;
/// Before a client that was refused tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a server acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The texts of turns whose last byte the caller has seen.
    pub(crate) turns: BTreeMap<TurnId, String>,
    /// Feedback that was answered with 201.
    pub(crate) feedback: BTreeMap<FeedbackId, TurnId>,
    /// What was refused, by status and code.
    pub(crate) refusals: BTreeMap<String, usize>,
    /// Connections that ended in the middle of an answer.
    pub(crate) num_broken: usize,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: Ledger) {
        self.turns.extend(other.turns);
        self.feedback.extend(other.feedback);
        self.num_broken += other.num_broken;
        for (code, count) in other.refusals {
            *self.refusals.entry(code).or_default() += count;
        }
    }
}

/// Runs clients against a server while `meanwhile` does what it does, and a little longer.
pub(crate) fn load(url: &str, meanwhile: impl FnOnce(&Mutex<Ledger>)) -> Ledger {
    let (stop, ledger) = (AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        for index in 0..NUM_CLIENTS {
            let (stop, ledger) = (&stop, &ledger);
            scope.spawn(move || client(url, index, stop, ledger));
        }
        // Even if it panics, the clients have to end.
        let end = std::panic::AssertUnwindSafe(|| meanwhile(&ledger));
        let outcome = std::panic::catch_unwind(end);
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    ledger.into_inner().unwrap()
}

/// What came of one request.
enum Said {
    /// All of an answer: the id, and a chat's text.
    Whole(String, String),
    Refused(String),
    /// The connection ended.
    Broken,
}

/// Asks until it is told to stop, or the server is gone. Every other answer is a stream, and
/// every answer gets a rating.
fn client(url: &str, index: usize, stop: &AtomicBool, ledger: &Mutex<Ledger>) {
    let agent = agent();
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let said = match chat(&agent, url, &message(index * 1_000_000 + count), count % 2 == 0) {
            Said::Whole(turn, text) => {
                let turn: TurnId = turn.parse().unwrap();
                ledger.lock().unwrap().turns.insert(turn, text);
                rate(&agent, url, turn, ledger)
            }
            other => other,
        };
        match said {
            Said::Whole(..) => {}
            Said::Refused(code) => {
                *ledger.lock().unwrap().refusals.entry(code).or_default() += 1;
                std::thread::sleep(PAUSE);
            }
            Said::Broken => {
                ledger.lock().unwrap().num_broken += 1;
                return;
            }
        }
    }
}

/// A message whose length follows from its beginning, so that a torn one is noticed.
pub(crate) fn message(number: usize) -> String {
    let word = format!("n{number} ");
    word.repeat(1 + number % 7)
}

fn chat(agent: &ureq::Agent, url: &str, message: &str, stream: bool) -> Said {
    let body = json!({
        "model": "smollm2", "max_tokens": 4, "stream": stream,
        "messages": [{"role": "user", "content": message}],
    });
    let request = agent.post(format!("{url}/v1/chat/completions"));
    let sent = request.content_type("application/json").send(body.to_string());
    let Ok(mut answer) = sent else { return Said::Broken };
    if stream && answer.status() == 200 {
        return events(BufReader::new(answer.body_mut().as_reader()));
    }
    let status = answer.status().as_u16();
    let Ok(text) = answer.body_mut().read_to_string() else { return Said::Broken };
    let answer: Value = serde_json::from_str(&text).unwrap();
    match status {
        200 => Said::Whole(word(&answer["id"]), word(&answer["choices"][0]["message"]["content"])),
        status => Said::Refused(refusal(status, &answer)),
    }
}

/// Reads a stream to its end.
fn events(stream: impl BufRead) -> Said {
    let (mut id, mut text) = (String::new(), String::new());
    for line in stream.lines() {
        let Ok(line) = line else { return Said::Broken };
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Said::Whole(id, text);
        }
        let event: Value = serde_json::from_str(data).unwrap();
        if event.get("error").is_some() {
            return Said::Refused(refusal(200, &event));
        }
        id = word(&event["id"]);
        text += event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    Said::Broken
}

fn rate(agent: &ureq::Agent, url: &str, turn: TurnId, ledger: &Mutex<Ledger>) -> Said {
    let body = json!({"turn_id": turn.to_string(), "kind": "rating", "value": true});
    let request = agent.post(format!("{url}/v1/feedback"));
    let sent = request.content_type("application/json").send(body.to_string());
    let Ok(mut answer) = sent else { return Said::Broken };
    let status = answer.status().as_u16();
    let Ok(text) = answer.body_mut().read_to_string() else { return Said::Broken };
    let answer: Value = serde_json::from_str(&text).unwrap();
    if status != 201 {
        return Said::Refused(refusal(status, &answer));
    }
    let id = word(&answer["id"]);
    ledger.lock().unwrap().feedback.insert(id.parse().unwrap(), turn);
    Said::Whole(id, String::new())
}

fn refusal(status: u16, answer: &Value) -> String {
    format!("{status} {}", word(&answer["error"]["code"]))
}

#[track_caller]
fn word(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
