//! `cargo xtask bench train`: our training step and PyTorch's on the same shapes, in alternation.
//!
//! Ours is `feilun bench train --model PATH --method full|lora --sequences N --tokens T --steps S
//! --threads K --json`, which prints an object with `tokens_per_second` and `peak_memory_bytes`.
//! A step is forward, backward, clipping and AdamW, on both sides; a turn is the median of a few.

mod pytorch;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use serde_json::{Value, json};

use crate::side_by_side::{self, Row, Samples, speed_in};
use crate::{models, say};
use pytorch::{PEER, PyTorch, Variant};

/// Measure training steps side by side with PyTorch
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases to run: all whose model or test begins like one of these
    #[arg(long, value_delimiter = ',', default_value = "smollm2,gemma3")]
    tests: Vec<String>,
    /// Variants of the peer, by name; the best of the first turn is measured in the others
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "eager,eager+jemalloc,compile,compile+jemalloc"
    )]
    variants: Vec<String>,
    /// Number of threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Turns of each engine in each case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeat: u64,
    /// Measured steps in each turn
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// The feilun program; built in release mode where not given
    #[arg(long)]
    feilun: Option<PathBuf>,
    /// Measure only the peer
    #[arg(long, conflicts_with = "feilun")]
    peer_only: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One thing to measure.
struct Case {
    /// A model file by its test name, which is also the peer's name of the shape.
    model: &'static str,
    test: &'static str,
    method: &'static str,
    sequences: usize,
    /// In each sequence.
    tokens: usize,
}

/// The cases of the project's goals for speed.
const CASES: [Case; 4] = [
    Case { model: "smollm2", test: "full-4x512", method: "full", sequences: 4, tokens: 512 },
    Case { model: "smollm2", test: "full-1x2048", method: "full", sequences: 1, tokens: 2048 },
    Case { model: "smollm2", test: "lora-4x512", method: "lora", sequences: 4, tokens: 512 },
    Case { model: "gemma3", test: "full-1x512", method: "full", sequences: 1, tokens: 512 },
];

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let ours = match arguments.peer_only {
        true => None,
        false => Some((side_by_side::feilun(arguments.feilun.as_deref())?, models::fetch()?)),
    };
    let pytorch = pytorch::set_up()?;
    let variants = arguments.variants(&pytorch)?;
    let mut rows = Vec::new();
    let mut memory = Vec::new();
    for case in CASES.iter().filter(|case| arguments.wants(case)) {
        let mut measured = Measured::default();
        for turn in 0..arguments.repeat {
            if let Some((program, folder)) = &ours {
                say(&format!("{}, {}: feilun", case.model, case.test));
                let model = folder.join(format!("{}.gguf", case.model));
                let said = side_by_side::json_of(&mut arguments.ours(program, &model, case))?;
                measured.samples.add_ours(said)?;
            }
            for variant in measured.to_try(turn, &variants) {
                say(&format!("{}, {}: {} {}", case.model, case.test, PEER.name, variant.name));
                measured.add_peer(variant, pytorch.measure(case, arguments, variant));
            }
        }
        memory.push(measured.memory(case));
        rows.push(Row {
            model: case.model.to_owned(),
            threads: arguments.threads,
            test: case.test,
            samples: measured.samples,
        });
    }
    let text = if arguments.json { json_report(&rows, &memory)? } else { table(&rows, &memory) };
    crate::say_to_stdout(&text);
    Ok(())
}

impl Arguments {
    fn wants(&self, case: &Case) -> bool {
        let begins = |test: &String| case.test.starts_with(test) || case.model.starts_with(test);
        self.tests.iter().any(begins)
    }

    /// The variants asked for that this machine can run.
    fn variants(&self, pytorch: &PyTorch) -> anyhow::Result<Vec<Variant>> {
        let known = pytorch.variants();
        let mut variants = Vec::new();
        for name in &self.variants {
            match known.iter().find(|variant| variant.name == name) {
                Some(&variant) => variants.push(variant),
                None if Variant::exists(name) => say(&format!("{name}: not on this machine")),
                None => bail!("no variant `{name}`"),
            }
        }
        Ok(variants)
    }

    fn ours(&self, program: &Path, model: &Path, case: &Case) -> Command {
        let mut command = Command::new(program);
        command.args(["bench", "train", "--json", "--model"]).arg(model);
        command.args(["--method", case.method]);
        for (flag, number) in case.numbers(self) {
            command.args([flag, &number.to_string()]);
        }
        command
    }
}

impl Case {
    /// Flags that our program and the peer's script share.
    fn numbers(&self, arguments: &Arguments) -> [(&'static str, usize); 4] {
        [
            ("--sequences", self.sequences),
            ("--tokens", self.tokens),
            ("--steps", arguments.steps),
            ("--threads", arguments.threads),
        ]
    }
}

/// What was found of one case.
#[derive(Default)]
struct Measured {
    samples: Samples,
    /// Of the last run of each variant: its name, and its peak memory in bytes.
    peer_memory: Vec<(&'static str, f64)>,
}

impl Measured {
    /// A turn of a slow variant takes minutes, so only the first turn tries all.
    fn to_try(&self, turn: u64, variants: &[Variant]) -> Vec<Variant> {
        let best = self.samples.best_peer().map(|(name, _)| name);
        let wanted = |variant: &Variant| turn == 0 || Some(variant.name) == best;
        variants.iter().copied().filter(wanted).collect()
    }

    fn add_peer(&mut self, variant: Variant, said: anyhow::Result<Value>) {
        let speed = said.and_then(|said| {
            if let Some(bytes) = said["peak_memory_bytes"].as_f64() {
                self.peer_memory.retain(|(name, _)| *name != variant.name);
                self.peer_memory.push((variant.name, bytes));
            }
            speed_in(&said)
        });
        match speed {
            Ok(speed) => self.samples.add_peer(variant.name, speed),
            Err(error) => say(&format!("{} {}: {error:#}", PEER.name, variant.name)),
        }
    }

    fn memory(&self, case: &Case) -> Memory {
        let best = self.samples.best_peer().map(|(name, _)| name);
        Memory {
            model: case.model,
            test: case.test,
            ours: self.samples.detail("peak_memory_bytes"),
            peer: self
                .peer_memory
                .iter()
                .find(|(name, _)| Some(*name) == best)
                .map(|&(_, bytes)| bytes),
        }
    }
}

/// Peak resident memory of one case in bytes; the peer's is that of its fastest variant.
struct Memory {
    model: &'static str,
    test: &'static str,
    ours: Option<f64>,
    peer: Option<f64>,
}

fn table(rows: &[Row], memory: &[Memory]) -> String {
    let gib = |bytes: Option<f64>| {
        bytes.map_or("-".to_owned(), |bytes| format!("{:.2} GiB", bytes / f64::from(1 << 30)))
    };
    let mut text = side_by_side::table(PEER, rows);
    text.push_str("\npeak memory\n");
    for Memory { model, test, ours, peer } in memory {
        let line = format!("{model:<9}     {test:<12}{:>16}{:>16}\n", gib(*ours), gib(*peer));
        text.push_str(&line);
    }
    text.trim_end().to_owned()
}

fn json_report(rows: &[Row], memory: &[Memory]) -> anyhow::Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .zip(memory)
        .map(|(row, memory)| {
            let mut fields = row.json(PEER);
            fields["peer_peak_memory_bytes"] = json!(memory.peer);
            fields
        })
        .collect();
    let report = json!({
        "machine": side_by_side::machine(),
        "peer": PEER.name,
        "peer_version": PEER.version,
        "rows": rows,
    });
    Ok(serde_json::to_string_pretty(&report)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EAGER: Variant = Variant { name: "eager", compiled: false, jemalloc: false };
    const COMPILED: Variant = Variant { name: "compile", compiled: true, jemalloc: false };

    fn said(tokens_per_second: f64, gib: f64) -> anyhow::Result<Value> {
        let bytes = gib * f64::from(1 << 30);
        Ok(json!({ "tokens_per_second": tokens_per_second, "peak_memory_bytes": bytes }))
    }

    #[test]
    fn after_the_first_turn_only_the_best_variant_is_tried() {
        let mut measured = Measured::default();
        assert_eq!(measured.to_try(0, &[EAGER, COMPILED]), [EAGER, COMPILED]);
        measured.add_peer(EAGER, said(300.0, 5.0));
        measured.add_peer(COMPILED, said(500.0, 4.0));
        assert_eq!(measured.to_try(1, &[EAGER, COMPILED]), [COMPILED]);
        assert_eq!(measured.memory(&CASES[0]).peer, Some(4.0 * f64::from(1 << 30)));
    }

    #[test]
    fn a_variant_that_fails_leaves_the_others() {
        let mut measured = Measured::default();
        measured.add_peer(COMPILED, Err(anyhow::anyhow!("no compiler")));
        measured.add_peer(EAGER, said(300.0, 5.0));
        assert_eq!(measured.to_try(1, &[EAGER, COMPILED]), [EAGER]);
    }

    #[test]
    fn the_table_has_both_speeds_the_ratio_and_both_memories() -> anyhow::Result<()> {
        let mut measured = Measured::default();
        measured.add_peer(EAGER, said(100.0, 5.0));
        measured.samples.add_ours(said(425.0, 2.5)?)?;
        let memory = [measured.memory(&CASES[0])];
        let samples = measured.samples;
        let rows = [Row { model: "smollm2".into(), threads: 2, test: "full-4x512", samples }];
        let text = table(&rows, &memory);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let speeds =
            ["smollm2", "2", "full-4x512", "425.0", "±0.0", "100.0", "±0.0", "4.25x", "eager"];
        assert!(lines.iter().any(|line| line == &speeds), "{text}");
        let memory = ["smollm2", "full-4x512", "2.50", "GiB", "5.00", "GiB"];
        assert!(lines.iter().any(|line| line == &memory), "{text}");
        Ok(())
    }
}
