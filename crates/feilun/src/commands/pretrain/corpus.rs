//! From what `--data` names to token shards.
//!
//! Texts become tokens once: the shard is kept in the data directory under the digest of all that
//! it was made from, and found there by the next run, and by the same run when it goes on.

use std::fs;
use std::path::{Path, PathBuf};

use feilun_text::Tokenizer;
use feilun_train::data::shard::Shard;
use feilun_train::data::{BadLines, TextOptions, TextReport, texts_digest, write_shard};

use super::Args;
use crate::commands::Session;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;
use crate::training::{self, Reading};

/// What `write_shard` makes.
const SHARD: &str = "tokens";
/// Files of a folder and all below it.
const MAX_FILES: usize = 1 << 20;
const MAX_FOLDER_DEPTH: usize = 32;
/// Longer texts are several documents: a finer choice of what is held out, and still far more
/// than a context.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// What is trained on.
pub(super) struct Corpus {
    pub(super) shards: Vec<Shard>,
}

impl Corpus {
    pub(super) fn num_tokens(&self) -> u64 {
        self.shards.iter().map(|shard| shard.num_tokens() as u64).sum()
    }
}

pub(super) fn open(args: &Args, tokenizer: &Tokenizer, session: &Session) -> Outcome<Corpus> {
    let mut files = Vec::new();
    for path in &args.data {
        collect(path, 0, &mut files)?;
    }
    let is_shard = |path: &PathBuf| path.extension().is_some_and(|extension| extension == SHARD);
    let (mut shards, texts): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_shard);
    if shards.is_empty() && texts.is_empty() {
        let names: Vec<_> = args.data.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::failed(format!("there is no file in {}", names.join(", ")))
            .hint("expected texts in UTF-8, .jsonl with {\"text\": \"..\"} a line, or .tokens"));
    }
    if !texts.is_empty() {
        shards.push(text_shard(args, &texts, tokenizer, session)?);
    }
    let mut corpus = Corpus { shards: Vec::new() };
    for path in &shards {
        let shard = Shard::open(path)?;
        shard.check_tokenizer(tokenizer)?;
        shard.verify()?;
        corpus.shards.push(shard);
    }
    Ok(corpus)
}

/// The files under a path, in an order that does not depend on the file system. Hidden ones are
/// left out, and links to folders are not followed.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Outcome {
    let doing = || format!("cannot read {}", path.display());
    let metadata = fs::metadata(path).doing(doing)?;
    if metadata.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(Failure::failed(format!("{} is neither file nor folder", path.display())));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).doing(doing)? {
        let entry = entry.doing(doing)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_link_to_folder =
            entry.file_type().doing(doing)?.is_symlink() && entry.path().is_dir();
        if !is_hidden && !is_link_to_folder {
            entries.push(entry.path());
        }
        if files.len() + entries.len() > MAX_FILES || depth > MAX_FOLDER_DEPTH {
            let message = format!(
                "{} has more than {MAX_FILES} files, or more than {MAX_FOLDER_DEPTH} folders in \
                 each other",
                path.display()
            );
            return Err(Failure::failed(message).hint("join the texts in .jsonl files"));
        }
    }
    entries.sort();
    entries.iter().try_for_each(|entry| collect(entry, depth + 1, files))
}

/// The shard of these texts, made now unless it is there.
fn text_shard(
    args: &Args,
    texts: &[PathBuf],
    tokenizer: &Tokenizer,
    session: &Session,
) -> Outcome<PathBuf> {
    let bad_lines = if args.training.skip_bad { BadLines::Skip } else { BadLines::Refuse };
    let options = TextOptions { bad_lines, document_bytes_max: DOCUMENT_BYTES_MAX };
    let digest = texts_digest(texts, tokenizer, options)?.to_hex();
    let folder = session.data.tokens();
    let (path, report) =
        (folder.join(format!("{digest}.{SHARD}")), folder.join(format!("{digest}.json")));
    let report: TextReport = if path.exists() && report.exists() {
        serde_json::from_slice(&fs::read(&report)?)
            .doing(|| format!("{} is damaged", report.display()))
            .hint("remove it; it is made anew")?
    } else {
        fs::create_dir_all(&folder).doing(|| format!("cannot make {}", folder.display()))?;
        let sizes = texts.iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len()));
        let all = sizes.sum();
        let (mut bar, mut done) = (Reading::new(), 0);
        let found = write_shard(texts, tokenizer, &path, options, &mut |bytes| {
            done += bytes;
            bar.see(done, all);
        })?;
        bar.finish();
        // After the shard: without its report a shard is made again.
        fs::write(&report, serde_json::to_vec(&found)?)?;
        found
    };
    training::tell_skipped(&report.skipped, report.num_skipped, "bad texts or lines");
    output::talk(format!(
        "texts: {}, {} documents, {} tokens: {}",
        output::bytes(report.num_bytes),
        report.num_documents,
        report.num_tokens,
        path.display()
    ));
    Ok(path)
}
