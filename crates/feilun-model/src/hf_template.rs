//! The chat template in a `tokenizer_config.json`: a string, or a list of named strings. The rest
//! of that file (Gemma's has a megabyte of added tokens) is skipped without being stored.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

/// Known lists have two or three: default, tool use, retrieval.
const MAX_TEMPLATES: usize = 64;

/// The one key that is read.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatTemplates {
    #[serde(default)]
    chat_template: Templates,
}

#[derive(Debug, Default)]
struct Templates(Vec<Named>);

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl ChatTemplates {
    /// The template called `default`, which is also the name of a single one.
    pub(crate) fn default(self) -> Option<String> {
        let named = self.chat_template.0.into_iter().find(|named| named.name == "default");
        named.map(|named| named.template)
    }
}

impl<'de> Deserialize<'de> for Templates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TemplatesVisitor)
    }
}

struct TemplatesVisitor;

impl<'de> Visitor<'de> for TemplatesVisitor {
    type Value = Templates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a template, or a list of objects with name and template")
    }

    fn visit_unit<E>(self) -> Result<Templates, E> {
        Ok(Templates::default())
    }

    fn visit_str<E>(self, template: &str) -> Result<Templates, E> {
        Ok(Templates(vec![Named { name: "default".into(), template: template.into() }]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Templates, A::Error> {
        let mut templates = Vec::new();
        while let Some(named) = seq.next_element()? {
            if templates.len() == MAX_TEMPLATES {
                return Err(A::Error::custom(format!("more than {MAX_TEMPLATES} templates")));
            }
            templates.push(named);
        }
        Ok(Templates(templates))
    }
}
