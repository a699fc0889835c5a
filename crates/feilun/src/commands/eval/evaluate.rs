//! A suite through a model, or through what is left of it.

use std::sync::Arc;

use feilun_eval::results::{Evaluation, Identity, Manifest, now};
use feilun_eval::run::{self, Encoder, Ended, Settings, Workload};
use feilun_eval::suite::Suite;
use feilun_model::{KV_BLOCK_TOKENS, ModelConfig, SessionOptions};
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

impl Evaluate<'_> {
    /// Evaluates a model, or takes up what was broken off, or finds what is stored.
    pub(super) fn model(&self, model: OpenModel, suite: &Suite) -> Outcome<Evaluation> {
        // One position is left for the token that is predicted last.
        let longest = model.context().saturating_sub(1).max(1);
        let wanted = self.how.window.map_or(WINDOW_MAX.min(longest), |window| window as usize);
        if wanted > longest {
            let message = format!("--window is {wanted}, this model sees at most {longest} tokens");
            return Err(Failure::usage(message));
        }
        let manifest = self.manifest(&model, suite, wanted)?;
        let mut ongoing = evaluations(self.session).begin(manifest, suite, self.how.again)?;
        if let Some(damage) = ongoing.damage() {
            output::talk(format!("{} {damage}: goes on before it", output::yellow("warning:")));
        }
        let num_items = ongoing.manifest().num_items;
        let left = (0..num_items).filter(|&i| !ongoing.done().contains(&suite.items()[i].id));
        let left: Vec<usize> = left.collect();
        if left.is_empty() {
            return Ok(ongoing.finish(suite)?);
        }
        let num_done = num_items - left.len();
        if num_done > 0 {
            output::talk(format!("goes on after {num_done} of {num_items} items"));
        }
        let encoder = Encoder::new(model.text().clone(), Arc::new(chat_format(&model)?), wanted);
        let workload = Workload::new(suite, left, &encoder);
        let plan = self.plan(&model, &workload)?;
        let mut engine = model.engine(self.engine, self.session, plan)?;
        let settings = Settings {
            seed: self.how.seed,
            temperature: self.how.temperature,
            adapter: model.adapter.clone(),
            mode: self.engine.mode(),
        };
        self.session.interrupt.spare_one();
        let mut progress = Progress::new(&model.found.label, num_done, num_items);
        let ended = run::run(
            suite,
            workload,
            &mut engine,
            &settings,
            &|| self.session.interrupt.was_pressed(),
            &mut |results| {
                ongoing.keep(results)?;
                progress.see(results);
                Ok::<_, feilun_eval::results::ResultsError>(())
            },
        );
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
        let adapter = model.adapter.as_ref().and(self.engine.adapter());
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

    /// Room for as many requests at once as the engine takes, if the memory has it.
    fn plan(&self, model: &OpenModel, workload: &Workload) -> Outcome<Plan> {
        let config = model.files.config();
        let (longest, together) = workload.num_positions(RUNNING);
        let available = machine::memory_bytes().map_or(u64::MAX, |(_, available)| available);
        let affordable = usize::try_from(available / CACHE_SHARE).unwrap_or(usize::MAX);
        let affordable = affordable / bytes_per_position(config).max(1);
        let logit_rows = LOGIT_BYTES / (config.vocab_size.max(1) * size_of::<f32>());
        Ok(Plan {
            positions: together.min(affordable).max(longest).max(KV_BLOCK_TOKENS),
            rows: 512,
            logit_rows: logit_rows.clamp(RUNNING + 1, 512),
        })
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
