//! Digests of content: BLAKE3, 32 bytes, shown in lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no digest: expected 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// The text, shortened.
    pub found: String,
}

fn parse(text: &str) -> Result<[u8; 32], ParseDigestError> {
    let refused = || ParseDigestError { found: text.chars().take(70).collect() };
    // One content has one name, so upper case is refused, which `from_hex` would take.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(refused());
    }
    blake3::Hash::from_hex(text).map(Into::into).map_err(|_| refused())
}

macro_rules! digests {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                parse(text).map(Self)
            }
        }
    )+};
}

digests! {
    /// Names a model or an adapter by its content.
    ModelDigest,
    /// Names a configuration by its canonical JSON.
    ConfigHash,
    /// Names the chat template that rendered a prompt.
    TemplateHash,
    /// Names the bytes of a file.
    BlobDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_and_has_one_spelling() {
        let digest = BlobDigest::from_bytes([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in [&"AB".repeat(32), "ab", &"g".repeat(64), ""] {
            assert!(text.parse::<BlobDigest>().is_err(), "{text}");
        }
    }
}
