//! The catalog: models that have a name, and the terms some of them come under.
//! The facts stand in `catalog.toml`, which is compiled in.

use serde::Deserialize;

use crate::failure::{Outcome, OutcomeExt as _};

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    #[serde(rename = "model")]
    pub(crate) models: Vec<Entry>,
    terms: Vec<Terms>,
}

/// One model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) licence: String,
    /// Key of terms to be accepted first.
    pub(crate) terms: Option<String>,
    /// Repository on the hub, for where the packages cannot be had.
    pub(crate) hub: String,
    #[serde(rename = "file")]
    pub(crate) files: Vec<CatalogFile>,
}

/// One file, in the form that the Python packages carry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatalogFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// To be joined in order.
    #[serde(rename = "part")]
    pub(crate) parts: Vec<Part>,
}

/// A member of a Python package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) member: String,
}

/// Terms that a person accepts before a model is fetched.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) url: String,
    /// In our own words.
    pub(crate) summary: String,
}

/// Reads the table that was compiled in.
pub(crate) fn load() -> Outcome<Catalog> {
    toml::from_str(include_str!("catalog.toml")).doing(|| "catalog.toml".to_owned())
}

impl Catalog {
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn terms(&self, key: &str) -> Option<&Terms> {
        self.terms.iter().find(|terms| terms.key == key)
    }

    /// Names with what they are, a line each.
    pub(crate) fn listing(&self) -> String {
        let line = |entry: &Entry| format!("{:<24}{}", entry.name, entry.about);
        self.models.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::is_plain_file_name;
    use crate::model_name::ModelName;

    #[test]
    fn every_entry_is_well_formed() {
        let catalog = load().unwrap();
        for entry in &catalog.models {
            assert!(entry.name.parse::<ModelName>().is_ok(), "{entry:?}");
            assert!(!entry.files.is_empty(), "{entry:?}");
            let terms = entry.terms.as_deref();
            assert!(terms.is_none_or(|key| catalog.terms(key).is_some()), "{entry:?}");
            for file in &entry.files {
                assert!(is_plain_file_name(&file.name), "{file:?}");
                assert!(!file.parts.is_empty(), "{file:?}");
                assert_eq!(file.sha256.len(), 64);
                assert!(file.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
            }
        }
    }
}
