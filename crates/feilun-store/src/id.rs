//! Ids of rows: UUIDs of version 7, so that the order of ids is the order of making them.
//!
//! They are shown and read as lower-case hyphenated text; in the database they are 16 bytes.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no id: expected a lower-case hyphenated UUID")]
pub struct ParseIdError {
    /// The text, shortened.
    pub found: String,
}

fn parse(text: &str) -> Result<Uuid, ParseIdError> {
    let refused = || ParseIdError { found: text.chars().take(40).collect() };
    let uuid = Uuid::try_parse(text).map_err(|_| refused())?;
    // One row has one name: upper case, braces and the like are other spellings of it.
    if uuid.hyphenated().to_string() != text {
        return Err(refused());
    }
    Ok(uuid)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, larger than every id that this process made before.
            #[expect(clippy::new_without_default, reason = "each is another one")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }
    )+};
}

ids! {
    /// One request and its answer.
    TurnId,
    /// Turns that belong together.
    ConversationId,
    /// One piece of feedback.
    FeedbackId,
    /// One implicit signal.
    EventId,
    /// An API key.
    KeyId,
    /// A person with an account.
    UserId,
    /// A training job.
    RunId,
    /// Something that happened in a training job.
    RunEventId,
    /// An uploaded file.
    FileId,
    /// One move of an alias.
    AliasMoveId,
    /// An entry of the audit log.
    AuditId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_read_back() {
        let ids: Vec<TurnId> = (0..1000).map(|_| TurnId::new()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[0].to_string().parse(), Ok(ids[0]));
    }

    #[test]
    fn another_spelling_is_refused() {
        for text in
            ["", "0192F0C4-0000-7000-8000-000000000000", "0192f0c4000070008000000000000000", "x"]
        {
            assert!(text.parse::<TurnId>().is_err(), "{text}");
        }
    }
}
