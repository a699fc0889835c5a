//! Who has how much of the memory.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::RoomError;

/// A bound on memory, and what is taken of it.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// Memory that was granted; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { max, used: Mutex::new(0), freed: Condvar::new() })
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn used(&self) -> usize {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes memory, if need be as soon as enough is given back within `patience`.
    pub(super) fn reserve(
        self: &Arc<Budget>,
        bytes: usize,
        patience: Duration,
    ) -> Result<Reservation, RoomError> {
        let deadline = Instant::now() + patience;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(sum) = used.checked_add(bytes).filter(|sum| *sum <= self.max) {
                *used = sum;
                return Ok(Reservation { budget: Arc::clone(self), bytes });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (needed, used, max) = (bytes, *used, self.max);
                return Err(RoomError::Memory { needed, used, max, evicts: !patience.is_zero() });
            }
            used = self.freed.wait_timeout(used, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Reservation {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }
}

impl Budget {
    fn give_back(&self, bytes: usize) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.freed.notify_all();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_granted_up_to_the_bound_and_comes_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(70, Duration::ZERO).unwrap();
        let refused = budget.reserve(31, Duration::ZERO);
        assert!(matches!(
            refused,
            Err(RoomError::Memory { needed: 31, used: 70, max: 100, evicts: false })
        ));
        assert!(budget.reserve(usize::MAX, Duration::ZERO).is_err());
        first.shrink_to(60);
        let second = budget.reserve(31, Duration::ZERO).unwrap();
        assert_eq!((budget.used(), second.bytes()), (91, 31));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn whoever_may_wait_gets_what_others_give_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(100, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(50, Duration::from_secs(20)).unwrap());
            drop(first);
            assert_eq!(waiting.join().unwrap().bytes(), 50);
        });
    }
}
