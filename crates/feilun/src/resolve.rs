//! Which model a user means by `--model`: a name, a path, or the beginning of a digest.

use std::path::{Path, PathBuf};

use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{self, Manifest};
use crate::model_name::ModelName;
use crate::stored_model;

/// The model that is meant where none is named.
pub(crate) const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// Shorter beginnings of a digest are more likely a slip than a name.
const MIN_DIGEST_CHARS: usize = 6;

/// A model that is there.
#[derive(Debug)]
pub(crate) struct FoundModel {
    /// How to speak of it.
    pub(crate) label: String,
    /// What the engine opens.
    pub(crate) path: PathBuf,
    /// `None` for a path that was never installed.
    pub(crate) digest: Option<String>,
}

/// Finds a model; `text` is what `--model` said.
pub(crate) fn find(session: &Session, text: Option<&str>) -> Outcome<FoundModel> {
    let Some(text) = text else {
        return match installed(session, DEFAULT_MODEL)? {
            Some(model) => Ok(model),
            None => {
                Err(Failure::failed(format!("the default model {DEFAULT_MODEL} is not installed"))
                    .hint(format!("fetch it: feilun pull {DEFAULT_MODEL}"))
                    .hint("or name another with --model"))
            }
        };
    };
    if let Some(model) = installed(session, text)? {
        return Ok(model);
    }
    if Path::new(text).exists() {
        return Ok(FoundModel { label: text.to_owned(), path: text.into(), digest: None });
    }
    if let Some(model) = by_digest(session, text)? {
        return Ok(model);
    }
    let failure = Failure::failed(format!("there is no model `{text}`"));
    if crate::catalog::load()?.entry(text).is_some() {
        return Err(failure.hint(format!("fetch it: feilun pull {text}")));
    }
    Err(failure
        .hint("expected an installed model's name, the beginning of its digest, or a path")
        .hint("see what is installed: feilun models"))
}

fn installed(session: &Session, text: &str) -> Outcome<Option<FoundModel>> {
    let Ok(name) = text.parse::<ModelName>() else { return Ok(None) };
    let folder = session.data.model(&name);
    if !folder.exists() {
        return Ok(None);
    }
    let manifest = manifest::read(&folder)
        .hint(format!("remove it with `feilun models rm {name}`, then pull it again"))?;
    Ok(Some(found(session, &name, &manifest)))
}

fn by_digest(session: &Session, text: &str) -> Outcome<Option<FoundModel>> {
    let wanted = text.rsplit(':').next().unwrap_or(text);
    if wanted.len() < MIN_DIGEST_CHARS || !wanted.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut matches = Vec::new();
    for (name, manifest) in session.data.installed()? {
        // A broken model has no digest to be meant by.
        if let Ok(manifest) = manifest
            && manifest.digest_hex().starts_with(wanted)
        {
            matches.push(found(session, &name, &manifest));
        }
    }
    // The same content under two names is one model.
    matches.dedup_by(|a, b| a.digest == b.digest);
    match matches.len() {
        0 | 1 => Ok(matches.pop()),
        _ => {
            let names: Vec<String> = matches.into_iter().map(|model| model.label).collect();
            Err(Failure::failed(format!("`{text}` begins the digests of {}", names.join(", ")))
                .hint("give more of it"))
        }
    }
}

fn found(session: &Session, name: &ModelName, manifest: &Manifest) -> FoundModel {
    let names = manifest.files.iter().map(|file| file.name.as_str());
    FoundModel {
        label: name.to_string(),
        path: stored_model::entry_point(&session.data.model(name), names),
        digest: Some(manifest.digest.clone()),
    }
}
