//! What a comparison found: medians, ratios, and the goals that follow from several rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::peer;

/// Speeds of one case in tokens per second, in the order of measurement.
#[derive(Default)]
pub(super) struct Samples {
    ours: Vec<f64>,
    /// What else our program said in its last run, such as shares of the machine's roofs.
    details: Map<String, Value>,
    /// By build and variant.
    peer: BTreeMap<String, Vec<f64>>,
}

impl Samples {
    pub(super) fn add_ours(&mut self, said: Value) -> anyhow::Result<()> {
        let speed = said["tokens_per_second"].as_f64().context("no `tokens_per_second` in it")?;
        self.ours.push(speed);
        if let Value::Object(details) = said {
            self.details = details;
        }
        Ok(())
    }

    pub(super) fn add_peer(&mut self, name: &str, speed: f64) {
        self.peer.entry(name.to_owned()).or_default().push(speed);
    }

    /// The fastest build and variant of the peer, with its speeds.
    fn best_peer(&self) -> Option<(&str, &[f64])> {
        self.peer
            .iter()
            .map(|(name, speeds)| (name.as_str(), speeds.as_slice()))
            .max_by(|a, b| median(a.1).total_cmp(&median(b.1)))
    }

    fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.best_peer()?;
        (!self.ours.is_empty()).then(|| median(&self.ours) / median(peer))
    }
}

/// One case of one model with one number of threads.
pub(super) struct Row {
    pub(super) model: String,
    pub(super) threads: usize,
    pub(super) test: &'static str,
    pub(super) samples: Samples,
}

impl Row {
    fn json(&self) -> Value {
        let mut fields = self.samples.details.clone();
        fields.insert("model".into(), json!(self.model));
        fields.insert("threads".into(), json!(self.threads));
        fields.insert("test".into(), json!(self.test));
        if !self.samples.ours.is_empty() {
            fields.insert("tokens_per_second".into(), json!(median(&self.samples.ours)));
            fields.insert("samples".into(), json!(self.samples.ours));
        }
        if let Some((variant, speeds)) = self.samples.best_peer() {
            fields.insert("peer".into(), json!(peer::NAME));
            fields.insert("peer_variant".into(), json!(variant));
            fields.insert("peer_tokens_per_second".into(), json!(median(speeds)));
            fields.insert("peer_samples".into(), json!(self.samples.peer));
        }
        fields.insert("ratio".into(), json!(self.samples.ratio()));
        Value::Object(fields)
    }

    fn line(&self) -> String {
        let ours = Some(self.samples.ours.as_slice()).filter(|speeds| !speeds.is_empty());
        let best = self.samples.best_peer();
        let mut line = format!("{:<9}{:>3}  {:<12}", self.model, self.threads, self.test);
        let _ = write!(line, "{:>16}{:>16}", shown(ours), shown(best.map(|(_, speeds)| speeds)));
        let ratio = self.samples.ratio().map_or(String::from("-"), |ratio| format!("{ratio:.2}x"));
        let _ = write!(line, "{ratio:>8}  {}", best.map_or("-", |(name, _)| name));
        line
    }
}

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
        let mut text = format!(
            "{} ({}) on {}\ntokens per second: median and half the spread\n\n",
            peer::NAME,
            peer::VERSION,
            machine()
        );
        let _ = writeln!(
            text,
            "{:<9}{:>3}  {:<12}{:>16}{:>16}{:>8}  peer's best",
            "model", "thr", "test", "feilun", "peer", "ratio"
        );
        for row in &self.rows {
            text.push_str(&row.line());
            text.push('\n');
        }
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
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let report = json!({
            "machine": machine(),
            "peer": peer::NAME,
            "peer_version": peer::VERSION,
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
                ours: quotient(&row.samples.ours, &base.samples.ours),
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

/// The middle value; of an even number, the mean of the middle two. NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Half the distance between the slowest and the fastest.
fn half_spread(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    (max - min) / 2.0
}

fn shown(speeds: Option<&[f64]>) -> String {
    speeds.map_or("-".to_owned(), |speeds| {
        format!("{:.1} ±{:.1}", median(speeds), half_spread(speeds))
    })
}

/// The processor and the number of its cores that we may use.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let instructions: Vec<&str> = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
        .into_iter()
        .filter(|flag| cpuinfo.split_ascii_whitespace().any(|word| word == *flag))
        .collect();
    format!("{model}, {num_cores} cores ({})", instructions.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_peer_is_judged_by_its_best_variant() -> anyhow::Result<()> {
        let mut samples = Samples::default();
        for (ours, slow, fast) in [(30.0, 5.0, 9.0), (33.0, 6.0, 11.0), (31.0, 50.0, 10.0)] {
            samples.add_ours(json!({ "tokens_per_second": ours }))?;
            samples.add_peer("slow", slow);
            samples.add_peer("fast", fast);
        }
        assert_eq!(samples.best_peer().map(|(name, _)| name), Some("fast"));
        assert_eq!(samples.ratio(), Some(3.1));
        Ok(())
    }

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
