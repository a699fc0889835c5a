//! From a model's files to an engine that generates: tokenizer, weights, KV cache, threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use feilun_infer::{AdapterDigest, Engine, EngineConfig, LoadedAdapter, ModelText, Vocabulary};
use feilun_kernels::Pool;
use feilun_kernels::matmul::Numerics;
use feilun_model::{
    Adapter, BatchMode, KV_BLOCK_TOKENS, KvKind, Model, ModelFiles, Session as ModelSession,
    SessionOptions,
};
use feilun_text::{ChatFormat, Tokenizer};

use crate::commands::Session;
use crate::failure::{Outcome, OutcomeExt as _};
use crate::machine;
use crate::resolve::{self, FoundModel};

/// Which model, and how to compute with it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct EngineArgs {
    /// The model: an installed name, the beginning of a digest, or a path
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// A LoRA adapter in PEFT's layout, made for this model, such as `feilun tune` writes
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Threads to compute with, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How weights are multiplied, and what the cache holds
    #[arg(long, value_enum, default_value_t = NumericsArg::Native)]
    numerics: NumericsArg,
    /// Bit-identical results however requests are batched, at some cost in speed
    #[arg(long)]
    exact: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum NumericsArg {
    /// Quantized weights in integers, keys and values in bf16: fast
    #[default]
    Native,
    /// Everything in f32: the reference
    F32,
}

impl EngineArgs {
    pub(crate) fn threads(&self, session: &Session) -> Outcome<usize> {
        self.threads.map_or_else(|| machine::threads(&session.environment), |n| Ok(n.into()))
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    pub(crate) fn mode(&self) -> BatchMode {
        if self.exact { BatchMode::Exact } else { BatchMode::Fast }
    }

    /// How quantized weights are multiplied, in a word.
    pub(crate) fn numerics_name(&self) -> &'static str {
        match self.numerics {
            NumericsArg::Native => "native",
            NumericsArg::F32 => "f32",
        }
    }

    pub(crate) fn open(&self, session: &Session) -> Outcome<OpenModel> {
        self.open_as(session, self.model.as_deref(), self.adapter.as_deref())
    }

    /// Another model, perhaps with another adapter, to be computed in the same way.
    pub(crate) fn open_as(
        &self,
        session: &Session,
        model: Option<&str>,
        adapter: Option<&Path>,
    ) -> Outcome<OpenModel> {
        let mut model = OpenModel::open(resolve::find(session, model)?)?;
        if let Some(folder) = adapter {
            let adapter = Adapter::open(folder, model.files.config())
                .doing(|| format!("the adapter for {}", model.found.label))?;
            let digest = AdapterDigest(*adapter.digest.as_bytes());
            model.adapter = Some(LoadedAdapter { digest, weights: Arc::new(adapter) });
            model.adapter_path = Some(folder.to_owned());
        }
        Ok(model)
    }
}

/// Sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Tokens that the KV cache holds, over all sequences.
    pub(crate) positions: usize,
    /// Most tokens computed in one step.
    pub(crate) rows: usize,
    /// Most rows of logits in one step.
    pub(crate) logit_rows: usize,
}

impl Plan {
    /// For one sequence of so many tokens whose last token's logits are wanted.
    pub(crate) fn for_one(positions: usize) -> Plan {
        Plan { positions, rows: 512, logit_rows: 4 }
    }
}

/// A model whose files are open and checked, with its tokenizer.
#[derive(Debug)]
pub(crate) struct OpenModel {
    pub(crate) found: FoundModel,
    pub(crate) files: ModelFiles,
    pub(crate) tokenizer: Arc<Tokenizer>,
    text: ModelText,
    /// What every request asks for.
    pub(crate) adapter: Option<LoadedAdapter>,
    /// Where that came from.
    pub(crate) adapter_path: Option<PathBuf>,
}

impl OpenModel {
    pub(crate) fn open(found: FoundModel) -> Outcome<OpenModel> {
        let files = ModelFiles::open(&found.path)?;
        let text = ModelText::open(&files).doing(|| format!("the tokenizer of {}", found.label))?;
        let tokenizer = Arc::clone(&text.tokenizer);
        Ok(OpenModel { found, files, tokenizer, text, adapter: None, adapter_path: None })
    }

    /// The longest sequence that the model was made for.
    pub(crate) fn context(&self) -> usize {
        self.files.config().context_length
    }

    /// The tokens of a text on its own: see [`ModelText::encode`].
    pub(crate) fn encode(&self, text: &str) -> Outcome<Vec<u32>> {
        Ok(self.text.encode(text)?)
    }

    /// The text side of the model.
    pub(crate) fn text(&self) -> &ModelText {
        &self.text
    }

    /// The model's chat format, or `None` where its files have no template.
    pub(crate) fn chat_format(&self) -> Outcome<Option<ChatFormat>> {
        let format = self.text.chat_format(&self.files);
        format.doing(|| format!("the chat template of {}", self.found.label))
    }

    pub(crate) fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        self.text.vocabulary()
    }

    /// Loads the weights and plans the memory.
    pub(crate) fn session(
        &self,
        args: &EngineArgs,
        session: &Session,
        plan: Plan,
    ) -> Outcome<ModelSession> {
        let mut pool = Pool::new(args.threads(session)?)?;
        let model = Arc::new(Model::load(&self.files, &mut pool)?);
        let (numerics, kv_kind) = match args.numerics {
            NumericsArg::Native => (Numerics::Native, KvKind::Bf16),
            NumericsArg::F32 => (Numerics::F32, KvKind::F32),
        };
        let options = SessionOptions {
            kernels: machine::kernels(session, &mut pool)?,
            numerics,
            kv_kind,
            max_rows: plan.rows,
            max_logit_rows: plan.logit_rows,
            num_blocks: plan.positions.div_ceil(KV_BLOCK_TOKENS),
        };
        Ok(ModelSession::new(model, pool, options)?)
    }

    /// An engine without requests.
    pub(crate) fn engine(
        &self,
        args: &EngineArgs,
        session: &Session,
        plan: Plan,
    ) -> Outcome<Engine<ModelSession>> {
        let decoder = self.session(args, session, plan)?;
        let start = Instant::now();
        let clock = Box::new(move || start.elapsed());
        Ok(Engine::new(decoder, self.vocabulary(), EngineConfig::default(), clock))
    }
}
