//! Where callers and the engine thread meet: requests and orders go in, counts come out. Its lock
//! is never held while anything is computed, so nobody waits here for a step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Sink;
use super::config::{ModelDigest, Tenant};
use super::error::{RoomError, SubmitError};
use super::resident::{InFlight, ResidentModel};
use super::status::{ModelState, ModelStatus, RoomStatus};
use super::worker::Host;
use crate::kv::prefix::Namespace;
use crate::request::Request;

/// Whoever is refused is asked to come back no sooner,
const RETRY_MIN: Duration = Duration::from_secs(1);
/// and no later.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A request on its way to the engine thread.
pub(super) struct Arrival {
    pub(super) request: Request,
    pub(super) sink: Sink,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) in_flight: InFlight,
}

/// What the engine thread is told besides requests. Loads come one at a time, so there are never
/// more than a few.
pub(super) enum Order {
    Install(Box<Host>),
    Retire(ModelDigest),
}

/// What the engine thread takes with it.
#[derive(Default)]
pub(super) struct Pickup {
    pub(super) arrivals: Vec<Arrival>,
    pub(super) orders: Vec<Order>,
    /// The room is closed.
    pub(super) is_closed: bool,
}

/// What the engine thread leaves.
#[derive(Default)]
pub(super) struct Report {
    pub(super) models: Vec<ModelStatus>,
    /// Requests in the engines' queues.
    pub(super) waiting: HashMap<Namespace, usize>,
    /// Running estimate of the time between two ends of requests while there is work.
    pub(super) end_interval: Option<Duration>,
}

pub(super) struct Desk {
    waiting_max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    pickup: Pickup,
    report: Report,
    /// Waiting requests of each tenant: those of the report, and those that came since.
    waiting: HashMap<Namespace, usize>,
    num_waiting: usize,
    num_submitted: u64,
    /// Why the engine thread has ended.
    stopped: Option<String>,
}

impl Desk {
    pub(super) fn new(waiting_max: usize) -> Desk {
        Desk { waiting_max, state: Mutex::default(), wake: Condvar::new() }
    }

    /// Takes a request in, or says why not.
    pub(super) fn submit(
        &self,
        model: Arc<ResidentModel>,
        tenant: Tenant,
        mut request: Request,
        sink: Sink,
    ) -> Result<Arc<AtomicBool>, SubmitError> {
        request.check(model.bounds())?;
        request.namespace = tenant.namespace();
        request.weight = tenant.weight.max(1);
        let mut state = self.lock();
        if let Some(reason) = &state.stopped {
            return Err(SubmitError::Stopped { reason: reason.clone() });
        }
        match model.state() {
            ModelState::Serving => {}
            ModelState::Unloaded => return Err(SubmitError::Unloaded(model.digest())),
            ModelState::Failed { reason } => {
                return Err(SubmitError::ModelFailed { digest: model.digest(), reason });
            }
        }
        let mine = state.waiting.get(&request.namespace).copied().unwrap_or(0);
        if mine >= tenant.waiting_max {
            let (waiting, max) = (mine, tenant.waiting_max);
            let retry_after = state.retry_after(waiting);
            return Err(SubmitError::QuotaFull { waiting, max, retry_after });
        }
        if state.num_waiting >= self.waiting_max {
            let (waiting, max) = (state.num_waiting, self.waiting_max);
            let retry_after = state.retry_after(waiting);
            return Err(SubmitError::QueueFull { waiting, max, retry_after });
        }
        *state.waiting.entry(request.namespace).or_default() += 1;
        state.num_waiting += 1;
        state.num_submitted += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let in_flight = model.enter(state.num_submitted);
        let arrival = Arrival { request, sink, cancelled: Arc::clone(&cancelled), in_flight };
        state.pickup.arrivals.push(arrival);
        self.wake.notify_one();
        Ok(cancelled)
    }

    /// Brings a model to the engine thread.
    pub(super) fn install(&self, host: Box<Host>) -> Result<(), RoomError> {
        let mut state = self.lock();
        if let Some(reason) = &state.stopped {
            return Err(RoomError::Stopped { reason: reason.clone() });
        }
        state.pickup.orders.push(Order::Install(host));
        self.wake.notify_one();
        Ok(())
    }

    /// Lets a model take no more requests. With `only_idle` it stays if it has any; false then.
    pub(super) fn retire(&self, model: &ResidentModel, only_idle: bool) -> bool {
        // Under the lock under which requests come in: none is on its way.
        let mut state = self.lock();
        if only_idle && model.num_in_flight() > 0 {
            return false;
        }
        if model.state() == ModelState::Serving {
            model.set_state(ModelState::Unloaded);
        }
        state.pickup.orders.push(Order::Retire(model.digest()));
        self.wake.notify_one();
        true
    }

    /// Ends the engine thread.
    pub(super) fn close(&self) {
        self.lock().pickup.is_closed = true;
        self.wake.notify_one();
    }

    /// For the engine thread: leaves a report and takes what has come in. With `waits`, not
    /// before something has.
    pub(super) fn pick_up(&self, report: Report, waits: bool) -> Pickup {
        let mut state = self.lock();
        state.take_report(report);
        while waits && state.pickup.is_empty() {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.pickup)
    }

    /// For the end of the engine thread: nothing is taken in any more.
    pub(super) fn stop(&self, reason: String) -> Pickup {
        let mut state = self.lock();
        state.stopped = Some(reason);
        state.take_report(Report::default());
        std::mem::take(&mut state.pickup)
    }

    /// What is known of the engines.
    pub(super) fn status(&self) -> RoomStatus {
        let state = self.lock();
        RoomStatus {
            stopped: state.stopped.clone(),
            memory_bytes: 0,
            memory_bytes_max: 0,
            waiting: state.num_waiting,
            waiting_max: self.waiting_max,
            models: state.report.models.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is made whole before the lock is let go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_report(&mut self, report: Report) {
        self.waiting.clone_from(&report.waiting);
        for arrival in &self.pickup.arrivals {
            *self.waiting.entry(arrival.request.namespace).or_default() += 1;
        }
        self.num_waiting = self.waiting.values().sum();
        self.report = report;
    }

    /// When half of those that wait should be through.
    fn retry_after(&self, num_waiting: usize) -> Duration {
        let interval = self.report.end_interval.unwrap_or(Duration::ZERO).as_secs_f64();
        let seconds = interval * num_waiting as f64 / 2.0;
        // Beyond the bounds, and where nothing is known, the bounds.
        Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_MAX).clamp(RETRY_MIN, RETRY_MAX)
    }
}

impl Pickup {
    fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.orders.is_empty() && !self.is_closed
    }
}

/// A request that was accepted. Dropping it takes the request back, if it has not ended.
#[derive(Debug)]
#[must_use = "dropping the ticket takes the request back"]
pub struct Ticket {
    cancelled: Arc<AtomicBool>,
}

impl Ticket {
    pub(super) fn new(cancelled: Arc<AtomicBool>) -> Ticket {
        Ticket { cancelled }
    }

    /// Takes the request back: it ends within a step, if it has not ended before.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}
