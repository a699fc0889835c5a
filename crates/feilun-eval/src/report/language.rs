//! The languages that cards are written in.

use serde::{Deserialize, Serialize};

/// The language of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, simplified.
    Chinese,
}

impl Language {
    /// For the page's `lang`.
    pub(super) fn tag(self) -> &'static str {
        self.pick("en", "zh-Hans")
    }

    /// The text in this language.
    pub(super) fn pick<T>(self, english: T, chinese: T) -> T {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}
