//! The two real model files that tests read: fetched once, kept outside the checkout.
//!
//! Feilun's own `pull` does the fetching, so a test run on a new machine tries that too.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{cargo, run, say};

/// Names the folder for the tests; set by the user, it chooses the folder.
pub(crate) const FOLDER_VARIABLE: &str = "FEILUN_TEST_MODELS";

struct ModelFile {
    /// As the tests know it.
    name: &'static str,
    /// As the catalog of `feilun pull` knows it.
    catalog_name: &'static str,
    /// As it is installed.
    installed_name: &'static str,
    sha256: &'static str,
}

const MODEL_FILES: [ModelFile; 2] = [
    ModelFile {
        name: "smollm2.gguf",
        catalog_name: "smollm2-135m-instruct",
        installed_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    ModelFile {
        name: "gemma3.gguf",
        catalog_name: "gemma3-270m",
        installed_name: "gemma-3-270m-q4_k_m.gguf",
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
];

/// The folder with every model file in it, each checked against its digest.
pub(crate) fn fetch() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    for file in &MODEL_FILES {
        let path = folder.join(file.name);
        if !path.try_exists().with_context(|| path.display().to_string())? {
            pull(file, &folder)?;
        }
        let found = sha256_of(&path)?;
        if found != file.sha256 {
            bail!(
                "{}: sha256 is {found}, expected {}; remove the file and try again",
                path.display(),
                file.sha256
            );
        }
    }
    Ok(folder)
}

fn folder() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return Ok(PathBuf::from(folder));
    }
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    let cache = cache.with_context(|| format!("set {FOLDER_VARIABLE}, XDG_CACHE_HOME or HOME"))?;
    Ok(cache.join("feilun").join("test-models"))
}

fn pull(file: &ModelFile, folder: &Path) -> anyhow::Result<()> {
    say(&format!("fetching {} for the tests into {}", file.catalog_name, folder.display()));
    let data = folder.join("data");
    let mut command = cargo(&["run", "--locked", "--quiet", "--package", "feilun", "--", "pull"]);
    // The tests read Gemma's weights under the same terms as any user of `feilun pull`.
    command.args([file.catalog_name, "--accept-terms", "gemma", "--data"]).arg(&data);
    run(&mut command)?;
    let installed = data.join("models").join(file.catalog_name).join(file.installed_name);
    std::fs::hard_link(&installed, folder.join(file.name))
        .with_context(|| format!("cannot link {}", installed.display()))
}

fn sha256_of(path: &Path) -> anyhow::Result<String> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let num_bytes = file.read(&mut buffer)?;
        if num_bytes == 0 {
            break;
        }
        hasher.update(&buffer[..num_bytes]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
