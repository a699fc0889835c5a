//! `feilun models`: what is installed, what it is, whether it is whole; and removing it.

use serde::Serialize;

use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{self, Manifest, sha256_of};
use crate::model_name::ModelName;
use crate::output;
use crate::pull::progress::Progress;
use crate::pull::staging;
use crate::stored_model::{self, Description};

/// List, show, verify and remove installed models
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  feilun models
  feilun models show smollm2-135m-instruct
  feilun models verify smollm2-135m-instruct
  feilun models rm gemma3-270m")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the installed models
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a model is and where it came from
    Show {
        /// An installed model
        name: ModelName,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare every file of a model with the digest it was installed with
    Verify {
        /// An installed model
        name: ModelName,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a model from the disk
    Rm {
        /// An installed model
        name: ModelName,
    },
}

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    match args.action.unwrap_or(Action::List { json: args.json }) {
        Action::List { json } => list(session, json),
        Action::Show { name, json } => show(session, &name, json),
        Action::Verify { name, json } => verify(session, &name, json),
        Action::Rm { name } => remove(session, &name),
    }
}

const REPAIR: &str = "remove it with `feilun models rm NAME`, then pull it again";

/// A model in `--json`: its manifest, and what is in its files.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    manifest: Manifest,
    bytes: u64,
    model: Description,
}

fn shown(session: &Session, name: &ModelName, manifest: Manifest) -> Outcome<Shown> {
    let files = stored_model::open(&session.data.model(name), &manifest).hint(REPAIR)?;
    Ok(Shown { bytes: manifest.bytes(), model: Description::of(&files), manifest })
}

fn list(session: &Session, json: bool) -> Outcome {
    let mut models = Vec::new();
    let mut broken = Vec::new();
    for (name, manifest) in session.data.installed()? {
        match manifest.and_then(|manifest| shown(session, &name, manifest)) {
            Ok(model) => models.push(model),
            // One broken model must not hide the others.
            Err(failure) => {
                output::talk(format!("{} `{name}`: {failure}", output::yellow("warning:")));
                broken.push(name.to_string());
            }
        }
    }
    if json {
        output::json(&models)?;
    } else {
        print_table(&models)?;
    }
    if !broken.is_empty() {
        let names = broken.join(", ");
        return Err(Failure::failed(format!("cannot be opened: {names}")).hint(REPAIR));
    }
    if models.is_empty() && !json {
        output::talk(format!("no models in {}", session.data.models().display()));
        output::talk("  hint: feilun pull smollm2-135m-instruct");
    }
    Ok(())
}

fn print_table(models: &[Shown]) -> Outcome {
    if models.is_empty() {
        return Ok(());
    }
    let width = models.iter().map(|model| model.manifest.name.len()).max().unwrap_or(0).max(4);
    output::data(format!(
        "{:width$}  {:>10}  {:>10}  {:12}  DIGEST",
        "NAME", "SIZE", "PARAMETERS", "KIND"
    ))?;
    for model in models {
        output::data(format!(
            "{:width$}  {:>10}  {:>10}  {:12}  {}",
            model.manifest.name,
            output::bytes(model.bytes),
            parameters(model.model.parameters),
            model.model.architecture,
            short_digest(&model.manifest.digest),
        ))?;
    }
    Ok(())
}

fn show(session: &Session, name: &ModelName, json: bool) -> Outcome {
    let Shown { manifest, bytes, model } = shown(session, name, installed(session, name)?)?;
    if json {
        return output::json(&Shown { manifest, bytes, model });
    }
    let line = |label: &str, value: String| output::data(format!("{label:<14}{value}"));
    line("name", manifest.name)?;
    line("digest", manifest.digest)?;
    line("source", manifest.source)?;
    line("version", manifest.version.unwrap_or_else(|| "unknown".to_owned()))?;
    line("licence", manifest.licence.unwrap_or_else(|| "unknown".to_owned()))?;
    line("pulled at", manifest.pulled_at)?;
    line("architecture", model.architecture.clone())?;
    line("parameters", parameters(model.parameters))?;
    line("tensors", model.types_line())?;
    line("layers", format!("{} of width {}", model.layers, model.hidden_size))?;
    line("vocabulary", format!("{} tokens", model.vocabulary))?;
    line("context", format!("{} tokens", model.context))?;
    line("size", output::bytes(bytes))?;
    for file in manifest.files {
        line(
            "file",
            format!("{} ({}, sha256 {})", file.name, output::bytes(file.bytes), file.sha256),
        )?;
    }
    Ok(())
}

fn verify(session: &Session, name: &ModelName, json: bool) -> Outcome {
    let manifest = installed(session, name)?;
    let folder = session.data.model(name);
    let mut faults = Vec::new();
    for file in &manifest.files {
        let progress = Progress::start(&format!("verifying {}", file.name), file.bytes)?;
        match sha256_of(&folder.join(&file.name), |num_bytes| progress.add(num_bytes)) {
            Ok(found) if found == file.sha256 => {}
            Ok(found) => {
                faults.push(format!("{}: sha256 is {found}, expected {}", file.name, file.sha256));
            }
            Err(failure) => faults.push(failure.to_string()),
        }
    }
    if json {
        output::json(&serde_json::json!({
            "name": manifest.name, "digest": manifest.digest, "ok": faults.is_empty(), "faults": faults,
        }))?;
    }
    if !faults.is_empty() {
        return Err(Failure::failed(format!(
            "the model `{name}` has changed: {}",
            faults.join("; ")
        ))
        .hint(format!("fetch it anew: feilun pull {} --name {name} --replace", manifest.source)));
    }
    if !json {
        output::data(format!("{name}: ok, {}", manifest.digest))?;
    }
    Ok(())
}

fn remove(session: &Session, name: &ModelName) -> Outcome {
    // Not read through its manifest: a broken model must be removable too.
    if !session.data.model(name).exists() {
        return Err(not_installed(session, name));
    }
    staging::remove(&session.data, name)?;
    output::talk(format!("removed {name}"));
    Ok(())
}

fn installed(session: &Session, name: &ModelName) -> Outcome<Manifest> {
    let folder = session.data.model(name);
    if !folder.exists() {
        return Err(not_installed(session, name));
    }
    manifest::read(&folder).hint(REPAIR)
}

fn not_installed(session: &Session, name: &ModelName) -> Failure {
    let names: Vec<String> = match session.data.installed() {
        Ok(models) => models.into_iter().map(|(name, _)| name.to_string()).collect(),
        Err(failure) => return failure,
    };
    let failure = Failure::failed(format!("no model `{name}` is installed"));
    if names.is_empty() {
        return failure.hint("none is: fetch one with `feilun pull smollm2-135m-instruct`");
    }
    failure.hint(format!("installed: {}", names.join(", ")))
}

/// `134515008` as `134.5 M`.
fn parameters(count: u64) -> String {
    let count = count as f64;
    if count >= 1e9 { format!("{:.2} B", count / 1e9) } else { format!("{:.1} M", count / 1e6) }
}

/// Enough to tell models apart and to name one with.
fn short_digest(digest: &str) -> &str {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}
