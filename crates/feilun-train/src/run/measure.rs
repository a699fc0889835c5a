//! A few seconds of the real work, from which the planner predicts the rest. Nothing that the
//! run will compute with is changed by it.

use std::time::{Duration, Instant};

use super::durable::{remove_if_there, write_file};
use super::training::num_tokens;
use super::{Run, RunError};
use crate::data::PackedRow;
use crate::learner::{Batches, Flat, Learner};
use crate::optimizer::{UpdateStep, gradient_norm};
use crate::planner::{Measurement, Plan, Work, plan, repeat};

/// Steps whose tokens are counted for the average.
const NUM_COUNTED_STEPS: u64 = 8;
/// Shares of the budget.
const ROWS_SHARE: f64 = 0.7;
const EVALUATION_SHARE: f64 = 0.15;
/// A measurement is no longer than this share of what it predicts.
const RUN_SHARE: f64 = 0.1;
/// Written to find out how fast the disk is: more than the caches of disks, soon done.
const DISK_BYTES: usize = 32 << 20;

impl<L: Learner, B: Batches> Run<'_, L, B> {
    /// Predicts from a measurement.
    pub(super) fn measure(&mut self, budget: Duration) -> Result<Plan, RunError> {
        let (num_tokens, row_time, begin_time) = self.measure_rows(budget.mul_f64(ROWS_SHARE))?;
        let measured = Measurement {
            num_tokens,
            row_time,
            begin_time,
            evaluation: self.measure_evaluation(budget.mul_f64(EVALUATION_SHARE))?,
            update_time: self.measure_update()?,
            disk_bytes_per_second: self.measure_disk()?,
        };
        Ok(plan(&self.work()?, &measured, (self.parts.peak_memory)()))
    }

    /// Tokens, the time for them, and the time of what comes before the first row of a step.
    fn measure_rows(&mut self, budget: Duration) -> Result<(u64, Duration, Duration), RunError> {
        let step = self.state.step;
        let failed = |source| RunError::Learner { step: step + 1, source };
        let mut rows = self.rows(step)?;
        let learner = &mut *self.parts.learner;
        learner.begin(&rows).map_err(failed)?;
        let none = (0, Duration::ZERO, Duration::ZERO);
        let Some(first) = rows.first() else { return Ok(none) };
        // The first touches memory for the first time.
        learner.accumulate(first).map_err(failed)?;
        let start = Instant::now();
        learner.begin(&rows).map_err(failed)?;
        let begin_time = start.elapsed();
        rows.retain(|row| !row.is_measured_only());
        let mut tokens = 0;
        let num_left = self.parts.settings.num_steps.saturating_sub(step) as usize * rows.len();
        let enough = ((RUN_SHARE * num_left as f64) as usize).max(1);
        let mut next = rows.iter().cycle().take(enough);
        let time = repeat(budget, || -> Result<bool, RunError> {
            let Some(row) = next.next() else { return Ok(false) };
            learner.accumulate(row).map_err(failed)?;
            tokens += row.tokens.len() as u64;
            Ok(true)
        })?;
        Ok((tokens, time, begin_time))
    }

    fn measure_evaluation(
        &mut self,
        budget: Duration,
    ) -> Result<Option<(u64, Duration)>, RunError> {
        let step = self.state.step;
        let failed = |source| RunError::Learner { step, source };
        let rows = self.parts.batches.held_out();
        if rows.is_empty() || self.parts.settings.checkpoints.evaluate_every == 0 {
            return Ok(None);
        }
        self.parts.learner.begin(rows).map_err(failed)?;
        let mut tokens = 0;
        let mut next = rows.iter();
        let time = repeat(budget, || -> Result<bool, RunError> {
            let Some(row) = next.next() else { return Ok(false) };
            self.parts.learner.loss(row).map_err(failed)?;
            tokens += row.tokens.len() as u64;
            Ok(true)
        })?;
        Ok(Some((tokens, time)))
    }

    /// One update, with gradients and moments of zero and at rate zero: it changes nothing. A
    /// resumed run loads its moments after this.
    fn measure_update(&mut self) -> Result<Duration, RunError> {
        let Flat { pool, isa, values, gradients } = self.parts.learner.flat_mut();
        gradients.fill(0.0);
        let optimizer = &mut self.optimizer;
        let step = UpdateStep { learning_rate: 0.0, gradient_scale: 1.0, num_updates: 1 };
        let mut update = || {
            // The norm is part of it: it reads all gradients.
            gradient_norm(pool, isa, gradients);
            optimizer.update(pool, isa, values, gradients, &step)
        };
        // The first touches the moments for the first time.
        update()?;
        let start = Instant::now();
        update()?;
        Ok(start.elapsed())
    }

    fn measure_disk(&self) -> Result<f64, RunError> {
        let path = self.parts.directory.files().root().join("disk.writing");
        let values: &[u8] = bytemuck::cast_slice(self.parts.learner.values());
        let bytes = &values[..values.len().min(DISK_BYTES)];
        let measure = || -> std::io::Result<f64> {
            remove_if_there(&path)?;
            let start = Instant::now();
            write_file(&path, |writer| writer.write_all(bytes))?;
            let time = start.elapsed();
            remove_if_there(&path)?;
            Ok(bytes.len() as f64 / time.as_secs_f64().max(1e-9))
        };
        measure().map_err(|source| RunError::Disk { path: path.clone(), source })
    }

    /// What is left to do.
    fn work(&self) -> Result<Work, RunError> {
        let settings = self.parts.settings;
        let left = self.state.step..settings.num_steps;
        let counted = left.start..left.end.min(left.start + NUM_COUNTED_STEPS);
        let num_counted = counted.clone().count();
        let (mut tokens, mut learned) = (0, 0);
        for step in counted {
            let mut rows = self.rows(step)?;
            tokens += num_tokens(&rows);
            rows.retain(|row| !row.is_measured_only());
            learned += num_tokens(&rows);
        }
        let per_step = |tokens: u64| tokens as f64 / num_counted.max(1) as f64;
        let held_out: &[PackedRow] = self.parts.batches.held_out();
        let due = |is_due: &dyn Fn(u64) -> bool| {
            left.clone().filter(|&step| is_due(step + 1)).count() as u64
        };
        let evaluates = |step| !held_out.is_empty() && settings.is_evaluation(step);
        // A run that learns finds a new best at nearly every evaluation.
        let keeps_best = settings.checkpoints.keep_best;
        let is_saved = |step| settings.is_checkpoint(step) || (keeps_best && evaluates(step));
        let num_values = self.parts.learner.values().len();
        Ok(Work {
            num_steps: left.clone().count() as u64,
            tokens_per_step: per_step(tokens),
            learned_tokens_per_step: per_step(learned),
            num_evaluations: due(&evaluates),
            tokens_per_evaluation: num_tokens(held_out),
            num_checkpoints: due(&is_saved),
            checkpoint_bytes: size_of_val(self.parts.learner.values()) as u64
                + crate::optimizer::Optimizer::state_bytes(num_values),
        })
    }
}
