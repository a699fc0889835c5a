//! What a comparison found: the rows, and the goals that follow from several of them.

use serde_json::{Value, json};

use crate::peer;
use crate::side_by_side::{Row, machine, median, table};

/// Everything that was measured.
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut text = table(peer::PEER, &self.rows);
        text.push('\n');
        for line in self.derived() {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text.trim_end().to_owned()
    }

    /// One object for machines.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        let derived: Vec<Value> = self.derived().iter().map(Derived::json).collect();
        let rows: Vec<Value> = self.rows.iter().map(|row| row.json(peer::PEER)).collect();
        let report = json!({
            "machine": machine(),
            "peer": peer::PEER.name,
            "peer_version": peer::PEER.version,
            "rows": rows,
            "derived": derived,
        });
        Ok(serde_json::to_string_pretty(&report)?)
    }

    /// What several rows say together: how two sequences gain on one, how depth costs.
    fn derived(&self) -> Vec<Derived> {
        let mut derived = Vec::new();
        for row in &self.rows {
            let (what, base) = match row.test {
                "batch-2" => ("2 sequences over 1", "decode"),
                "depth-4096" => ("depth 4096 over depth 128", "depth-128"),
                _ => continue,
            };
            let same = |other: &&Row| other.model == row.model && other.threads == row.threads;
            let Some(base) = self.rows.iter().filter(same).find(|other| other.test == base) else {
                continue;
            };
            derived.push(Derived {
                model: row.model.clone(),
                threads: row.threads,
                what,
                ours: quotient(row.samples.ours(), base.samples.ours()),
                peer: row
                    .samples
                    .best_peer()
                    .zip(base.samples.best_peer())
                    .and_then(|((_, speeds), (_, base_speeds))| quotient(speeds, base_speeds)),
            });
        }
        derived
    }
}

/// The quotient of two rows, for each engine.
struct Derived {
    model: String,
    threads: usize,
    what: &'static str,
    ours: Option<f64>,
    peer: Option<f64>,
}

impl Derived {
    fn json(&self) -> Value {
        json!({
            "model": self.model,
            "threads": self.threads,
            "what": self.what,
            "quotient": self.ours,
            "peer_quotient": self.peer,
        })
    }
}

impl std::fmt::Display for Derived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |quotient: Option<f64>| quotient.map_or("-".to_owned(), |q| format!("{q:.2}"));
        write!(
            f,
            "{}, {} threads, {}: feilun {}, peer {}",
            self.model,
            self.threads,
            self.what,
            shown(self.ours),
            shown(self.peer)
        )
    }
}

fn quotient(speeds: &[f64], base: &[f64]) -> Option<f64> {
    (!speeds.is_empty() && !base.is_empty()).then(|| median(speeds) / median(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::Samples;

    #[test]
    fn two_sequences_are_compared_with_one() -> anyhow::Result<()> {
        let mut report = Report::new();
        for (test, speed) in [("decode", 100.0), ("batch-2", 170.0)] {
            let mut samples = Samples::default();
            samples.add_ours(json!({ "tokens_per_second": speed }))?;
            report.rows.push(Row { model: "m".into(), threads: 1, test, samples });
        }
        let derived = report.derived();
        assert_eq!(derived.len(), 1);
        assert_eq!(derived[0].ours, Some(1.7));
        assert_eq!(derived[0].peer, None);
        Ok(())
    }
}
