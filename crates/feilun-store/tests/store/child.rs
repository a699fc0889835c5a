//! Work in a process of its own: this test program, started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use feilun_store::digest::ConfigHash;
use feilun_store::feedback::FeedbackValue;
use feilun_store::id::{ConversationId, FeedbackId, TurnId};
use feilun_store::turns::NewTurn;
use feilun_store::{Store, StoreOptions, StoreUrl, Timestamp};
use serde_json::json;
use sqlx::{Connection as _, Executor as _};

use crate::captured::feedback;
use crate::site::{Site, block_on, turn};

const ADDRESS: &str = "FEILUN_TEST_STORE";
const BLOBS: &str = "FEILUN_TEST_BLOBS";
const WORK: &str = "FEILUN_TEST_WORK";
/// The arguments that make this program a child.
pub(crate) const ARGUMENTS: [&str; 4] =
    ["--exact", "child::child_process", "--ignored", "--nocapture"];
/// Writers at the same time, so that commits are shared.
const NUM_WRITERS: usize = 8;

/// What a child says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Turn(TurnId),
    Feedback(TurnId, FeedbackId),
    Locked,
    Error(String),
}

#[test]
#[ignore = "the other tests start it as a child process"]
fn child_process() {
    let (Ok(address), Ok(blobs)) = (std::env::var(ADDRESS), std::env::var(BLOBS)) else { return };
    match std::env::var(WORK).unwrap().as_str() {
        "write" => block_on(write(&address, &blobs)),
        "lock" => block_on(lock(&address)),
        other => panic!("no such work: {other}"),
    }
}

/// Writes turns and feedback until something fails or somebody kills us, and says what was
/// acknowledged.
async fn write(address: &str, blobs: &str) {
    let url: StoreUrl = address.parse().unwrap();
    let store = Store::open(&url, StoreOptions::new(blobs)).await.unwrap();
    let config = store.record_config(&json!({"child": true})).await.unwrap();
    let writers = (0..NUM_WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let id = TurnId::new();
                if let Err(error) = store.record_turn(derived(id, config)).await {
                    return say(&format!("error {error:?}"));
                }
                say(&format!("turn {id}"));
                let rating = feedback(id, FeedbackValue::Rating(true), config);
                match store.add_feedback(rating).await {
                    Ok(feedback) => say(&format!("feedback {id} {feedback}")),
                    Err(error) => return say(&format!("error {error:?}")),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    // What is there can still be read.
    let all = store.turns(&Default::default(), feilun_store::Page::oldest(1)).await.unwrap();
    assert_eq!(all.len(), 1);
}

/// Holds SQLite's write lock until our input ends.
async fn lock(address: &str) {
    let path = address.strip_prefix("sqlite:").unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();
    say("locked");
    std::io::stdin().lines().for_each(drop);
    connection.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// A turn of which every byte follows from its id, so that a torn one is noticed.
pub(crate) fn derived(id: TurnId, config: ConfigHash) -> NewTurn {
    let hash = blake3::hash(id.as_bytes());
    let num_tokens = 1 + usize::from(hash.as_bytes()[0]) * 8;
    let mut bytes = vec![0; 4 * num_tokens];
    blake3::Hasher::new().update(id.as_bytes()).finalize_xof().fill(&mut bytes);
    let tokens: Vec<u32> =
        bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
    let text = format!("{id} ").repeat(1 + num_tokens / 8);
    let mut derived = turn(config);
    derived.id = id;
    derived.conversation = ConversationId::from_bytes(*id.as_bytes());
    derived.request = json!([{"role": "user", "content": text}]);
    derived.answer_logprobs = tokens.iter().map(|&token| -(token as f32)).collect();
    derived.answer_tokens = tokens.clone();
    derived.prompt_tokens = tokens;
    derived.received_at = Timestamp::from_micros(1);
    derived.first_token_at = None;
    derived.finished_at = Timestamp::from_micros(2);
    derived
}

/// A child, with what it says.
pub(crate) struct Worker {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(site: &Site, work: &str) -> Self {
        Self::start_command(Command::new(std::env::current_exe().unwrap()), site, work)
    }

    /// `program` becomes a child with the arguments that are added.
    pub(crate) fn start_command(mut program: Command, site: &Site, work: &str) -> Self {
        program.args(ARGUMENTS).env(ADDRESS, &site.address).env(BLOBS, site.blobs());
        program.env(WORK, work).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = program.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// What it says next; nothing at its end.
    pub(crate) fn next(&mut self) -> Option<Said> {
        // The first line shares its line with the name of the test.
        let said = |line: String| line.split_once("child: ").map(|(_, said)| said.to_owned());
        let said = self.lines.by_ref().map_while(Result::ok).find_map(said)?;
        let words: Vec<&str> = said.split(' ').collect();
        Some(match words[..] {
            // Each line is written in one piece, so none is cut by a kill.
            ["turn", id] => Said::Turn(id.parse().unwrap()),
            ["feedback", turn, id] => Said::Feedback(turn.parse().unwrap(), id.parse().unwrap()),
            ["locked"] => Said::Locked,
            _ => Said::Error(said),
        })
    }

    /// `kill -9` after a while; what it had said until then.
    pub(crate) fn kill_after(mut self, pause: Duration) -> Vec<Said> {
        let id = rustix::process::Pid::from_child(&self.process);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        });
        // Read meanwhile, or the child would wait for room in the pipe.
        let mut all = Vec::new();
        while let Some(said) = self.next() {
            all.push(said);
        }
        killer.join().unwrap();
        all
    }

    /// Waits until it ends by itself, with everything it says.
    pub(crate) fn all(mut self) -> Vec<Said> {
        let mut all = Vec::new();
        while let Some(said) = self.next() {
            all.push(said);
        }
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the child failed: {status}");
        all
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A test that fails leaves no child; one that ended is not there to be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
