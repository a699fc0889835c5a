//! Measuring with the peer's own programs, `llama-bench` and `llama-batched-bench`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Build;
use crate::bench_infer::Case;

impl Build {
    /// Ways to measure one case; the best of them counts.
    ///
    /// Flash attention is slower on long contexts and faster elsewhere, and llama.cpp's own choice
    /// (`auto`) does not always take the better one.
    pub(crate) fn variants(case: &Case) -> &'static [&'static str] {
        if case.depth > 0 { &["fa=off", "fa=on"] } else { &["fa=auto"] }
    }

    /// Tokens per second of one run.
    pub(crate) fn measure(
        &self,
        model: &Path,
        threads: usize,
        case: &Case,
        variant: &str,
    ) -> anyhow::Result<f64> {
        let flash_attention = variant.trim_start_matches("fa=");
        let mut command = if case.sequences > 1 {
            self.batched(case, threads)
        } else {
            self.single(case, threads)
        };
        command.arg("-m").arg(model).args(["-fa", flash_attention]);
        let shown = crate::shown(&command);
        let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
        if !output.status.success() {
            bail!("`{shown}` failed ({})", output.status);
        }
        let speed = if case.sequences > 1 {
            json_after(&output.stdout, b'{')?["speed_tg"].as_f64()
        } else {
            json_after(&output.stdout, b'[')?[0]["avg_ts"].as_f64()
        };
        speed.with_context(|| format!("`{shown}` reports no speed"))
    }

    fn single(&self, case: &Case, threads: usize) -> Command {
        let mut command = Command::new(self.programs.join("llama-bench"));
        command.args(["-o", "json", "-r", "1"]);
        for (flag, number) in [
            ("-t", threads),
            ("-p", case.prompt_tokens),
            ("-n", case.generate_tokens),
            ("-d", case.depth),
        ] {
            command.args([flag, &number.to_string()]);
        }
        command
    }

    fn batched(&self, case: &Case, threads: usize) -> Command {
        let prompt = case.depth.max(1);
        let context = case.sequences * (prompt + case.generate_tokens);
        let mut command = Command::new(self.programs.join("llama-batched-bench"));
        command.args(["--output-format", "jsonl"]);
        for (flag, number) in [
            ("-t", threads),
            ("-tb", threads),
            ("-npp", prompt),
            ("-ntg", case.generate_tokens),
            ("-npl", case.sequences),
            ("-c", context),
        ] {
            command.args([flag, &number.to_string()]);
        }
        command
    }
}

/// The JSON value in a program's output; what comes before it is talk.
fn json_after(output: &[u8], open: u8) -> anyhow::Result<Value> {
    let start = output.iter().position(|&byte| byte == open).context("no JSON in the output")?;
    let mut values = serde_json::Deserializer::from_slice(&output[start..]).into_iter();
    values.next().context("no JSON in the output")?.context("the output's JSON is broken")
}
