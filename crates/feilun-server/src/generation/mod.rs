//! From checked requests to recorded answers.
//!
//! [`start`] queues one engine request for each choice and leaves the rest to a task of its own:
//! it reads the engine's events, passes on what they add, and when all choices have ended it
//! records them. Only when that is committed does it say so; so no answer is whole before it is
//! safe. The task outlives the caller: one that leaves is a cancelled request, which is
//! recorded too.

pub(crate) mod capture;
pub(crate) mod choice;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feilun_infer::{EventKind, Request, SubmitError};
use tokio::sync::mpsc;

use self::capture::TurnContext;
use self::choice::{Choice, Delta, End};
use crate::backend::{Refusal, ServedModel, Submission, Ticket};
use crate::error::{ApiError, ErrorKind};
use crate::server::Server;

/// Pieces of an answer that may wait for the caller to take them; then the caller's time runs.
const PROGRESS_MAX: usize = 256;
/// How long an engine may take to end a request that was taken back.
const CANCEL_TIME: Duration = Duration::from_secs(30);

/// What is to be generated.
pub(crate) struct Work {
    pub(crate) model: Arc<dyn ServedModel>,
    /// One for each choice.
    pub(crate) requests: Vec<Request>,
    /// Look for tool calls in the answers.
    pub(crate) find_calls: bool,
    /// Pass on the log-probabilities of tokens. They are recorded either way.
    pub(crate) wants_logprobs: bool,
    /// Pass on pieces as they come.
    pub(crate) stream: bool,
    /// What is recorded with the turns.
    pub(crate) context: TurnContext,
}

/// What a caller learns, in this order: any number of the first two, then one of the others.
#[derive(Debug)]
pub(crate) enum Progress {
    Delta {
        choice: usize,
        delta: Delta,
    },
    /// Nothing new; the connection lives.
    KeepAlive,
    /// All choices have ended and are recorded.
    Done(Vec<Choice>),
    Failed(ApiError),
}

/// Queues the work.
pub(crate) fn start(
    server: &Arc<Server>,
    work: Work,
) -> Result<mpsc::Receiver<Progress>, ApiError> {
    let (sender, events) = mpsc::unbounded_channel();
    let mut tickets = Vec::with_capacity(work.requests.len());
    let tenant = work.context.caller.tenant;
    let num_choices = work.requests.len();
    for (index, request) in work.requests.iter().enumerate() {
        let sender = sender.clone();
        // An answer has no more events than tokens, and their number is bounded: so is the queue.
        let sink = Box::new(move |event| match sender.send((index, event)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        let mut request = request.clone();
        // A turn is recorded with the log-probability of every token.
        request.sampling.logprobs.get_or_insert(0);
        let submission = Submission { request, tenant, sink };
        tickets.push(work.model.submit(submission).map_err(refused)?);
    }
    drop(sender);
    let (progress, receiver) = mpsc::channel(PROGRESS_MAX);
    let task = Task {
        server: Arc::clone(server),
        stream: work.stream,
        wants_logprobs: work.wants_logprobs,
        choices: (0..num_choices).map(|_| Choice::new(work.find_calls)).collect(),
        requests: work.requests,
        context: work.context,
        tickets,
        events,
        progress,
        started: Instant::now(),
        last_token: None,
    };
    server.tasks.spawn(task.run());
    Ok(receiver)
}

type Events = mpsc::UnboundedReceiver<(usize, EventKind)>;

struct Task {
    server: Arc<Server>,
    stream: bool,
    wants_logprobs: bool,
    requests: Vec<Request>,
    choices: Vec<Choice>,
    context: TurnContext,
    tickets: Vec<Ticket>,
    events: Events,
    progress: mpsc::Sender<Progress>,
    started: Instant,
    last_token: Option<Instant>,
}

/// Why the events were no longer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// All choices have ended.
    Nothing,
    /// The caller has gone, or takes nothing.
    Caller,
    /// The time is up.
    Time,
    /// The engine went away without a word.
    Engine,
}

impl Task {
    async fn run(mut self) {
        let left = self.read_events().await;
        self.tickets.clear();
        if matches!(left, Left::Caller | Left::Time) {
            self.read_the_rest().await;
        }
        let num_generated = self.choices.iter().map(|choice| choice.usage.generated).sum();
        self.server.charge_tokens(&self.context.caller, num_generated);
        self.server.metrics.observe_choices(&self.choices);
        let recorded = self.record(left).await;
        let failed = self.choices.iter().find_map(|choice| match &choice.end {
            Some(End::Failed(reason)) => Some(reason.clone()),
            _ => None,
        });
        let last = match (left, recorded, failed) {
            (Left::Caller, Err(error), _) => {
                tracing::warn!(%error, "the turn of a caller that left is not recorded");
                return;
            }
            (Left::Caller, Ok(()), _) => return,
            (_, Err(error), _) => Progress::Failed(error),
            (Left::Engine, ..) => {
                Progress::Failed(ApiError::new(ErrorKind::GenerationFailed, "the engine stopped"))
            }
            (Left::Time, ..) => Progress::Failed(ApiError::new(
                ErrorKind::GenerationFailed,
                "the answer took longer than a request may",
            )),
            (Left::Nothing, Ok(()), Some(reason)) => {
                tracing::warn!(reason, "generation failed");
                let message = format!("generation failed: {reason}");
                Progress::Failed(ApiError::new(ErrorKind::GenerationFailed, message))
            }
            (Left::Nothing, Ok(()), None) => Progress::Done(std::mem::take(&mut self.choices)),
        };
        let write_timeout = self.server.config.limits.write_timeout;
        // The turns are recorded, whether this arrives or not.
        let _ = self.progress.send_timeout(last, write_timeout).await;
    }

    async fn read_events(&mut self) -> Left {
        let limits = &self.server.config.limits;
        let (write_timeout, generation_timeout) = (limits.write_timeout, limits.generation_timeout);
        let deadline = tokio::time::Instant::now() + generation_timeout;
        let mut keep_alive = tokio::time::interval(limits.keep_alive);
        keep_alive.reset();
        while self.choices.iter().any(|choice| choice.end.is_none()) {
            let next = tokio::select! {
                biased;
                () = self.progress.closed() => return Left::Caller,
                () = tokio::time::sleep_until(deadline) => return Left::Time,
                event = self.events.recv() => match event {
                    Some((choice, event)) => self.read(choice, event),
                    None => return Left::Engine,
                },
                _ = keep_alive.tick() => self.stream.then_some(Progress::KeepAlive),
            };
            if let Some(next) = next {
                keep_alive.reset();
                if self.progress.send_timeout(next, write_timeout).await.is_err() {
                    return Left::Caller;
                }
            }
        }
        Left::Nothing
    }

    /// Waits for the ends of requests that were taken back: they say how much was generated.
    async fn read_the_rest(&mut self) {
        let deadline = tokio::time::Instant::now() + CANCEL_TIME;
        while self.choices.iter().any(|choice| choice.end.is_none()) {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some((choice, event))) => drop(self.read(choice, event)),
                _ => break,
            }
        }
        for choice in &mut self.choices {
            choice.end.get_or_insert(End::Cancelled);
        }
    }

    fn read(&mut self, index: usize, event: EventKind) -> Option<Progress> {
        if matches!(event, EventKind::Token(_)) {
            let now = Instant::now();
            match self.last_token.replace(now) {
                None => self.server.metrics.observe_first_token(now - self.started),
                Some(before) => self.server.metrics.observe_inter_token(now - before),
            }
        }
        let choice = self.choices.get_mut(index)?;
        let delta = choice.read(event, self.wants_logprobs);
        let tell = self.stream && !delta.is_empty();
        tell.then_some(Progress::Delta { choice: index, delta })
    }

    async fn record(&mut self, left: Left) -> Result<(), ApiError> {
        if !self.server.config.capture {
            return Ok(());
        }
        let ended = match left {
            Left::Nothing => None,
            Left::Caller => Some("cancelled"),
            Left::Time => Some("timeout"),
            Left::Engine => Some("engine_stopped"),
        };
        let start = Instant::now();
        let result =
            capture::record(&self.server, &self.context, &self.requests, &self.choices, ended)
                .await;
        self.server.metrics.observe_capture(start.elapsed(), result.is_ok());
        result
    }
}

/// Waits for the end of all choices. Whoever stops waiting takes the work back.
pub(crate) async fn wait(mut progress: mpsc::Receiver<Progress>) -> Result<Vec<Choice>, ApiError> {
    loop {
        match progress.recv().await {
            Some(Progress::Done(choices)) => return Ok(choices),
            Some(Progress::Failed(error)) => return Err(error),
            Some(Progress::Delta { .. } | Progress::KeepAlive) => {}
            None => return Err(broken_off()),
        }
    }
}

/// What a caller is told where the task went away without a word.
pub(crate) fn broken_off() -> ApiError {
    ApiError::new(ErrorKind::Internal, "the server failed on this request")
}

/// What a caller is told of a request that the engine did not take.
pub(crate) fn refused(refusal: Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::Busy { retry_after } => {
            ApiError::new(ErrorKind::QueueFull, message).retry_after(retry_after)
        }
        Refusal::Gone { reason } => {
            tracing::error!(reason, "the engine takes no requests");
            ApiError::new(ErrorKind::Unavailable, "the model is not available at the moment")
                .retry_after(Duration::from_secs(5))
        }
        Refusal::Request(SubmitError::QueueFull { .. }) => {
            ApiError::new(ErrorKind::QueueFull, message).retry_after(Duration::from_secs(1))
        }
        Refusal::Request(
            SubmitError::ContextTooLong { .. } | SubmitError::CacheTooSmall { .. },
        ) => ApiError::new(ErrorKind::ContextTooLong, message),
        Refusal::Request(_) => ApiError::new(ErrorKind::InvalidValue, message),
    }
}
