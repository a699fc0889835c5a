//! Why statistics could not be computed.

/// Why there is no interval, test or plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum StatsError {
    #[error("item {item} contributes {found} numbers, the metric needs {expected}")]
    Width { item: usize, found: usize, expected: usize },
    #[error("item {item} contributes {found}, expected a finite number")]
    NotFinite { item: usize, found: f64 },
    #[error("items come in {found} clusters, expected at least {expected}")]
    TooFewClusters { found: usize, expected: usize },
    #[error("the metric of these items is {found}, expected a finite number")]
    Metric { found: f64 },
    #[error("every item scores the same, so nothing says how much scores vary")]
    NoVariation,
    #[error("{name} is {found}, expected {expected}")]
    Setting { name: &'static str, found: f64, expected: &'static str },
    #[error("{found} successes among {trials} trials")]
    Successes { found: u64, trials: u64 },
    #[error("no number of items up to {limit} would do")]
    OutOfReach { limit: u64 },
}

/// A number between 0 and 1, both excluded.
pub(crate) fn check_share(name: &'static str, found: f64) -> Result<(), StatsError> {
    if found > 0.0 && found < 1.0 {
        return Ok(());
    }
    Err(StatsError::Setting { name, found, expected: "a number between 0 and 1" })
}

/// A finite number above zero.
pub(crate) fn check_positive(name: &'static str, found: f64) -> Result<(), StatsError> {
    if found > 0.0 && found.is_finite() {
        return Ok(());
    }
    Err(StatsError::Setting { name, found, expected: "a finite number above 0" })
}
