//! The engine thread: it steps the engines of all models in turn, so that two models never fight
//! for the cores, and tells the sinks what happened.
//!
//! The turn goes to the model that has had least time among those with work. While anybody waits
//! for the next token of an answer, every step is limited (see [`StepLimit`]), and the time that
//! is allowed is divided among the models with work.
//!
//! What may go wrong stays where it is: a sink that panics ends its request, a step that panics
//! ends its model, and if this thread ends by a fault, every request is told.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Sink;
use super::budget::Reservation;
use super::desk::{Arrival, Desk, Order, Pickup, Report};
use super::resident::{InFlight, ResidentModel};
use super::status::{KvBlocks, ModelState, ModelStatus, RequestTotals};
use crate::decoder::Decoder;
use crate::engine::{Engine, StepLimit};
use crate::event::{Event, EventKind, Finish, FinishReason, GenerationError, Timings, Usage};
use crate::isolate::{isolate, message};
use crate::kv::prefix::Namespace;
use crate::request::{Request, RequestId, SubmitError};

/// How much a new interval between two ends of requests counts.
const INTERVAL_RATE: f64 = 0.2;

/// An engine, whatever its decoder.
pub(super) trait AnyEngine: Send {
    fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError>;
    fn cancel(&mut self, id: RequestId) -> bool;
    fn step_within(&mut self, limit: Option<StepLimit>) -> Vec<Event>;
    fn is_idle(&self) -> bool;
    fn num_answering(&self) -> usize;
    fn add_waiting(&self, waiting: &mut HashMap<Namespace, usize>);
    fn describe(&self, status: &mut ModelStatus);
}

impl<D: Decoder + Send> AnyEngine for Engine<D> {
    fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        self.submit(request)
    }

    fn cancel(&mut self, id: RequestId) -> bool {
        self.cancel(id)
    }

    fn step_within(&mut self, limit: Option<StepLimit>) -> Vec<Event> {
        self.step_within(limit)
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn num_answering(&self) -> usize {
        self.num_answering()
    }

    fn add_waiting(&self, waiting: &mut HashMap<Namespace, usize>) {
        for (name, count) in self.waiting() {
            *waiting.entry(name).or_default() += count;
        }
    }

    fn describe(&self, status: &mut ModelStatus) {
        let cache = self.cache();
        let (all, idle) = (cache.num_blocks(), cache.num_idle());
        status.blocks = KvBlocks { all, used: all - cache.num_available(), idle };
        status.waiting = self.num_waiting();
        status.running = self.num_running();
        status.answering = self.num_answering();
        status.totals = self.totals();
        status.answers_time = self.answers_time(status.answering);
        status.prompt_row_time = self.prompt_row_time();
    }
}

/// Who is told about a request.
struct Client {
    /// `None` after it broke off.
    sink: Option<Sink>,
    cancelled: Arc<AtomicBool>,
    _in_flight: InFlight,
}

impl Client {
    fn of(arrival: Arrival) -> (Request, Client) {
        let Arrival { request, sink, cancelled, in_flight } = arrival;
        (request, Client { sink: Some(sink), cancelled, _in_flight: in_flight })
    }

    /// False if it wants no more, or cannot take it.
    fn tell(&mut self, kind: EventKind) -> bool {
        let Some(sink) = &mut self.sink else { return false };
        let told = catch_unwind(AssertUnwindSafe(|| sink(kind)));
        let goes_on = matches!(told, Ok(ControlFlow::Continue(())));
        if !goes_on {
            self.forget();
        }
        goes_on
    }

    /// Drops the sink, which is another's code and may panic.
    fn forget(&mut self) {
        let sink = self.sink.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(sink)));
    }

    /// Its last event, where no engine can tell it any more.
    fn fail(mut self, error: GenerationError) {
        let finish = Finish {
            reason: FinishReason::Failed(error),
            text: String::new(),
            usage: Usage::default(),
            timings: Timings::default(),
        };
        self.tell(EventKind::Finished(finish));
        self.forget();
    }
}

/// A model on the engine thread.
pub(super) struct Host {
    model: Arc<ResidentModel>,
    engine: Box<dyn AnyEngine>,
    clients: HashMap<RequestId, Client>,
    /// Time that it has had, or is taken to have had.
    time: Duration,
    is_retired: bool,
    requests: RequestTotals,
    _memory: Reservation,
}

impl Host {
    pub(super) fn new(
        model: Arc<ResidentModel>,
        engine: Box<dyn AnyEngine>,
        memory: Reservation,
    ) -> Host {
        Host {
            model,
            engine,
            clients: HashMap::new(),
            time: Duration::ZERO,
            is_retired: false,
            requests: RequestTotals::default(),
            _memory: memory,
        }
    }

    fn has_work(&self) -> bool {
        !self.engine.is_idle()
    }

    fn submit(&mut self, arrival: Arrival) {
        let (request, client) = Client::of(arrival);
        match isolate(|| self.engine.submit(request)) {
            Ok(Ok(id)) => drop(self.clients.insert(id, client)),
            // It was checked when it came in, and the engine's own queue has no bound.
            Ok(Err(error)) => {
                client.fail(GenerationError::EngineLost { message: error.to_string() })
            }
            Err(error) => client.fail(error),
        }
    }

    fn cancel_marked(&mut self) {
        let marked = |client: &Client| client.cancelled.load(Ordering::Acquire);
        let ids: Vec<RequestId> =
            self.clients.iter().filter(|(_, client)| marked(client)).map(|(id, _)| *id).collect();
        for id in ids {
            self.engine.cancel(id);
        }
    }

    /// Hands out events. Returns how many requests have ended.
    fn tell(&mut self, events: Vec<Event>) -> u32 {
        let mut num_ended = 0;
        for Event { request: id, kind } in events {
            if let EventKind::Finished(finish) = &kind {
                num_ended += 1;
                self.count(finish);
                if let Some(mut client) = self.clients.remove(&id) {
                    client.tell(kind);
                    client.forget();
                }
            } else if self.clients.get_mut(&id).is_some_and(|client| !client.tell(kind)) {
                self.engine.cancel(id);
            }
        }
        num_ended
    }

    fn count(&mut self, finish: &Finish) {
        let totals = &mut self.requests;
        match finish.reason {
            FinishReason::Stop(_) | FinishReason::Length => totals.finished += 1,
            FinishReason::Cancelled => totals.cancelled += 1,
            FinishReason::Failed(_) => totals.failed += 1,
        }
        totals.prompt_tokens += finish.usage.prompt as u64;
        totals.cached_prompt_tokens += finish.usage.cached_prompt as u64;
        totals.generated_tokens += finish.usage.generated as u64;
    }

    /// Ends all its requests.
    fn lose(&mut self, message: &str) {
        for (_, client) in self.clients.drain() {
            client.fail(GenerationError::EngineLost { message: message.to_owned() });
        }
    }

    fn status(&self) -> ModelStatus {
        let mut status = ModelStatus::without_engine(&self.model);
        status.requests = self.requests;
        self.engine.describe(&mut status);
        status
    }
}

/// The thread's own state.
pub(super) struct Worker {
    desk: Arc<Desk>,
    limit: StepLimit,
    hosts: Vec<Host>,
    /// See [`Report::end_interval`]; in seconds.
    end_interval: Option<f64>,
    /// Time in steps since the last request ended.
    since_end: Duration,
    /// Why the thread ends; a fault where nobody has said.
    farewell: &'static str,
}

impl Worker {
    pub(super) fn new(desk: Arc<Desk>, limit: StepLimit) -> Worker {
        Worker {
            desk,
            limit,
            hosts: Vec::new(),
            end_interval: None,
            since_end: Duration::ZERO,
            farewell: "an internal fault of the engine thread",
        }
    }

    /// Until the room is closed.
    pub(super) fn run(mut self) {
        loop {
            let is_idle = !self.hosts.iter().any(Host::has_work);
            let Pickup { arrivals, orders, is_closed } = self.desk.pick_up(self.report(), is_idle);
            if is_closed {
                self.farewell = "the room was closed";
                return;
            }
            for order in orders {
                self.follow(order);
            }
            for arrival in arrivals {
                self.submit(arrival);
            }
            for host in &mut self.hosts {
                host.cancel_marked();
            }
            self.step();
            self.hosts.retain(|host| !host.is_retired || host.has_work());
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Install(host) => self.hosts.push(*host),
            Order::Retire(digest) => {
                for host in self.hosts.iter_mut().filter(|host| host.model.digest() == digest) {
                    // A model that was unloaded and loaded again has two hosts for a while.
                    host.is_retired |= host.model.state() != ModelState::Serving;
                }
            }
        }
    }

    fn submit(&mut self, arrival: Arrival) {
        let model = arrival.in_flight.model();
        match self.hosts.iter().position(|host| Arc::ptr_eq(&host.model, model)) {
            Some(index) => {
                self.wake(index);
                self.hosts[index].submit(arrival);
            }
            None => {
                let message = "the model has failed".to_owned();
                Client::of(arrival).1.fail(GenerationError::EngineLost { message });
            }
        }
    }

    /// A model that had nothing to do has no credit for that.
    fn wake(&mut self, index: usize) {
        if !self.hosts[index].has_work() {
            let working = self.hosts.iter().filter(|host| host.has_work());
            if let Some(least) = working.map(|host| host.time).min() {
                let host = &mut self.hosts[index];
                host.time = host.time.max(least);
            }
        }
    }

    /// One step of the model whose turn it is.
    fn step(&mut self) {
        let limit = self.limit();
        let working = self.hosts.iter().enumerate().filter(|(_, host)| host.has_work());
        let Some((index, _)) = working.min_by_key(|(_, host)| host.time) else { return };
        let host = &mut self.hosts[index];
        let start = Instant::now();
        let engine = &mut host.engine;
        let stepped = catch_unwind(AssertUnwindSafe(|| engine.step_within(limit)));
        let time = start.elapsed();
        host.time += time;
        self.since_end += time;
        match stepped {
            Ok(events) => {
                let num_ended = host.tell(events);
                self.note_ends(num_ended);
            }
            Err(payload) => {
                // What is between steps is the engine's own bookkeeping, and it is not whole.
                let reason = message(payload.as_ref());
                host.model.set_state(ModelState::Failed { reason: reason.clone() });
                host.lose(&reason);
                self.hosts.swap_remove(index);
            }
        }
    }

    /// What the next step may take.
    fn limit(&self) -> Option<StepLimit> {
        let is_awaited = self.hosts.iter().any(|host| host.engine.num_answering() > 0);
        let num_working = self.hosts.iter().filter(|host| host.has_work()).count().max(1);
        let target = self.limit.target / u32::try_from(num_working).unwrap_or(u32::MAX);
        is_awaited.then_some(StepLimit { target, ..self.limit })
    }

    fn note_ends(&mut self, num_ended: u32) {
        if num_ended == 0 {
            return;
        }
        let found = (self.since_end / num_ended).as_secs_f64();
        let interval = self.end_interval.get_or_insert(found);
        *interval += INTERVAL_RATE * (found - *interval);
        self.since_end = Duration::ZERO;
    }

    fn report(&self) -> Report {
        let mut waiting = HashMap::new();
        for host in &self.hosts {
            host.engine.add_waiting(&mut waiting);
        }
        Report {
            models: self.hosts.iter().map(Host::status).collect(),
            waiting,
            end_interval: self.end_interval.map(Duration::from_secs_f64),
        }
    }
}

impl Drop for Worker {
    /// Nobody is left waiting, however this thread ends.
    fn drop(&mut self) {
        let farewell = self.farewell;
        let Pickup { arrivals, orders, .. } = self.desk.stop(farewell.to_owned());
        drop(orders);
        for host in &mut self.hosts {
            host.lose(farewell);
        }
        for arrival in arrivals {
            let message = farewell.to_owned();
            Client::of(arrival).1.fail(GenerationError::EngineLost { message });
        }
    }
}
