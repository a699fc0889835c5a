//! The planner: time and memory of a run, before it starts. It measures a few steps of the real
//! model on this machine, works out the rest, and is held to it at the end.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a few seconds of the real work took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Tokens that were computed forward and backward, after a first row that warmed up.
    pub num_tokens: u64,
    /// How long that took.
    pub row_time: Duration,
    /// What a step does before its first row.
    pub begin_time: Duration,
    /// One forward pass over held-out rows: tokens and time, if there are such rows.
    pub evaluation: Option<(u64, Duration)>,
    /// One update of all parameters.
    pub update_time: Duration,
    /// Bytes per second to the disk of the run's directory, synced.
    pub disk_bytes_per_second: f64,
}

/// What a run consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Steps that are left.
    pub num_steps: u64,
    /// Tokens of a step, on average.
    pub tokens_per_step: f64,
    /// Those of them that go forward and backward; KTO measures others beside them.
    pub learned_tokens_per_step: f64,
    /// Evaluations that are left.
    pub num_evaluations: u64,
    /// Tokens of one.
    pub tokens_per_evaluation: u64,
    /// Checkpoints that are left.
    pub num_checkpoints: u64,
    /// Bytes of one.
    pub checkpoint_bytes: u64,
}

/// A prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Time to the end of the run.
    pub seconds: f64,
    /// Of training, without evaluations and checkpoints.
    pub tokens_per_second: f64,
    /// Peak resident memory, where it is known.
    pub peak_bytes: Option<u64>,
}

/// What a prediction turned out to be worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was predicted.
    pub plan: Plan,
    /// What it took.
    pub seconds: f64,
    /// What was reached.
    pub tokens_per_second: f64,
    /// What was needed.
    pub peak_bytes: Option<u64>,
}

/// How the time of a run adds up.
pub fn plan(work: &Work, measured: &Measurement, peak_bytes: Option<u64>) -> Plan {
    let per_token = |tokens: u64, time: Duration| time.as_secs_f64() / tokens.max(1) as f64;
    let step = work.learned_tokens_per_step * per_token(measured.num_tokens, measured.row_time)
        + (measured.begin_time + measured.update_time).as_secs_f64();
    let evaluation = measured
        .evaluation
        .map_or(0.0, |(tokens, time)| work.tokens_per_evaluation as f64 * per_token(tokens, time));
    let checkpoint = work.checkpoint_bytes as f64 / measured.disk_bytes_per_second.max(1.0);
    let seconds = work.num_steps as f64 * step
        + work.num_evaluations as f64 * evaluation
        + work.num_checkpoints as f64 * checkpoint;
    let tokens_per_second = if step > 0.0 { work.tokens_per_step / step } else { 0.0 };
    Plan { seconds, tokens_per_second, peak_bytes }
}

/// The memory of a run, from formulas alone: to be asked before anything is allocated.
///
/// Values, gradients and two moments of each trained parameter, in f32; what the learner holds
/// beside them (frozen weights, copies, activations); and what the process holds already.
pub fn formula_bytes(num_parameters: usize, learner_bytes: u64, resident_bytes: u64) -> u64 {
    let flat = (2 * size_of::<f32>() * num_parameters) as u64;
    let moments = crate::optimizer::Optimizer::state_bytes(num_parameters);
    flat.saturating_add(moments).saturating_add(learner_bytes).saturating_add(resident_bytes)
}

impl Score {
    /// Actual over predicted time: 1.1 took a tenth longer.
    pub fn time_ratio(&self) -> Option<f64> {
        ratio(self.seconds, self.plan.seconds)
    }

    /// Actual over predicted memory.
    pub fn memory_ratio(&self) -> Option<f64> {
        ratio(self.peak_bytes? as f64, self.plan.peak_bytes? as f64)
    }
}

fn ratio(actual: f64, predicted: f64) -> Option<f64> {
    (predicted > 0.0).then(|| actual / predicted)
}

/// Repeats work until the budget is used up, and says how long it took; at least once.
/// The work says when it has no more.
pub(crate) fn repeat<E>(
    budget: Duration,
    mut work: impl FnMut() -> Result<bool, E>,
) -> Result<Duration, E> {
    let start = Instant::now();
    while work()? && start.elapsed() < budget {}
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        let measured = Measurement {
            num_tokens: 500,
            row_time: Duration::from_secs(2),
            begin_time: Duration::from_millis(100),
            evaluation: Some((100, Duration::from_millis(100))),
            update_time: Duration::from_millis(400),
            disk_bytes_per_second: 1e6,
        };
        let work = Work {
            num_steps: 10,
            tokens_per_step: 1500.0,
            learned_tokens_per_step: 1000.0,
            num_evaluations: 2,
            tokens_per_evaluation: 300,
            num_checkpoints: 3,
            checkpoint_bytes: 2_000_000,
        };
        let plan = plan(&work, &measured, Some(1 << 30));
        // 10 × (4 s + 0.1 s + 0.4 s) + 2 × 0.3 s + 3 × 2 s
        assert!((plan.seconds - 51.6).abs() < 1e-9, "{plan:?}");
        assert!((plan.tokens_per_second - 1500.0 / 4.5).abs() < 1e-9);
        let score =
            Score { plan, seconds: 56.76, tokens_per_second: 200.0, peak_bytes: Some(1 << 29) };
        assert!((score.time_ratio().unwrap() - 1.1).abs() < 1e-9);
        assert_eq!(score.memory_ratio(), Some(0.5));
    }

    #[test]
    fn memory_is_four_vectors_and_the_rest() {
        assert_eq!(formula_bytes(1000, 5, 7), 16_012);
    }
}
