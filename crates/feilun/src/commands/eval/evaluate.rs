//! A suite through a model, or through what is left of it.

use std::sync::Arc;

use feilun_eval::results::{Evaluation, Identity, Manifest, Ongoing, ResultsError, now};
use feilun_eval::run::{self, Encoder, Ended, Settings, Workload};
use feilun_eval::suite::Suite;
use feilun_infer::Engine;
use feilun_model::{KV_BLOCK_TOKENS, ModelConfig, Session as ModelSession, SessionOptions};
use feilun_text::ChatFormat;

use super::progress::Progress;
use super::{HowArgs, evaluations};
use crate::commands::Session;
use crate::engine::{EngineArgs, OpenModel, Plan};
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::{machine, output};

/// Longest window: more context changes little and costs attention in its square.
const WINDOW_MAX: usize = 4096;
/// Sequences that are computed together: the engine's own bound.
const RUNNING: usize = 64;
/// Rows of logits may take so much memory.
const LOGIT_BYTES: usize = 128 << 20;
/// The KV cache may take this share of the memory that is available.
const CACHE_SHARE: u64 = 4;

/// How suites are computed.
pub(super) struct Evaluate<'a> {
    pub(super) engine: &'a EngineArgs,
    pub(super) how: &'a HowArgs,
    pub(super) session: &'a Session,
}

/// What is left of a suite.
struct Left<'s> {
    suite: &'s Suite,
    ongoing: Ongoing,
    workload: Workload,
}

impl Evaluate<'_> {
    /// Evaluates a model on suites; takes up what was broken off, and finds what is stored.
    pub(super) fn model(&self, model: OpenModel, suites: &[Suite]) -> Outcome<Vec<Evaluation>> {
        // One position is left for the token that is predicted last.
        let longest = model.context().saturating_sub(1).max(1);
        let window = self.how.window.map_or(WINDOW_MAX.min(longest), |window| window as usize);
        if window > longest {
            let message = format!("--window is {window}, this model sees at most {longest} tokens");
            return Err(Failure::usage(message));
        }
        let encoder = Encoder::new(model.text().clone(), Arc::new(chat_format(&model)?), window);
        let mut left = Vec::with_capacity(suites.len());
        for suite in suites {
            left.push(self.begin(&model, suite, &encoder)?);
        }
        let workloads: Vec<&Workload> = left.iter().map(|left| &left.workload).collect();
        let mut engine = match workloads.iter().all(|workload| workload.num_items() == 0) {
            true => None,
            false => Some(model.engine(self.engine, self.session, plan(&model, &workloads))?),
        };
        let settings = Settings {
            seed: self.how.seed,
            temperature: self.how.temperature,
            adapter: model.adapter.clone(),
            mode: self.engine.mode(),
        };
        self.session.interrupt.spare_one();
        let mut evaluations = Vec::with_capacity(suites.len());
        for Left { suite, ongoing, workload } in left {
            evaluations.push(match &mut engine {
                Some(engine) if workload.num_items() > 0 => {
                    self.compute(&model, suite, ongoing, workload, engine, &settings)?
                }
                _ => ongoing.finish(suite)?,
            });
        }
        Ok(evaluations)
    }

    fn begin<'s>(
        &self,
        model: &OpenModel,
        suite: &'s Suite,
        encoder: &Encoder,
    ) -> Outcome<Left<'s>> {
        let manifest = self.manifest(model, suite, encoder.window())?;
        let ongoing = evaluations(self.session).begin(manifest, suite, self.how.again)?;
        if let Some(damage) = ongoing.damage() {
            output::talk(format!("{} {damage}: goes on before it", output::yellow("warning:")));
        }
        let num_items = ongoing.manifest().num_items;
        let items = suite.items().iter().take(num_items).enumerate();
        let left = items.filter(|(_, item)| !ongoing.done().contains(&item.id));
        let left: Vec<usize> = left.map(|(index, _)| index).collect();
        let num_done = num_items - left.len();
        if num_done > 0 && !left.is_empty() {
            output::talk(format!("goes on after {num_done} of {num_items} items"));
        }
        let workload = Workload::new(suite, left, encoder);
        Ok(Left { suite, ongoing, workload })
    }

    fn compute(
        &self,
        model: &OpenModel,
        suite: &Suite,
        mut ongoing: Ongoing,
        workload: Workload,
        engine: &mut Engine<ModelSession>,
        settings: &Settings,
    ) -> Outcome<Evaluation> {
        let num_items = ongoing.manifest().num_items;
        let num_done = num_items - workload.num_items();
        let what = format!("{} on {}", model.found.label, suite.name());
        let mut progress = Progress::new(&what, num_done, num_items);
        let should_stop = || self.session.interrupt.was_pressed();
        let ended = run::run(suite, workload, engine, settings, &should_stop, &mut |results| {
            ongoing.keep(results)?;
            progress.see(results);
            Ok::<_, ResultsError>(())
        });
        progress.finish();
        match ended? {
            Ended::Finished => Ok(ongoing.finish(suite)?),
            Ended::Stopped => {
                let done = ongoing.done().len();
                ongoing.pause()?;
                Err(Failure::interrupted(format!("after {done} of {num_items} items, all saved"))
                    .hint("the same command goes on from there"))
            }
        }
    }

    fn manifest(&self, model: &OpenModel, suite: &Suite, window: usize) -> Outcome<Manifest> {
        let model_digest = match &model.found.digest {
            Some(digest) => digest.clone(),
            None => format!("blake3:{}", model.files.digest()?.to_hex()),
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let limit = self.how.limit.map(|limit| limit as usize);
        let identity = Identity {
            suite_digest: suite.digest().to_hex().to_string(),
            model_digest,
            adapter_digest: model.adapter.as_ref().map(|adapter| hex(&adapter.digest.0)),
            // A limit beyond the end is none.
            limit: limit.filter(|&limit| limit < suite.items().len()),
            seed: self.how.seed,
            temperature: self.how.temperature,
            numerics: self.engine.numerics_name().to_owned(),
            exact: self.engine.is_exact(),
            window,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let adapter = model.adapter_path.as_ref();
        Ok(Manifest {
            id: identity.id(),
            num_items: identity.limit.unwrap_or(suite.items().len()),
            suite: suite.name().to_owned(),
            model: model.found.label.clone(),
            adapter: adapter.map(|path| path.display().to_string()),
            metrics: suite.metrics().to_vec(),
            begun: now(),
            finished: None,
            seconds: 0.0,
            identity,
        })
    }
}

/// Room for as many requests at once as the engine takes, if the memory has it.
fn plan(model: &OpenModel, workloads: &[&Workload]) -> Plan {
    let config = model.files.config();
    let needs = || workloads.iter().map(|workload| workload.num_positions(RUNNING));
    let longest = needs().map(|(longest, _)| longest).max().unwrap_or(0);
    let together = needs().map(|(_, together)| together).max().unwrap_or(0);
    let available = machine::memory_bytes().map_or(u64::MAX, |(_, available)| available);
    let affordable = usize::try_from(available / CACHE_SHARE).unwrap_or(usize::MAX);
    let affordable = affordable / bytes_per_position(config).max(1);
    let logit_rows = LOGIT_BYTES / (config.vocab_size.max(1) * size_of::<f32>());
    Plan {
        positions: together.min(affordable).max(longest).max(KV_BLOCK_TOKENS),
        rows: 512,
        logit_rows: logit_rows.clamp(RUNNING + 1, 512),
    }
}

/// What a token takes in the KV cache.
fn bytes_per_position(config: &ModelConfig) -> usize {
    let bytes = |num_blocks| {
        let options = SessionOptions { num_blocks, ..SessionOptions::new(config) };
        options.memory_bytes(config).unwrap_or(0)
    };
    bytes(2).saturating_sub(bytes(1)).div_ceil(KV_BLOCK_TOKENS)
}

/// A model without a template is asked plainly: a base model, say.
fn chat_format(model: &OpenModel) -> Outcome<ChatFormat> {
    match model.chat_format()? {
        Some(format) => Ok(format),
        None => ChatFormat::plain(Arc::clone(&model.tokenizer))
            .doing(|| format!("a chat format for {}", model.found.label)),
    }
}
