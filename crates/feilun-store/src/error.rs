//! What can go wrong, told apart by what the caller can do about it.

use std::io;
use std::path::PathBuf;

use crate::digest::{BlobDigest, ConfigHash, ModelDigest};
use crate::id::{ConversationId, FileId, KeyId, RunId, TurnId, UserId};

/// Why the store did not do something. Nothing of it was done, but see
/// [`StoreError::Unreachable`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The queue of writes is full. Trying again later helps.
    #[error("the store's queue is full ({queued} writes wait, {queued_bytes} bytes)")]
    QueueFull {
        /// Writes that wait.
        queued: usize,
        /// Their size.
        queued_bytes: usize,
    },
    /// Somebody else holds the database's lock, or two writers were in each other's way again
    /// and again. Trying again later helps.
    #[error("the database is locked: {reason}")]
    Busy {
        /// In the database's words.
        reason: String,
    },
    /// No room is left, on the disk or within
    /// [`StoreOptions::database_bytes_max`](crate::StoreOptions::database_bytes_max). Reading
    /// and deleting still work; writing works again once there is room.
    #[error("the database is full: {reason}")]
    Full {
        /// In the database's words.
        reason: String,
    },
    /// The database does not answer, or the connection broke. Trying again later helps. If it
    /// broke at the very end, the write may have been done.
    #[error("the database cannot be reached: {reason}")]
    Unreachable {
        /// What the connection said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A value is not one that the store takes.
    #[error("{field}: found {found}, expected {expected}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it was, or how large.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// There is no such turn.
    #[error("there is no turn {0}")]
    NoSuchTurn(TurnId),
    /// There is no such conversation.
    #[error("there is no conversation {0}")]
    NoSuchConversation(ConversationId),
    /// There is no such user.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// There is no such key.
    #[error("there is no key {0}")]
    NoSuchKey(KeyId),
    /// There is no such run.
    #[error("there is no run {0}")]
    NoSuchRun(RunId),
    /// There is no such file.
    #[error("there is no file {0}")]
    NoSuchFile(FileId),
    /// No such model was recorded.
    #[error("there is no model {0}")]
    NoSuchModel(ModelDigest),
    /// No such configuration was recorded.
    #[error("there is no configuration {0}")]
    NoSuchConfig(ConfigHash),
    /// There are no such bytes.
    #[error("there is no blob {0}")]
    NoSuchBlob(BlobDigest),
    /// The model may not be served.
    #[error("model {model} is blocked: {reason}")]
    ModelBlocked {
        /// Which.
        model: ModelDigest,
        /// Why.
        reason: String,
    },
    /// There is one already.
    #[error("there is a {what} `{name}` already")]
    Exists {
        /// What kind of thing.
        what: &'static str,
        /// Its id or name.
        name: String,
    },
    /// The alias pointed elsewhere than the caller thought, so it was not moved.
    #[error("alias `{alias}` points to {found}, expected {expected}")]
    AliasMoved {
        /// Which alias.
        alias: String,
        /// Where it points.
        found: String,
        /// Where the caller thought it does.
        expected: String,
    },
    /// The run has ended, or it cannot go from its status to that one.
    #[error("run {run} is {found} and cannot become {wanted}")]
    RunStatus {
        /// Which run.
        run: RunId,
        /// Its status.
        found: &'static str,
        /// What it should have become.
        wanted: &'static str,
    },
    /// What was added to a blob went beyond its limit.
    #[error("a file of more than {bytes_max} bytes is refused")]
    BlobTooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The address is none of a database.
    #[error("`{found}` is no address of a store: expected sqlite:PATH or postgres://...")]
    Url {
        /// The address, without its password.
        found: String,
    },
    /// The database was made by a newer Feilun.
    #[error("the database has schema {found}, this program knows {known}: use a newer program")]
    SchemaTooNew {
        /// Of the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The database says that a migration was done which is not ours.
    #[error("migration {number} of the database is not the one that this program knows")]
    SchemaDiffers {
        /// Which one.
        number: i64,
    },
    /// The file is no database, or what it holds is not what was written.
    #[error("the database is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// A file beside the database could not be read or written.
    #[error("cannot {what} {path}: {reason}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
        /// The kind of what the system said.
        kind: io::ErrorKind,
    },
    /// The database refused a statement for a reason of which the store knows nothing. This is
    /// an error of the program.
    #[error("the database refused a statement: {reason}")]
    Database {
        /// In the database's words.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing it (HTTP 503).
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::Busy { .. }
                | Self::Full { .. }
                | Self::Unreachable { .. }
                | Self::Closed
        )
    }

    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { what, path, reason: error.to_string(), kind: error.kind() }
    }

    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }
}
