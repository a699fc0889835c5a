//! Measuring our program and a peer in alternation: how ours is started, what is kept of each
//! case, and how it is shown.
//!
//! A machine that is shared or warms up changes its speed over minutes, so the two take turns
//! within each case and medians are compared. The peer is judged by its best variant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use crate::{cargo, metadata, run, shown};

/// The program to measure: the one given, or built now.
pub(crate) fn feilun(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(program) = given {
        return Ok(program.to_path_buf());
    }
    run(&mut cargo(&["build", "--locked", "--release", "--package", "feilun"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| metadata::workspace_root().join("target"), PathBuf::from);
    Ok(target.join("release").join("feilun"))
}

/// Runs a command that prints one JSON value.
pub(crate) fn json_of(command: &mut Command) -> anyhow::Result<Value> {
    let line = shown(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, said.trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("`{line}` printed no JSON"))
}

/// The speed in what a program said of one run.
pub(crate) fn speed_in(said: &Value) -> anyhow::Result<f64> {
    said["tokens_per_second"].as_f64().context("no `tokens_per_second` in it")
}

/// A peer as reports name it.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// Speeds of one case in tokens per second, in the order of measurement.
#[derive(Default)]
pub(crate) struct Samples {
    ours: Vec<f64>,
    /// What else our program said in its last run, such as shares of the machine's roofs.
    details: Map<String, Value>,
    /// By build and variant.
    peer: BTreeMap<String, Vec<f64>>,
}

impl Samples {
    pub(crate) fn add_ours(&mut self, said: Value) -> anyhow::Result<()> {
        self.ours.push(speed_in(&said)?);
        if let Value::Object(details) = said {
            self.details = details;
        }
        Ok(())
    }

    pub(crate) fn add_peer(&mut self, name: &str, speed: f64) {
        self.peer.entry(name.to_owned()).or_default().push(speed);
    }

    pub(crate) fn ours(&self) -> &[f64] {
        &self.ours
    }

    /// What else our program said.
    pub(crate) fn detail(&self, name: &str) -> Option<f64> {
        self.details.get(name)?.as_f64()
    }

    /// The fastest build and variant of the peer, with its speeds.
    pub(crate) fn best_peer(&self) -> Option<(&str, &[f64])> {
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
pub(crate) struct Row {
    pub(crate) model: String,
    pub(crate) threads: usize,
    pub(crate) test: &'static str,
    pub(crate) samples: Samples,
}

impl Row {
    pub(crate) fn json(&self, peer: Peer) -> Value {
        let mut fields = self.samples.details.clone();
        fields.insert("model".into(), json!(self.model));
        fields.insert("threads".into(), json!(self.threads));
        fields.insert("test".into(), json!(self.test));
        if !self.samples.ours.is_empty() {
            fields.insert("tokens_per_second".into(), json!(median(&self.samples.ours)));
            fields.insert("samples".into(), json!(self.samples.ours));
        }
        if let Some((variant, speeds)) = self.samples.best_peer() {
            fields.insert("peer".into(), json!(peer.name));
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
        let _ = write!(line, "{:>16}{:>16}", spread(ours), spread(best.map(|(_, speeds)| speeds)));
        let ratio = self.samples.ratio().map_or(String::from("-"), |ratio| format!("{ratio:.2}x"));
        let _ = write!(line, "{ratio:>8}  {}", best.map_or("-", |(name, _)| name));
        line
    }
}

/// A table for people.
pub(crate) fn table(peer: Peer, rows: &[Row]) -> String {
    let mut text = format!(
        "{} ({}) on {}\ntokens per second: median and half the spread\n\n",
        peer.name,
        peer.version,
        machine()
    );
    let _ = writeln!(
        text,
        "{:<9}{:>3}  {:<12}{:>16}{:>16}{:>8}  peer's best",
        "model", "thr", "test", "feilun", "peer", "ratio"
    );
    for row in rows {
        text.push_str(&row.line());
        text.push('\n');
    }
    text
}

/// The middle value; of an even number, the mean of the middle two. NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
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

fn spread(speeds: Option<&[f64]>) -> String {
    speeds.map_or("-".to_owned(), |speeds| {
        format!("{:.1} ±{:.1}", median(speeds), half_spread(speeds))
    })
}

/// The processor and the number of its cores that we may use.
pub(crate) fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let instructions: Vec<&str> =
        ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"]
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
}
