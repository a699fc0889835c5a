//! What a comparison of servers found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::peer;
use crate::side_by_side::{machine, median};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Test {
    Chats,
    Long,
    Cached,
    Overhead,
}

impl Test {
    pub(super) fn name(self) -> &'static str {
        match self {
            Test::Chats => "chats-16",
            Test::Long => "long-prompts",
            Test::Cached => "cached-prompt",
            Test::Overhead => "overhead",
        }
    }

    /// What the figure is, and what is asked of ours.
    fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Test::Chats => ("tokens/s in all", "4 times the peer's"),
            Test::Long => ("p99 between tokens over idle", "at most 2"),
            Test::Cached => ("first token, new over cached", "at least 5"),
            Test::Overhead => ("p99 ms with capture", "at most 2"),
        }
    }

    /// Whether more is better.
    fn is_gain(self) -> bool {
        matches!(self, Test::Chats | Test::Cached)
    }
}

/// One turn of one server.
pub(super) struct Measurement {
    pub(super) value: f64,
    /// What it is made of.
    pub(super) detail: Vec<(&'static str, f64)>,
}

/// Turns by test and server.
pub(super) struct Report {
    threads: usize,
    turns: BTreeMap<Test, BTreeMap<&'static str, Vec<Measurement>>>,
}

impl Report {
    pub(super) fn new(threads: usize) -> Report {
        Report { threads, turns: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, test: Test, server: &'static str, found: Measurement) {
        self.turns.entry(test).or_default().entry(server).or_default().push(found);
    }

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "llama-server ({}) on {}, {} threads, SmolLM2 135M Q4_1; medians\n\n",
            peer::PEER.version,
            machine(),
            self.threads
        );
        let _ = writeln!(
            text,
            "{:<15}{:<31}{:>9}{:>9}  goal for ours",
            "test", "figure", "feilun", "peer"
        );
        for (&test, servers) in &self.turns {
            let (meaning, goal) = test.meaning();
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
            let ours = servers.get("feilun").map(|turns| value(turns));
            let peer = best_peer(test, servers).map(|(_, turns)| value(turns));
            let _ = writeln!(
                text,
                "{:<15}{meaning:<31}{:>9}{:>9}  {goal}",
                test.name(),
                shown(ours),
                shown(peer)
            );
        }
        text.push('\n');
        for (&test, servers) in &self.turns {
            for (server, turns) in servers {
                let detail = details(turns);
                if !detail.is_empty() {
                    let shown: Vec<String> =
                        detail.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
                    let _ = writeln!(text, "{}, {server}: {}", test.name(), shown.join(", "));
                }
            }
        }
        text.trim_end().to_owned()
    }

    /// One object for machines.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        let rows: Vec<Value> =
            self.turns.iter().map(|(&test, servers)| row(test, servers)).collect();
        let report = json!({
            "machine": machine(),
            "threads": self.threads,
            "peer": "llama-server",
            "peer_version": peer::PEER.version,
            "rows": rows,
        });
        Ok(serde_json::to_string_pretty(&report)?)
    }
}

type Servers = BTreeMap<&'static str, Vec<Measurement>>;

fn row(test: Test, servers: &Servers) -> Value {
    let mut row = Map::new();
    let (meaning, goal) = test.meaning();
    row.insert("test".into(), json!(test.name()));
    row.insert("figure".into(), json!(meaning));
    row.insert("goal".into(), json!(goal));
    let ours = servers.get("feilun").map(|turns| value(turns));
    let peer = best_peer(test, servers);
    let peer_value = peer.map(|(_, turns)| value(turns));
    if test == Test::Chats {
        // The names that every side-by-side run has.
        row.insert("tokens_per_second".into(), json!(ours));
        row.insert("peer_tokens_per_second".into(), json!(peer_value));
    }
    row.insert("value".into(), json!(ours));
    row.insert("peer_value".into(), json!(peer_value));
    row.insert("peer_build".into(), json!(peer.map(|(name, _)| name)));
    row.insert("ratio".into(), json!(ours.zip(peer_value).map(|(ours, peer)| ours / peer)));
    for (server, turns) in servers {
        let samples: Vec<f64> = turns.iter().map(|turn| turn.value).collect();
        let detail: Map<String, Value> = details(turns)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        row.insert((*server).into(), json!({"samples": samples, "detail": detail}));
    }
    Value::Object(row)
}

fn value(turns: &[Measurement]) -> f64 {
    median(&turns.iter().map(|turn| turn.value).collect::<Vec<_>>())
}

/// Medians of what the figures are made of.
fn details(turns: &[Measurement]) -> Vec<(&'static str, f64)> {
    let Some(first) = turns.first() else { return Vec::new() };
    let of = |index: usize| {
        let values: Vec<f64> =
            turns.iter().filter_map(|turn| Some(turn.detail.get(index)?.1)).collect();
        median(&values)
    };
    first.detail.iter().enumerate().map(|(index, (name, _))| (*name, of(index))).collect()
}

/// The peer is judged by its best build.
fn best_peer(test: Test, servers: &Servers) -> Option<(&'static str, &[Measurement])> {
    let peers = servers.iter().filter(|(name, _)| **name != "feilun");
    let figure = |turns: &[Measurement]| if test.is_gain() { value(turns) } else { -value(turns) };
    peers
        .map(|(name, turns)| (*name, turns.as_slice()))
        .max_by(|a, b| figure(a.1).total_cmp(&figure(b.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f64) -> Measurement {
        Measurement { value, detail: vec![("idle_p99_ms", value)] }
    }

    #[test]
    fn the_peer_is_judged_by_its_best_build() -> anyhow::Result<()> {
        let mut report = Report::new(2);
        for (test, better, worse) in [(Test::Chats, 9.0, 5.0), (Test::Long, 5.0, 9.0)] {
            report.add(test, "clang", one(worse));
            report.add(test, "gcc", one(better));
            report.add(test, "feilun", one(3.0));
        }
        let said: Value = serde_json::from_str(&report.json()?)?;
        for (row, better) in [(0, 9.0), (1, 5.0)] {
            assert_eq!(said["rows"][row]["peer_value"], better);
            assert_eq!(said["rows"][row]["peer_build"], "gcc");
            assert_eq!(said["rows"][row]["feilun"]["detail"]["idle_p99_ms"], 3.0);
        }
        assert!(report.table().contains("chats-16"));
        Ok(())
    }
}
