//! Where a store is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::StoreError;

/// The address of a database: `sqlite:PATH` or `postgres://...`.
///
/// It is shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub(crate) Address);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Sqlite(PathBuf),
    Postgres(String),
}

impl StoreUrl {
    /// A SQLite database in this file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Address::Sqlite(path.into()))
    }

    /// The file, where it is one.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.0 {
            Address::Sqlite(path) => Some(path),
            Address::Postgres(_) => None,
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if let Some(path) = text.strip_prefix("sqlite:")
            // A database in memory would lose everything that was acknowledged.
            && !path.is_empty()
            && !path.contains(":memory:")
            && !path.contains('\0')
        {
            return Ok(Self::sqlite(path.strip_prefix("//").unwrap_or(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self(Address::Postgres(text.to_owned())));
        }
        Err(StoreError::Url { found: without_password(text) })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Address::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// Hides what stands between the user's name and the host, and every parameter: a password may
/// be among them.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let url = text.parse::<StoreUrl>().ok();
        assert_eq!(url.map(|url| url.to_string()).as_deref(), expected);
    }

    #[test]
    fn addresses() {
        check("sqlite:data/feilun.db", Some("sqlite:data/feilun.db"));
        check("sqlite:///data/feilun.db", Some("sqlite:/data/feilun.db"));
        check("postgres://me:secret@host:5432/feilun", Some("postgres://me@host:5432/feilun"));
        check("postgres://host/feilun?password=secret", Some("postgres://host/feilun"));
        for refused in ["", "sqlite:", "sqlite::memory:", "mysql://host", "feilun.db"] {
            check(refused, None);
        }
    }

    #[test]
    fn a_refused_address_hides_its_password() {
        let error = "mysql://me:secret@host/x".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
