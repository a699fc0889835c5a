//! `feilun quantize`: make a smaller model of a model, and say what that costs.

use std::path::PathBuf;

use feilun_model::save::{FileWeights, MergedWeights, Storage, WeightSource, save_gguf};
use serde::Serialize;

use crate::commands::{Session, score};
use crate::engine::{EngineArgs, OpenModel};
use crate::failure::{Failure, Outcome};
use crate::manifest::{self, FileEntry, Manifest, Origin, sha256_of};
use crate::model_name::ModelName;
use crate::output;
use crate::pull::staging::Staging;
use crate::resolve::FoundModel;
use crate::save_model::{self, StorageArg};

/// Store a model's weights in fewer bits and install it
///
/// With --adapter, the adapter is merged first. With --text, both models score a text that they were not trained on, and the difference is
/// printed: what the smaller size costs in nats per token.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun quantize --model tuned --type Q8_0 --out tuned-q8
  feilun quantize --model tuned --type Q4_K --out tuned-q4 --text held-out.txt")]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Storage of the matrices
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    storage: StorageArg,
    /// Install the result under this name
    #[arg(long, value_name = "NAME")]
    out: ModelName,
    /// A text in UTF-8 to measure the cost on
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Replace an installed model of that name
    #[arg(long)]
    replace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the smaller model loses on a text, in nats per token.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    tokens: usize,
    nats_before: f64,
    nats_after: f64,
    nats_added: f64,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let text = args.text.as_ref().map(|path| score::read(path)).transpose()?;
    if session.data.model(&args.out).exists() && !args.replace {
        let message = format!("there is a model `{}` already", args.out);
        return Err(
            Failure::failed(message).hint("choose another name with --out, or add --replace")
        );
    }
    let base = args.engine.open(session)?;
    let before = match &text {
        Some(text) => Some(score::mean_nll(&args.engine, session, &base, text)?),
        None => None,
    };
    let staging = Staging::open(&session.data, &args.out)?;
    let file = write(args, session, &base, &staging)?;
    let quantized = FoundModel {
        label: args.out.to_string(),
        path: staging.files().join(&file.name),
        digest: None,
    };
    let quantized = OpenModel::open(quantized)?;
    let digest = format!("blake3:{}", quantized.files.digest()?);
    let cost = match (&text, before) {
        (Some(text), Some((tokens, nats_before))) => {
            let (_, nats_after) = score::mean_nll(&args.engine, session, &quantized, text)?;
            Some(Cost { tokens, nats_before, nats_after, nats_added: nats_after - nats_before })
        }
        _ => None,
    };
    let origin = origin(args, session, &base.found);
    let manifest = staging.install(origin, vec![file], digest)?;
    report(args, &base, &manifest, cost)
}

/// The quantized file, in the staging folder.
fn write(
    args: &Args,
    session: &Session,
    base: &OpenModel,
    staging: &Staging,
) -> Outcome<FileEntry> {
    let metadata = save_model::gguf_metadata(&base.files, &base.found.label)?;
    let files = FileWeights::new(&base.files);
    let adapter = base.adapter.as_ref();
    let merged = adapter.map(|adapter| MergedWeights::new(&files, &adapter.weights)).transpose()?;
    let weights = merged.as_ref().map_or(&files as &dyn WeightSource, |merged| merged);
    let storage = Storage::new(args.storage.block_type());
    let num_bytes = storage.num_bytes(base.files.config());
    staging.require_disk(num_bytes)?;
    let name = format!("{}.gguf", args.out);
    let path = staging.files().join(&name);
    // Left by an attempt that was broken off.
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    save_model::with_job(&name, num_bytes, args.engine.threads(session)?, |job| {
        Ok(save_gguf(&path, &metadata, weights, storage, job)?)
    })?;
    let bytes = path.metadata()?.len();
    Ok(FileEntry { sha256: sha256_of(&path, |_| ())?, name, bytes })
}

/// Licence and terms are the base's, where it is installed.
fn origin(args: &Args, session: &Session, base: &FoundModel) -> Origin {
    let installed = base.label.parse::<ModelName>().ok();
    let manifest = installed.and_then(|name| manifest::read(&session.data.model(&name)).ok());
    let parent = base.digest.clone().unwrap_or_else(|| base.path.display().to_string());
    Origin {
        source: format!("quantized:{}:{parent}", args.storage.block_type()),
        version: None,
        licence: manifest.as_ref().and_then(|manifest| manifest.licence.clone()),
        terms: manifest.and_then(|manifest| manifest.terms),
    }
}

fn report(args: &Args, base: &OpenModel, manifest: &Manifest, cost: Option<Cost>) -> Outcome {
    let bytes_before = base.files.file_bytes();
    if args.json {
        return output::json(&serde_json::json!({
            "model": base.found.label,
            "name": manifest.name,
            "digest": manifest.digest,
            "type": args.storage.block_type().name(),
            "bytes_before": bytes_before,
            "bytes_after": manifest.bytes(),
            "cost": cost,
        }));
    }
    output::talk(format!(
        "installed {} ({}, before {}, {})",
        manifest.name,
        output::bytes(manifest.bytes()),
        output::bytes(bytes_before),
        manifest.digest
    ));
    match cost {
        Some(Cost { tokens, nats_before, nats_after, nats_added }) => output::data(format!(
            "{nats_added:+.4} nats per token: {nats_after:.4} after, {nats_before:.4} before, \
             on {tokens} tokens"
        )),
        None => {
            output::talk("its cost was not measured: give a held-out text with --text FILE");
            Ok(())
        }
    }
}
