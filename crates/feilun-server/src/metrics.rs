//! What `/metrics` tells, in the format of Prometheus. Labels have few values: never a caller's
//! text, never a key.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::backend::Status;
use crate::generation::choice::Choice;

/// Upper bounds in seconds, from a cached token to a long prompt on a busy machine.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelName {
    model: String,
}

/// The figures of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_time: Histogram,
    connections: Gauge,
    first_token: Histogram,
    inter_token: Histogram,
    tokens: Family<Of, Counter>,
    capture_time: Histogram,
    capture_failures: Counter,
    engine: Family<ModelName, Gauge>,
    waiting: Family<ModelName, Gauge>,
    blocks_used: Family<ModelName, Gauge>,
    blocks: Family<ModelName, Gauge>,
    model_bytes: Family<ModelName, Gauge>,
    resident: Gauge<f64, AtomicU64>,
    queued_writes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("feilun"),
            requests: Family::default(),
            request_time: Histogram::new(SECONDS),
            connections: Gauge::default(),
            first_token: Histogram::new(SECONDS),
            inter_token: Histogram::new(SECONDS),
            tokens: Family::default(),
            capture_time: Histogram::new(SECONDS),
            capture_failures: Counter::default(),
            engine: Family::default(),
            waiting: Family::default(),
            blocks_used: Family::default(),
            blocks: Family::default(),
            model_bytes: Family::default(),
            resident: Gauge::default(),
            queued_writes: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        let mut seconds = |name, help, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        seconds("http_request", "Until the head of the answer", &self.request_time);
        seconds("time_to_first_token", "From queueing to the first token", &self.first_token);
        seconds("inter_token", "Between tokens of one request", &self.inter_token);
        seconds("capture", "From the end of an answer to its commit", &self.capture_time);
        registry.register("capture_failures", "Turns not recorded", self.capture_failures.clone());
        registry.register("capture_queue", "Writes that wait", self.queued_writes.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("tokens", "Tokens: prompt, cached, generated", self.tokens.clone());
        registry.register("requests_running", "Being computed", self.engine.clone());
        registry.register("requests_waiting", "In the queue", self.waiting.clone());
        registry.register("cache_blocks_used", "KV blocks with content", self.blocks_used.clone());
        registry.register("cache_blocks", "KV blocks", self.blocks.clone());
        registry.register("model_bytes", "Memory of a model", self.model_bytes.clone());
        registry.register("resident_memory_bytes", "Memory of the process", self.resident.clone());
    }

    pub(crate) fn observe_request(&self, route: &'static str, status: u16, time: Duration) {
        self.requests.get_or_create(&Answered { route, status }).inc();
        self.request_time.observe(time.as_secs_f64());
    }

    pub(crate) fn observe_first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    pub(crate) fn observe_inter_token(&self, time: Duration) {
        self.inter_token.observe(time.as_secs_f64());
    }

    pub(crate) fn observe_capture(&self, time: Duration, is_ok: bool) {
        self.capture_time.observe(time.as_secs_f64());
        if !is_ok {
            self.capture_failures.inc();
        }
    }

    pub(crate) fn observe_choices(&self, choices: &[Choice]) {
        let sum = |count: fn(&Choice) -> usize| choices.iter().map(count).sum::<usize>() as u64;
        let add = |kind, count| self.tokens.get_or_create(&Of { kind }).inc_by(count);
        add("prompt", sum(|choice| choice.usage.prompt));
        add("cached", sum(|choice| choice.usage.cached_prompt));
        add("generated", sum(|choice| choice.usage.generated));
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    /// All figures as text.
    pub(crate) fn encode(
        &self,
        status: &Status,
        queued_writes: usize,
    ) -> Result<String, std::fmt::Error> {
        self.queued_writes.set(queued_writes as i64);
        for model in &status.models {
            let label = ModelName { model: model.name.clone() };
            for (family, count) in [
                (&self.engine, model.running),
                (&self.waiting, model.waiting),
                (&self.blocks_used, model.cache_blocks_used),
                (&self.blocks, model.cache_blocks),
                (&self.model_bytes, model.bytes as usize),
            ] {
                family.get_or_create(&label).set(count as i64);
            }
        }
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Linux alone tells it this way; elsewhere the figure is missing.
fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}
