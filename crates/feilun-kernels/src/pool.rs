//! A thread pool for steps that take microseconds.
//!
//! Workers spin for a short while before they sleep, so that a decode step, which is a
//! hundred parallel regions of a few microseconds each, pays no wake-up. The caller is worker 0,
//! and never waits for a worker that has not begun: on a busy machine, where a worker may get
//! no processor for milliseconds, the caller does the work itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it gives up its time slice or sleeps. About 50 µs
/// on the reference machine: longer than any gap inside a decode step, shorter than a user's
/// patience with a busy core.
const SPINS: u32 = 20_000;

/// A job as the workers see it: a thin pointer to a fat reference on the caller's stack.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// The state word: the number of the job, whether it is closed to newcomers, and how many
/// workers are in it.
const ACTIVE_BITS: u32 = 16;
const CLOSED: u64 = 1 << ACTIVE_BITS;
const ACTIVE: u64 = CLOSED - 1;
const EPOCH_SHIFT: u32 = ACTIVE_BITS + 1;

struct Shared {
    state: AtomicU64,
    /// Points to the `Job` of the current epoch.
    job: AtomicPtr<()>,
    /// Workers that have run the current job.
    finished: AtomicUsize,
    panicked: AtomicBool,
    shutdown: AtomicBool,
}

/// A fixed set of threads that run one job at a time, all together.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("num_threads", &self.num_threads()).finish()
    }
}

impl Pool {
    /// A pool of `num_threads` in all (at least one), the caller of [`Pool::run`] among them.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(num_threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(CLOSED),
            job: AtomicPtr::new(std::ptr::null_mut()),
            finished: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
        });
        // Built first, so that dropping it ends the workers already started if one fails.
        let mut pool = Pool { shared, workers: Vec::new() };
        for index in 1..num_threads.clamp(1, ACTIVE as usize) {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("feilun-{index}"))
                .spawn(move || work(&shared, index))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Number of threads that run a job.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread_index)` exactly once on every thread and returns when all have finished.
    ///
    /// Takes `&mut self`: one job at a time, and a job cannot start another on its own pool.
    ///
    /// # Panics
    /// When the job panics on any thread (after all threads have finished).
    pub fn run(&mut self, job: impl Fn(usize) + Sync) {
        self.broadcast(&job, true);
    }

    /// Calls `body(range)` for consecutive ranges that cover `0..num_items`, at most `grain`
    /// items each; threads take the next range when they are free.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn for_each_range(
        &mut self,
        num_items: usize,
        grain: usize,
        body: impl Fn(std::ops::Range<usize>) + Sync,
    ) {
        let grain = grain.max(1);
        if num_items <= grain || self.workers.is_empty() {
            if num_items > 0 {
                body(0..num_items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        let take_ranges = |_| {
            loop {
                let start = next.fetch_add(grain, Ordering::Relaxed);
                if start >= num_items {
                    break;
                }
                body(start..num_items.min(start + grain));
            }
        };
        self.broadcast(&take_ranges, false);
    }

    /// Calls `body(index, chunk)` for each chunk of `width` values (`values` is a whole number of
    /// them), at most `grain` chunks at a time on a thread.
    ///
    /// # Panics
    /// When `values` is not a whole number of chunks; as [`Pool::run`].
    pub fn for_each_chunk<T: Send>(
        &mut self,
        values: &mut [T],
        width: usize,
        grain: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(values.len().is_multiple_of(width), "{} values in chunks of {width}", values.len());
        let start = crate::pack::SendPointer(values.as_mut_ptr());
        self.for_each_range(values.len() / width, grain, |range| {
            for index in range {
                // SAFETY: the chunk lies within `values`, each index is visited once, and
                // chunks of different indices do not overlap.
                let chunk = unsafe {
                    std::slice::from_raw_parts_mut(start.get().add(index * width), width)
                };
                body(index, chunk);
            }
        });
    }

    /// [`Pool::for_each_chunk`] over two slices that have the same number of chunks:
    /// `body(index, chunk of a, chunk of b)`.
    ///
    /// # Panics
    /// When a slice is not a whole number of chunks, or their numbers differ; as [`Pool::run`].
    pub fn for_each_chunk_pair<A: Send, B: Send>(
        &mut self,
        (a, a_width): (&mut [A], usize),
        (b, b_width): (&mut [B], usize),
        grain: usize,
        body: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        assert!(b.len().is_multiple_of(b_width), "{} values in chunks of {b_width}", b.len());
        assert_eq!(a.len() / a_width, b.len() / b_width, "numbers of chunks");
        let start = crate::pack::SendPointer(b.as_mut_ptr());
        self.for_each_chunk(a, a_width, grain, |index, a| {
            // SAFETY: there are as many chunks of `b` as of `a`, each index is visited once, and
            // chunks of different indices do not overlap.
            let b = unsafe {
                std::slice::from_raw_parts_mut(start.get().add(index * b_width), b_width)
            };
            body(index, a, b);
        });
    }

    /// Offers the job to all workers and runs it here. Waits for all workers, or only for those
    /// that began before this thread was done.
    fn broadcast(&mut self, job: Job<'_>, all: bool) {
        if self.workers.is_empty() {
            job(0);
            return;
        }
        let shared = &*self.shared;
        shared.finished.store(0, Ordering::Relaxed);
        shared.job.store(std::ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> EPOCH_SHIFT) + 1;
        // Release: a worker that sees the new epoch sees the job.
        shared.state.store(epoch << EPOCH_SHIFT, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        // Whatever happens on this thread, the workers must be done with the borrowed job
        // before this frame goes.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        if all {
            wait_until(|| shared.finished.load(Ordering::Acquire) == self.workers.len());
        }
        shared.state.fetch_or(CLOSED, Ordering::AcqRel);
        wait_until(|| shared.state.load(Ordering::Acquire) & ACTIVE == 0);
        if let Err(payload) = outcome {
            std::panic::resume_unwind(payload);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a pool worker panicked");
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let mut spins = 0;
    while !condition() {
        spins += 1;
        if spins < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its job's panics, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    let mut spins = 0;
    while !shared.shutdown.load(Ordering::Relaxed) {
        let state = shared.state.load(Ordering::Acquire);
        let epoch = state >> EPOCH_SHIFT;
        if epoch == seen || state & CLOSED != 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                // `unpark` before this call makes it return at once, so no job is slept through.
                std::thread::park();
                spins = 0;
            }
            continue;
        }
        spins = 0;
        let entered =
            shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
        if entered.is_err() {
            continue;
        }
        seen = epoch;
        let job = shared.job.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
        // SAFETY: `broadcast` stored a pointer to a `Job` on its stack before it opened this
        // epoch, and does not return before it has closed it and no worker is active; this one
        // became active while it was open, and stays so until the subtraction below.
        let job = unsafe { *job };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index)));
        if outcome.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.finished.fetch_add(1, Ordering::Release);
        shared.state.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_each_job_once() {
        for num_threads in 1..=4 {
            let mut pool = Pool::new(num_threads).unwrap();
            for _ in 0..1000 {
                let counts: Vec<AtomicUsize> = (0..num_threads).map(|_| 0.into()).collect();
                pool.run(|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn ranges_cover_each_item_once() {
        let mut pool = Pool::new(3).unwrap();
        for num_items in [0, 1, 2, 7, 64, 1001] {
            for grain in [0, 1, 3, 64, 5000] {
                let counts: Vec<AtomicUsize> = (0..num_items).map(|_| 0.into()).collect();
                pool.for_each_range(num_items, grain, |range| {
                    for item in range {
                        counts[item].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn chunks_are_visited_once() {
        let mut values = vec![0; 3 * 101];
        Pool::new(2).unwrap().for_each_chunk(&mut values, 3, 4, |index, chunk| {
            chunk.iter_mut().for_each(|value| *value += index + 1);
        });
        assert!(values.iter().enumerate().all(|(i, &value)| value == i / 3 + 1));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let mut pool = Pool::new(2).unwrap();
        for bad in 0..2 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(|thread| assert_ne!(thread, bad));
            }));
            assert!(outcome.is_err());
        }
        pool.run(|_| {});
    }

    #[test]
    fn sleeping_workers_wake() {
        let mut pool = Pool::new(2).unwrap();
        pool.run(|_| {});
        std::thread::sleep(std::time::Duration::from_millis(50));
        let count = AtomicUsize::new(0);
        pool.run(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
