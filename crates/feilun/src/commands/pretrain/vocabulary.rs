//! Whose tokens a new model speaks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use feilun_model::SpecialTokens;
use feilun_model::save::Companions;
use feilun_text::Tokenizer;
use feilun_train::data::shard::tokenizer_digest;

use crate::commands::Session;
use crate::engine::OpenModel;
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::{resolve, save_model};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
/// Gemma's has 33 MB.
const MAX_BYTES: u64 = 128 << 20;

/// A tokenizer, and the small files that carry it into a model's folder.
pub(super) struct Vocabulary {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) companions: Companions,
    name: String,
}

impl Vocabulary {
    /// Of a model, or of a folder that has a `tokenizer.json` and no model.
    pub(super) fn open(session: &Session, text: Option<&str>) -> Outcome<Vocabulary> {
        match text.map(Path::new).and_then(tokenizer_folder) {
            Some(folder) => Vocabulary::of_folder(&folder),
            None => {
                let model = OpenModel::open(resolve::find(session, text)?)
                    .hint("the tokens are taken from a model: --tokenizer names it")?;
                let companions = save_model::companions(&model.files)?;
                let name = model.found.label.clone();
                Ok(Vocabulary { tokenizer: model.tokenizer, companions, name })
            }
        }
    }

    fn of_folder(folder: &Path) -> Outcome<Vocabulary> {
        let json = read(&folder.join(TOKENIZER))?;
        let mut files = Vec::new();
        for name in [CONFIG, TEMPLATE] {
            let path = folder.join(name);
            if path.exists() {
                files.push((name.to_owned(), read(&path)?));
            }
        }
        let config = files.iter().find(|(name, _)| name == CONFIG);
        let tokenizer = Tokenizer::from_json(&json, config.map(|(_, bytes)| bytes.as_slice()))
            .doing(|| format!("the tokenizer in {}", folder.display()))?;
        files.push((TOKENIZER.to_owned(), json));
        let special_tokens =
            SpecialTokens { bos: tokenizer.bos(), eos: tokenizer.eos().into_iter().collect() };
        let name = folder.display().to_string();
        let tokenizer = Arc::new(tokenizer);
        Ok(Vocabulary { tokenizer, companions: Companions { files, special_tokens }, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn digest(&self) -> String {
        tokenizer_digest(&self.tokenizer).to_hex().to_string()
    }

    /// How to speak of it.
    pub(super) fn label(&self) -> String {
        format!("{}, {} of them", self.name, self.tokenizer.vocab_size())
    }

    /// Bytes of text that a token stands for.
    pub(super) fn text_bytes(&self, token: u32) -> usize {
        if self.tokenizer.is_special(token) { 0 } else { self.tokenizer.token_bytes(token).len() }
    }
}

/// The folder, where the path names a tokenizer without a model.
fn tokenizer_folder(path: &Path) -> Option<PathBuf> {
    if path.file_name().is_some_and(|name| name == TOKENIZER) && path.is_file() {
        return Some(path.parent().unwrap_or(Path::new("")).to_owned());
    }
    let is_model = path.join("config.json").exists();
    (!is_model && path.join(TOKENIZER).is_file()).then(|| path.to_owned())
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let doing = || format!("cannot read {}", path.display());
    let found = std::fs::metadata(path).doing(doing)?.len();
    if found > MAX_BYTES {
        let message = format!("{} has {found} bytes, expected at most {MAX_BYTES}", path.display());
        return Err(Failure::failed(message));
    }
    std::fs::read(path).doing(doing)
}
