//! `feilun export`: write a model for other programs, with an adapter merged into it if wanted.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use feilun_model::save::{
    FileWeights, MergedWeights, SaveError, Storage, WeightSource, save_folder, save_gguf,
};
use feilun_model::{Adapter, ModelFiles};

use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::machine;
use crate::model_name::ModelName;
use crate::output;
use crate::resolve;
use crate::save_model::{self, StorageArg};

/// Write a model as a GGUF file or as a Hugging Face folder
///
/// With --adapter, a LoRA adapter is merged into the weights. The result appears when it is
/// complete; nothing that exists is overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun export --model smollm2-135m-instruct --format safetensors --out smollm2
  feilun export --model smollm2-135m-instruct --adapter runs/tickets/adapter --format gguf --out .
  feilun export --model ./tuned --format gguf --type Q8_0 --out tuned.gguf")]
pub(crate) struct Args {
    /// The model: an installed name, the beginning of a digest, or a path
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Merge the LoRA adapter in this folder (PEFT's layout)
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum)]
    format: FormatArg,
    /// Storage of the matrices; safetensors has F32, F16 and BF16
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value = "BF16")]
    storage: StorageArg,
    /// The folder to write to: for safetensors a new one; for GGUF any, or the file's name
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// A folder in the Hugging Face layout
    Safetensors,
    /// One GGUF file
    Gguf,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let block_type = args.storage.block_type();
    if args.format == FormatArg::Safetensors && block_type.block_len() > 1 {
        return Err(Failure::usage(format!("safetensors cannot hold {block_type}"))
            .hint("choose F32, F16 or BF16, or --format gguf"));
    }
    let found = resolve::find(session, args.model.as_deref())?;
    let files = ModelFiles::open(&found.path)?;
    let base = FileWeights::new(&files);
    let adapter = args.adapter.as_ref().map(|folder| Adapter::open(folder, files.config()));
    let adapter = adapter.transpose()?;
    let merged = adapter.as_ref().map(|adapter| MergedWeights::new(&base, adapter)).transpose()?;
    let weights = merged.as_ref().map_or(&base as &dyn WeightSource, |merged| merged);
    let target = target(args, &found.label);
    let num_threads = machine::threads(&session.environment)?;
    let storage = match args.format {
        FormatArg::Safetensors => Storage::uniform(block_type),
        FormatArg::Gguf => Storage::new(block_type),
    };
    let num_bytes = storage.num_bytes(files.config());
    let name = target.display().to_string();
    match args.format {
        FormatArg::Safetensors => {
            let companions = save_model::companions(&files)?;
            save_model::with_job(&name, num_bytes, num_threads, |job| {
                explained(save_folder(&target, &companions, weights, block_type, job))
            })?;
        }
        FormatArg::Gguf => {
            let metadata = save_model::gguf_metadata(&files, &found.label)?;
            save_model::with_job(&name, num_bytes, num_threads, |job| {
                explained(save_gguf(&target, &metadata, weights, storage, job))
            })?;
        }
    }
    let written = ModelFiles::open(&target).doing(|| format!("{name} was written, but"))?;
    let digest = format!("blake3:{}", written.digest()?);
    if args.json {
        return output::json(&serde_json::json!({
            "path": name,
            "type": block_type.name(),
            "bytes": written.file_bytes(),
            "digest": digest,
            "model": found.label,
            "adapter": args.adapter.as_ref().map(|folder| folder.display().to_string()),
        }));
    }
    output::talk(format!("wrote {name} ({}, {digest})", output::bytes(written.file_bytes())));
    Ok(())
}

/// Where it goes: a folder for safetensors; for GGUF the file named, or one in the folder named.
fn target(args: &Args, label: &str) -> PathBuf {
    let is_file = args.out.extension().is_some_and(|extension| extension == "gguf");
    if args.format == FormatArg::Safetensors || is_file {
        return args.out.clone();
    }
    let stem = Path::new(label).file_stem().and_then(|stem| stem.to_str()).unwrap_or(label);
    let stem = ModelName::from_text(stem).map_or("model".to_owned(), |name| name.to_string());
    args.out.join(format!("{stem}-{}.gguf", args.storage.block_type()))
}

fn explained(result: Result<(), SaveError>) -> Outcome {
    result.map_err(|error| match error {
        SaveError::Exists { .. } => Failure::from(error).hint("choose another place with --out"),
        SaveError::NotExpressible { .. } => Failure::from(error).hint("export it as GGUF"),
        _ => error.into(),
    })
}
