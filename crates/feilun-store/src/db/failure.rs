//! What the databases' errors mean.

use sqlx::Error;
use sqlx::error::DatabaseError;

use crate::error::StoreError;

/// The store's word for an error of the database or of the connection to it.
pub(crate) fn store_error(error: Error) -> StoreError {
    let reason = error.to_string();
    match &error {
        Error::Database(found) => of_database(found.as_ref()),
        Error::PoolClosed => StoreError::Closed,
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::WorkerCrashed => StoreError::Unreachable { reason },
        Error::ColumnDecode { .. } | Error::Decode(_) => StoreError::Damaged { reason },
        _ => StoreError::Database { reason },
    }
}

fn of_database(error: &dyn DatabaseError) -> StoreError {
    let reason = error.message().to_owned();
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // The lower eight bits are the primary code.
        of_sqlite(code.parse::<i32>().unwrap_or_default() & 0xff, reason)
    } else {
        of_postgres(&code, reason)
    }
}

/// See <https://www.sqlite.org/rescode.html>.
fn of_sqlite(primary_code: i32, reason: String) -> StoreError {
    match primary_code {
        5 | 6 => StoreError::Busy { reason },
        // An I/O error, and a file that cannot be opened.
        10 | 14 => StoreError::Unreachable { reason },
        11 | 26 => StoreError::Damaged { reason },
        13 => StoreError::Full { reason },
        _ => StoreError::Database { reason },
    }
}

/// See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_postgres(code: &str, reason: String) -> StoreError {
    match code {
        // Lock not available, statement timeout, deadlock, serialization failure.
        "55P03" | "57014" | "40P01" | "40001" => StoreError::Busy { reason },
        "53100" => StoreError::Full { reason },
        // Shutting down, crashed, starting, too many connections; no right to connect is ours
        // to report and not to retry.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => StoreError::Unreachable { reason },
        "XX001" | "XX002" => StoreError::Damaged { reason },
        _ if code.starts_with("08") || code.starts_with("58") => StoreError::Unreachable { reason },
        _ => StoreError::Database { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_they_should() {
        let reason = String::new;
        assert!(matches!(of_sqlite(13, reason()), StoreError::Full { .. }));
        assert!(matches!(of_sqlite(19, reason()), StoreError::Database { .. }));
        assert!(matches!(of_postgres("40P01", reason()), StoreError::Busy { .. }));
        assert!(matches!(of_postgres("08006", reason()), StoreError::Unreachable { .. }));
        assert!(matches!(of_postgres("23505", reason()), StoreError::Database { .. }));
    }
}
