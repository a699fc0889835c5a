//! `feilun score`: how likely a model finds texts.

use std::path::{Path, PathBuf};

use feilun_infer::Engine;
use feilun_model::{BatchMode, Session as ModelSession};
use serde::Serialize;

use crate::commands::Session;
use crate::engine::{EngineArgs, OpenModel, Plan};
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;

/// Compute the log-probability that a model gives to each token of some files
///
/// Every file is a text of its own. One that is longer than the model's context is computed in
/// windows that overlap by half, so that every token but the first few has at least half a
/// context before it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun score --model smollm2-135m-instruct README.md
  feilun score --model gemma3-270m a.txt b.txt --json")]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Text files in UTF-8
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object, with every token and its log-probability
    #[arg(long)]
    json: bool,
}

/// Longest window: more context changes little and costs attention in its square.
const MAX_WINDOW: usize = 4096;
/// Rows of logits in one step.
const LOGIT_ROWS: usize = 64;

/// The scores of one text, or of several together.
#[derive(Debug, Default, Serialize)]
struct Scores {
    tokens: usize,
    bytes: usize,
    /// Sum over all tokens that have a log-probability.
    nll_nats: f64,
    /// `null` for no bytes.
    bits_per_byte: Option<f64>,
    /// Without an automatic BOS.
    token_ids: Vec<u32>,
    /// Natural logarithms. `null` for a text's first token where the model has no BOS.
    token_logprobs: Vec<Option<f32>>,
}

impl Scores {
    fn add(&mut self, bytes: usize, ids: &[u32], logprobs: Vec<Option<f32>>) {
        self.tokens += ids.len();
        self.bytes += bytes;
        self.nll_nats -= logprobs.iter().flatten().map(|&logprob| f64::from(logprob)).sum::<f64>();
        let bits = self.nll_nats / std::f64::consts::LN_2;
        self.bits_per_byte = (self.bytes > 0).then(|| bits / self.bytes as f64);
        self.token_ids.extend(ids);
        self.token_logprobs.extend(logprobs);
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let texts = args.files.iter().map(|path| read(path)).collect::<Outcome<Vec<_>>>()?;
    let model = args.engine.open(session)?;
    let window = model.context().min(MAX_WINDOW);
    let plan = Plan { positions: window, rows: 512, logit_rows: LOGIT_ROWS };
    let mut engine = model.engine(&args.engine, session, plan)?;
    let mut total = Scores::default();
    let mut files = Vec::new();
    for (path, text) in args.files.iter().zip(&texts) {
        let (ids, logprobs) = score(&mut engine, &model, text, window, args.engine.mode())
            .doing(|| format!("cannot score {}", path.display()))?;
        let mut scores = Scores::default();
        scores.add(text.len(), &ids, logprobs.clone());
        total.add(text.len(), &ids, logprobs);
        if !args.json {
            let bits = scores.bits_per_byte.map_or("-".to_owned(), |bits| format!("{bits:.4}"));
            output::data(format!(
                "{bits} bits per byte, {} tokens, {} bytes: {}",
                scores.tokens,
                scores.bytes,
                path.display()
            ))?;
        }
        files.push(serde_json::json!({
            "file": path.display().to_string(),
            "tokens": scores.tokens,
            "bytes": scores.bytes,
            "nll_nats": scores.nll_nats,
            "bits_per_byte": scores.bits_per_byte,
        }));
    }
    if !args.json {
        return Ok(());
    }
    let mut report = serde_json::to_value(&total)?;
    report["model"] = model.found.label.into();
    report["digest"] = model.found.digest.into();
    report["window"] = window.into();
    report["files"] = files.into();
    output::json(&report)
}

/// A text's tokens that have a log-probability, and the mean of its negative in nats.
pub(super) fn mean_nll(
    engine: &EngineArgs,
    session: &Session,
    model: &OpenModel,
    text: &str,
) -> Outcome<(usize, f64)> {
    let window = model.context().min(MAX_WINDOW);
    let plan = Plan { positions: window, rows: 512, logit_rows: LOGIT_ROWS };
    let mode = engine.mode();
    let mut engine = model.engine(engine, session, plan)?;
    let (_, logprobs) = score(&mut engine, model, text, window, mode)?;
    let num_tokens = logprobs.iter().flatten().count();
    let sum: f64 = logprobs.iter().flatten().map(|&logprob| f64::from(logprob)).sum();
    Ok((num_tokens, -sum / num_tokens.max(1) as f64))
}

/// The content of a text file.
pub(super) fn read(path: &Path) -> Outcome<String> {
    let bytes = std::fs::read(path).doing(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Failure::failed(format!("{}: byte {position} is no UTF-8", path.display()))
    })
}

/// The text's tokens and their log-probabilities.
fn score(
    engine: &mut Engine<ModelSession>,
    model: &OpenModel,
    text: &str,
    window: usize,
    mode: BatchMode,
) -> Outcome<(Vec<u32>, Vec<Option<f32>>)> {
    let tokens = model.encode(text)?;
    let num_automatic = usize::from(model.tokenizer.adds_bos() && model.tokenizer.bos().is_some());
    // The first token of all has nothing before it.
    let mut logprobs = vec![None; tokens.len().min(1)];
    for Window { start, end } in windows(tokens.len(), window) {
        let scored = engine.score(tokens[start..end].to_vec(), model.adapter.clone(), mode)??;
        let known = logprobs.len() - start - 1;
        logprobs.extend(scored.into_iter().skip(known).map(Some));
    }
    Ok((tokens[num_automatic..].to_vec(), logprobs.split_off(num_automatic)))
}

/// A part of a text that is computed in one go.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    end: usize,
}

/// Windows of at most `len` tokens over a text of `num_tokens`, each beginning in the middle of
/// the one before.
fn windows(num_tokens: usize, len: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut end = 0;
    while end < num_tokens {
        let start = if end == 0 { 0 } else { end - len / 2 };
        end = num_tokens.min(start + len);
        windows.push(Window { start, end });
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_token_and_overlap_by_half() {
        let check = |num_tokens, len, expected: &[(usize, usize)]| {
            let found: Vec<_> = windows(num_tokens, len).iter().map(|w| (w.start, w.end)).collect();
            assert_eq!(found, expected, "{num_tokens} tokens in windows of {len}");
        };
        check(0, 8, &[]);
        check(1, 8, &[(0, 1)]);
        check(8, 8, &[(0, 8)]);
        check(9, 8, &[(0, 8), (4, 9)]);
        check(16, 8, &[(0, 8), (4, 12), (8, 16)]);
        check(17, 8, &[(0, 8), (4, 12), (8, 16), (12, 17)]);
    }
}
