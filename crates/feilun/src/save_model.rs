//! What the commands that write models share: storage types by name, the small files of a model,
//! and progress.

use std::path::Path;

use clap::ValueEnum;
use feilun_infer::model_text::{gguf_fields, gguf_vocab};
use feilun_kernels::{BlockType, Pool};
use feilun_model::save::{Companions, GgufMetadata, Job};
use feilun_model::{ModelFiles, TokenizerSource};
use feilun_text::{GgufTexts, TokenizerFiles};

use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::pull::progress::Progress;

/// How the matrices of a model may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageArg {
    /// 32-bit floats
    #[value(name = "F32", alias = "f32")]
    F32,
    /// 16-bit IEEE floats
    #[value(name = "F16", alias = "f16")]
    F16,
    /// 16-bit brain floats
    #[value(name = "BF16", alias = "bf16")]
    Bf16,
    /// 8.5 bits a weight
    #[value(name = "Q8_0", alias = "q8_0")]
    Q8_0,
    /// 6.6 bits a weight
    #[value(name = "Q6_K", alias = "q6_k")]
    Q6K,
    /// 5.5 bits a weight
    #[value(name = "Q5_K", alias = "q5_k")]
    Q5K,
    /// 4.5 bits a weight, the best of that size
    #[value(name = "Q4_K", alias = "q4_k")]
    Q4K,
    /// 4.5 bits a weight, the fastest
    #[value(name = "Q4_0", alias = "q4_0")]
    Q4_0,
}

impl StorageArg {
    pub(crate) fn block_type(self) -> BlockType {
        match self {
            StorageArg::F32 => BlockType::F32,
            StorageArg::F16 => BlockType::F16,
            StorageArg::Bf16 => BlockType::Bf16,
            StorageArg::Q8_0 => BlockType::Q8_0,
            StorageArg::Q6K => BlockType::Q6K,
            StorageArg::Q5K => BlockType::Q5K,
            StorageArg::Q4K => BlockType::Q4K,
            StorageArg::Q4_0 => BlockType::Q4_0,
        }
    }
}

/// The metadata for a GGUF file with the weights of this model or of a relative; `label` is what
/// people call it, be it a path.
pub(crate) fn gguf_metadata(files: &ModelFiles, label: &str) -> Outcome<GgufMetadata> {
    if let Some(metadata) = GgufMetadata::of_file(files)? {
        return Ok(metadata);
    }
    let config = files.config();
    let texts = match files.tokenizer()? {
        TokenizerSource::TokenizerJson(json) => {
            let (settings, ends) = (files.tokenizer_config()?, files.special_tokens()?.eos);
            GgufTexts::from_json(&json, settings.as_deref(), config.vocab_size, &ends)
                .doing(|| "the tokenizer cannot be written as GGUF".to_owned())
                .hint("export it with --format safetensors")?
        }
        // A folder has no other.
        TokenizerSource::Gguf(_) => return Err(Failure::failed("a GGUF file without its keys")),
    };
    let template = files.chat_template()?;
    let vocabulary = gguf_fields(texts.vocab());
    let name = Path::new(label).file_stem().and_then(|stem| stem.to_str()).unwrap_or(label);
    Ok(GgufMetadata::new(name, config, &vocabulary, template.as_deref()))
}

/// The small files for a Hugging Face folder with the weights of this model or of a relative.
pub(crate) fn companions(files: &ModelFiles) -> Outcome<Companions> {
    if let Some(companions) = Companions::of_folder(files)? {
        return Ok(companions);
    }
    let mut small = Vec::new();
    if let TokenizerSource::Gguf(fields) = files.tokenizer()? {
        let context = files.config().context_length;
        let written = TokenizerFiles::from_gguf(&gguf_vocab(fields), context)
            .doing(|| "the tokenizer cannot be written as tokenizer.json".to_owned())
            .hint("export it with --format gguf")?;
        small.push(("tokenizer.json".to_owned(), written.tokenizer.into_bytes()));
        small.push(("tokenizer_config.json".to_owned(), written.config.into_bytes()));
    }
    if let Some(template) = files.chat_template()? {
        small.push(("chat_template.jinja".to_owned(), template.into_bytes()));
    }
    Ok(Companions { files: small, special_tokens: files.special_tokens()? })
}

/// Runs something that writes `num_bytes` of weights to `name`, and shows how far it is.
pub(crate) fn with_job<T>(
    name: &str,
    num_bytes: u64,
    num_threads: usize,
    run: impl FnOnce(&mut Job<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let mut pool = Pool::new(num_threads)?;
    let progress = Progress::start(&format!("writing {name}"), num_bytes)?;
    run(&mut Job { pool: &mut pool, progress: &mut |done, _| progress.set(done) })
}
