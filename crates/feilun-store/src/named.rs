//! Enums that are words in the database and at the edge.

/// A text that is none of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {what}: expected one of {expected:?}")]
pub struct ParseNameError {
    /// What it should have been.
    pub what: &'static str,
    /// The text, shortened.
    pub found: String,
    /// The words.
    pub expected: &'static [&'static str],
}

/// An enum whose variants are words.
macro_rules! named {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            const WORDS: &'static [&'static str] = &[$($word),+];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::named::ParseNameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|name| name.as_str() == text).ok_or_else(|| {
                    $crate::named::ParseNameError {
                        what: stringify!($name),
                        found: text.chars().take(40).collect(),
                        expected: Self::WORDS,
                    }
                })
            }
        }

        impl $crate::db::Column for $name {
            const KIND: $crate::db::Kind = $crate::db::Kind::Text;

            fn encode(self) -> $crate::db::Value {
                self.as_str().encode()
            }

            fn decode(value: $crate::db::Value) -> Result<Self, $crate::error::StoreError> {
                let text = <String as $crate::db::Column>::decode(value)?;
                text.parse().map_err(|error: $crate::named::ParseNameError| {
                    $crate::error::StoreError::damaged(error.to_string())
                })
            }
        }
    };
}
pub(crate) use named;
