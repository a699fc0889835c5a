//! A thread pool for steps that take microseconds.
//!
//! Workers spin for a short while before they sleep, so that a decode step, which is a
//! hundred parallel regions of a few microseconds each, pays no wake-up. The caller is worker 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it gives up its time slice or sleeps. About 50 µs
/// on the reference machine: longer than any gap inside a decode step, shorter than a user's
/// patience with a busy core.
const SPINS: u32 = 20_000;

/// A job as the workers see it: a thin pointer to a fat reference on the caller's stack.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// Rises by one for each job; a worker runs a job when it sees a new epoch.
    epoch: AtomicU64,
    /// Points to the `Job` of the current epoch.
    job: AtomicPtr<()>,
    /// Workers that have not finished the current job.
    running: AtomicUsize,
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
            epoch: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
        });
        // Built first, so that dropping it ends the workers already started if one fails.
        let mut pool = Pool { shared, workers: Vec::new() };
        for index in 1..num_threads.max(1) {
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

    /// Runs `job(thread_index)` once on every thread and returns when all have finished.
    ///
    /// Takes `&mut self`: one job at a time, and a job cannot start another on its own pool.
    ///
    /// # Panics
    /// When the job panics on any thread (after all threads have finished).
    pub fn run(&mut self, job: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            job(0);
            return;
        }
        let shared = &*self.shared;
        let fat: Job<'_> = &job;
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.job.store(std::ptr::from_ref(&fat).cast_mut().cast(), Ordering::Relaxed);
        // Release: a worker that sees the new epoch sees the job and the count.
        shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        // Whatever happens on this thread, the workers must be done with the borrowed job
        // before this frame goes.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while shared.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if let Err(payload) = outcome {
            std::panic::resume_unwind(payload);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a pool worker panicked");
    }

    /// Calls `body(range)` for consecutive ranges that cover `0..num_items`, at most `grain`
    /// items each; threads take the next range when they are free.
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
        self.run(|_| {
            loop {
                let start = next.fetch_add(grain, Ordering::Relaxed);
                if start >= num_items {
                    break;
                }
                body(start..num_items.min(start + grain));
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its job's panics, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
        seen += 1;
        if shared.shutdown.load(Ordering::Acquire) {
            return;
        }
        let job = shared.job.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
        // SAFETY: `Pool::run` stored a pointer to a `Job` on its stack before it raised the
        // epoch, and does not return before `running` is zero, which happens below.
        let job = unsafe { *job };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index)));
        if outcome.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.running.fetch_sub(1, Ordering::Release);
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
