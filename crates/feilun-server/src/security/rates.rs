//! Requests and tokens per minute of each key.
//!
//! Two buckets a key, which fill evenly over a minute and hold a minute's worth. A request costs
//! one; tokens are charged when they are known (the prompt's before, the answer's after), so
//! the bucket of tokens may go below zero, and the key waits until it is above again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are remembered. The full buckets go first, which are those of idle keys.
const KEYS_MAX: usize = 10_000;

/// What a key may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) tokens_per_minute: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    seen: Instant,
}

impl Bucket {
    fn full(per_minute: u32, now: Instant) -> Bucket {
        Bucket { level: per_minute.into(), seen: now }
    }

    fn fill(&mut self, per_minute: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen).as_secs_f64();
        let most = f64::from(per_minute);
        self.level = (self.level + elapsed * most / 60.0).min(most);
        self.seen = now;
    }

    /// Until it holds this much.
    fn time_until(&self, level: f64, per_minute: u32) -> Duration {
        let missing = (level - self.level).max(0.0);
        // A key with a limit of 0 may come back in an hour and be told the same again.
        let seconds = missing * 60.0 / f64::from(per_minute);
        Duration::from_secs_f64(seconds.min(3600.0))
    }
}

#[derive(Clone, Copy, Debug)]
struct Buckets {
    rates: Rates,
    requests: Bucket,
    tokens: Bucket,
}

/// The buckets of all keys.
#[derive(Debug)]
pub(crate) struct RateTable<K> {
    keys: Mutex<HashMap<K, Buckets>>,
}

impl<K> Default for RateTable<K> {
    fn default() -> Self {
        RateTable { keys: Mutex::default() }
    }
}

impl<K: Copy + Eq + Hash> RateTable<K> {
    /// Takes one request out of the key's bucket.
    ///
    /// # Errors
    /// When to come back, if a bucket is empty.
    pub(crate) fn take_request(&self, key: K, rates: Rates, now: Instant) -> Result<(), Duration> {
        self.with(key, rates, now, |buckets| {
            if let Some(per_minute) = rates.tokens_per_minute
                && buckets.tokens.level <= 0.0
            {
                return Err(buckets.tokens.time_until(1.0, per_minute));
            }
            if let Some(per_minute) = rates.requests_per_minute {
                if buckets.requests.level < 1.0 {
                    return Err(buckets.requests.time_until(1.0, per_minute));
                }
                buckets.requests.level -= 1.0;
            }
            Ok(())
        })
    }

    /// Takes tokens out of the key's bucket, even below zero.
    pub(crate) fn charge_tokens(&self, key: K, rates: Rates, num_tokens: usize, now: Instant) {
        if rates.tokens_per_minute.is_some() {
            self.with(key, rates, now, |buckets| buckets.tokens.level -= num_tokens as f64);
        }
    }

    fn with<R>(
        &self,
        key: K,
        rates: Rates,
        now: Instant,
        act: impl FnOnce(&mut Buckets) -> R,
    ) -> R {
        let requests = rates.requests_per_minute.unwrap_or(0);
        let tokens = rates.tokens_per_minute.unwrap_or(0);
        let full = || Buckets {
            rates,
            requests: Bucket::full(requests, now),
            tokens: Bucket::full(tokens, now),
        };
        // Every change under the lock is whole when it is released.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX && !keys.contains_key(&key) {
            let idle = |buckets: &Buckets| now.duration_since(buckets.requests.seen).as_secs() > 60;
            keys.retain(|_, buckets| !idle(buckets));
        }
        let buckets = keys.entry(key).or_insert_with(full);
        if buckets.rates != rates {
            *buckets = full();
        }
        buckets.requests.fill(requests, now);
        buckets.tokens.fill(tokens, now);
        act(buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITED: Rates = Rates { requests_per_minute: Some(2), tokens_per_minute: Some(60) };

    #[test]
    fn requests_come_back_evenly() {
        let table = RateTable::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(table.take_request(1, LIMITED, at(0)), Ok(()));
        assert_eq!(table.take_request(1, LIMITED, at(0)), Ok(()));
        assert_eq!(table.take_request(1, LIMITED, at(0)), Err(Duration::from_secs(30)));
        // Another key has its own.
        assert_eq!(table.take_request(2, LIMITED, at(0)), Ok(()));
        assert_eq!(table.take_request(1, LIMITED, at(20)), Err(Duration::from_secs(10)));
        assert_eq!(table.take_request(1, LIMITED, at(31)), Ok(()));
        // Never more than a minute's worth.
        assert_eq!(table.take_request(1, LIMITED, at(1000)), Ok(()));
        assert_eq!(table.take_request(1, LIMITED, at(1000)), Ok(()));
        assert!(table.take_request(1, LIMITED, at(1000)).is_err());
    }

    #[test]
    fn tokens_are_charged_afterwards() {
        let table = RateTable::default();
        let start = Instant::now();
        assert_eq!(table.take_request(1, LIMITED, start), Ok(()));
        table.charge_tokens(1, LIMITED, 100, start);
        assert_eq!(table.take_request(1, LIMITED, start), Err(Duration::from_secs(41)));
        let later = start + Duration::from_secs(42);
        assert_eq!(table.take_request(1, LIMITED, later), Ok(()));
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let table = RateTable::default();
        for _ in 0..1000 {
            assert_eq!(table.take_request(1, Rates::default(), Instant::now()), Ok(()));
        }
    }
}
