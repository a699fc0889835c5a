//! The loop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::checkpoint::{Best, CheckpointState, Checkpoints, Found, Refused};
use super::metrics::Metrics;
use super::{Outcome, Record, Refusal, RunDirectory, RunError, StepRecord, Summary};
use crate::data::PackedRow;
use crate::guard::OutlierGuard;
use crate::learner::{Batches, Flat, Learner};
use crate::objective::Sums;
use crate::optimizer::{Optimizer, UpdateStep, clip_scale, gradient_norm};
use crate::planner::{Plan, Score};
use crate::run::TrainingSettings;

/// The name of the values in a checkpoint; the optimizer names its own.
pub(super) const VALUES: &str = "values.safetensors";

/// What a run is made of.
pub struct Parts<'a, L, B> {
    /// Where it works.
    pub directory: &'a RunDirectory,
    /// What it does.
    pub settings: &'a TrainingSettings,
    /// What it trains, as it is before the first step.
    pub learner: &'a mut L,
    /// On what.
    pub batches: &'a B,
    /// The peak of the process's resident memory, for those who can know it.
    pub peak_memory: &'a dyn Fn() -> Option<u64>,
}

/// A process's work on a run.
pub struct Run<'a, L, B> {
    pub(super) parts: Parts<'a, L, B>,
    pub(super) optimizer: Optimizer,
    pub(super) checkpoints: Checkpoints,
    /// From where it goes on.
    from: Option<Found>,
    pub(super) state: CheckpointState,
    plan: Option<Plan>,
}

impl<L, B> std::fmt::Debug for Run<'_, L, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("from", &self.from).field("plan", &self.plan).finish()
    }
}

/// What became of one step.
enum Step {
    Done(StepRecord),
    Interrupted,
    Refused(Refusal),
}

impl<'a, L: Learner, B: Batches> Run<'a, L, B> {
    /// Finds from where to go on. Returns also the checkpoints that were refused, newest first;
    /// they were renamed.
    ///
    /// # Errors
    /// When settings make no sense, or the checkpoints are all damaged or of another run.
    pub fn open(parts: Parts<'a, L, B>) -> Result<(Self, Vec<Refused>), RunError> {
        parts.settings.check()?;
        let optimizer = Optimizer::new(parts.settings.optimizer, parts.learner.parameters())?;
        let checkpoints = parts.directory.files().checkpoints();
        checkpoints.prepare()?;
        let mut names = vec![VALUES];
        names.extend(optimizer.state().map(|(name, _)| name));
        let (from, refused) = checkpoints.newest(&names)?;
        let fresh = CheckpointState {
            step: 0,
            num_updates: 0,
            num_tokens: 0,
            elapsed_ms: 0,
            seed: parts.settings.seed,
            config: parts.directory.config_digest().to_owned(),
            data: parts.batches.digest(),
            outliers: OutlierGuard::default(),
            best: None,
        };
        if let Some(found) = &from {
            check_same_run(found, &fresh)?;
        }
        for refused in &refused {
            checkpoints.set_aside(refused)?;
        }
        let state = from.as_ref().map_or(fresh, |found| found.state.clone());
        Ok((Run { parts, optimizer, checkpoints, from, state, plan: None }, refused))
    }

    /// Where the run stands: steps done, and so on.
    pub fn state(&self) -> &CheckpointState {
        &self.state
    }

    /// Measures for about as long as `budget`, and predicts. The prediction is written into the
    /// metrics and scored at the end.
    ///
    /// # Errors
    /// When the learner or the data fail.
    pub fn plan(&mut self, budget: Duration) -> Result<Plan, RunError> {
        let plan = self.measure(budget)?;
        self.plan = Some(plan);
        Ok(plan)
    }

    /// Trains to the end, until `stop` is set, or until a guard refuses. `observe` sees each
    /// record of the metrics as it is written.
    ///
    /// # Errors
    /// When something fails that is no matter of guards: the disk, the learner, the data.
    pub fn train(
        mut self,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&Record),
    ) -> Result<Outcome, RunError> {
        self.load()?;
        let metrics = Metrics::open(self.parts.directory.files().metrics(), self.state.step)?;
        let mut log = Log { metrics, observe };
        log.write(&self.start_record())?;
        let start = Instant::now();
        let tokens_before = self.state.num_tokens;
        let mut training_time = Duration::ZERO;
        let mut last_loss = None;
        while self.state.step < self.parts.settings.num_steps {
            let step_start = Instant::now();
            let mut record = match self.step(stop)? {
                Step::Done(record) => record,
                Step::Interrupted => return self.interrupted(&mut log),
                Step::Refused(refusal) => return self.refused(refusal, &mut log),
            };
            let time = step_start.elapsed();
            training_time += time;
            record.seconds = time.as_secs_f64();
            self.state.elapsed_ms += time.as_millis() as u64;
            last_loss = Some(record.loss);
            log.write(&Record::Step(record))?;
            let mut is_best = false;
            if self.parts.settings.is_evaluation(self.state.step) {
                match self.evaluate(&mut log)? {
                    Evaluated::Refused(refusal) => return self.refused(refusal, &mut log),
                    Evaluated::Done { is_best: found } => is_best = found,
                }
            }
            // The best can only be kept if there is a checkpoint of it.
            let keeps_best = is_best && self.parts.settings.checkpoints.keep_best;
            if keeps_best || self.parts.settings.is_checkpoint(self.state.step) {
                self.save(&mut log)?;
            }
        }
        let num_tokens = (self.state.num_tokens - tokens_before) as f64;
        let score = self.plan.map(|plan| Score {
            plan,
            seconds: start.elapsed().as_secs_f64(),
            tokens_per_second: num_tokens / training_time.as_secs_f64().max(1e-9),
            peak_bytes: (self.parts.peak_memory)(),
        });
        log.write(&Record::End { step: self.state.step, is_finished: true, score })?;
        log.metrics.sync()?;
        let values: &[u8] = bytemuck::cast_slice(self.parts.learner.values());
        Ok(Outcome::Finished(Summary {
            step: self.state.step,
            num_skipped: self.state.step - self.state.num_updates,
            num_tokens: self.state.num_tokens,
            seconds: self.state.elapsed_ms as f64 / 1e3,
            last_loss,
            best: self.state.best,
            values_digest: blake3::hash(values).to_hex().to_string(),
            score,
        }))
    }

    /// Fills values and moments from the checkpoint, if there is one, and gradients with zeros:
    /// a measurement leaves some behind. Each step leaves zeros.
    fn load(&mut self) -> Result<(), RunError> {
        self.parts.learner.flat_mut().gradients.fill(0.0);
        let Some(found) = &self.from else { return Ok(()) };
        let parameters = self.parts.learner.parameters().to_vec();
        for (name, moments) in self.optimizer.state_mut() {
            self.checkpoints.load(found, &parameters, name, moments)?;
        }
        let values = self.parts.learner.flat_mut().values;
        self.checkpoints.load(found, &parameters, VALUES, values)?;
        self.values_changed()
    }

    /// One step: gradients of all rows, checks, update.
    fn step(&mut self, stop: &AtomicBool) -> Result<Step, RunError> {
        let number = self.state.step + 1;
        let rows = self.rows(self.state.step)?;
        let sums = match self.accumulate(&rows, stop)? {
            Accumulated::All(sums) => sums,
            Accumulated::Interrupted => return Ok(Step::Interrupted),
            Accumulated::Refused(refusal) => return Ok(Step::Refused(refusal)),
        };
        let Parts { learner, settings, .. } = &mut self.parts;
        let Flat { pool, isa, values, gradients } = learner.flat_mut();
        let norm = gradient_norm(pool, isa, gradients);
        if !norm.is_finite() {
            return Ok(Step::Refused(self.refuse_gradient(norm, &rows)));
        }
        let learning_rate = settings.schedule().rate(self.state.step);
        let skipped = self.state.outliers.observe(&settings.outliers, sums.loss, norm);
        if skipped.is_none() {
            self.state.num_updates += 1;
            let scale = clip_scale(norm, settings.clip_norm);
            let num_updates = self.state.num_updates;
            let update = UpdateStep { learning_rate, gradient_scale: scale, num_updates };
            self.optimizer.update(pool, isa, values, gradients, &update)?;
            self.values_changed()?;
        } else {
            gradients.fill(0.0);
        }
        let num_tokens = num_tokens(&rows);
        self.state.step = number;
        self.state.num_tokens += num_tokens;
        Ok(Step::Done(StepRecord {
            step: number,
            loss: sums.loss,
            gradient_norm: norm,
            learning_rate,
            num_tokens,
            seconds: 0.0,
            skipped,
            sums,
        }))
    }

    fn accumulate(
        &mut self,
        rows: &[PackedRow],
        stop: &AtomicBool,
    ) -> Result<Accumulated, RunError> {
        let step = self.state.step + 1;
        let failed = |source| RunError::Learner { step, source };
        self.parts.learner.begin(rows).map_err(failed)?;
        let mut sums = Sums::default();
        for (index, row) in rows.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(Accumulated::Interrupted);
            }
            let part = self.parts.learner.accumulate(row).map_err(failed)?;
            if !part.loss.is_finite() {
                let (batch, found) = (self.parts.batches.describe(row), part.loss);
                let refusal = Refusal::Loss { step, row: index, batch, found };
                return Ok(Accumulated::Refused(refusal));
            }
            sums += part;
        }
        if sums.num_tokens == 0 {
            let batch = self.describe(rows);
            return Ok(Accumulated::Refused(Refusal::NothingLearned { step, batch }));
        }
        Ok(Accumulated::All(sums))
    }

    fn refuse_gradient(&mut self, found: f64, rows: &[PackedRow]) -> Refusal {
        let learner = &mut self.parts.learner;
        let infos = learner.parameters().to_vec();
        let gradients = learner.flat_mut().gradients;
        let is_bad =
            |range: std::ops::Range<usize>| gradients[range].iter().any(|x| !x.is_finite());
        let parameter = infos.into_iter().find(|info| is_bad(info.range.clone()));
        Refusal::GradientNorm {
            step: self.state.step + 1,
            batch: self.describe(rows),
            found,
            parameter: parameter.map(|info| info.name),
        }
    }

    /// Measures the held-out rows.
    fn evaluate(&mut self, log: &mut Log<'_>) -> Result<Evaluated, RunError> {
        let rows = self.parts.batches.held_out();
        if rows.is_empty() {
            return Ok(Evaluated::Done { is_best: false });
        }
        let step = self.state.step;
        let failed = |source| RunError::Learner { step, source };
        let start = Instant::now();
        self.parts.learner.begin(rows).map_err(failed)?;
        let mut sums = Sums::default();
        for row in rows {
            sums += self.parts.learner.loss(row).map_err(failed)?;
        }
        let loss = sums.loss;
        if !loss.is_finite() {
            return Ok(Evaluated::Refused(Refusal::HeldOutLoss { step, found: loss }));
        }
        let is_best = self.state.best.is_none_or(|best| loss < best.loss);
        if is_best {
            self.state.best = Some(Best { step, loss });
        }
        let nats_per_token = sums.nats_per_token();
        let bits_per_byte =
            self.parts.batches.held_out_bytes().map(|bytes| sums.bits_per_byte(bytes));
        let seconds = start.elapsed().as_secs_f64();
        log.write(&Record::Evaluation { step, loss, nats_per_token, bits_per_byte, seconds })?;
        Ok(Evaluated::Done { is_best })
    }

    fn save(&mut self, log: &mut Log<'_>) -> Result<PathBuf, RunError> {
        // A run that goes on from this checkpoint keeps the records up to it.
        log.metrics.sync()?;
        let start = Instant::now();
        let mut tensors = vec![(VALUES, self.parts.learner.values())];
        tensors.extend(self.optimizer.state());
        let parameters = self.parts.learner.parameters();
        let written = self.checkpoints.write(parameters, &tensors, &self.state)?;
        let settings = &self.parts.settings.checkpoints;
        let best = self.state.best.filter(|_| settings.keep_best).map(|best| best.step);
        self.checkpoints.retain(settings.keep_last, best)?;
        let seconds = start.elapsed().as_secs_f64();
        let step = self.state.step;
        log.write(&Record::Checkpoint { step, bytes: written.bytes, seconds })?;
        Ok(written.path)
    }

    fn interrupted(mut self, log: &mut Log<'_>) -> Result<Outcome, RunError> {
        let step = self.state.step;
        let checkpoint = match self.newest_checkpoint()? {
            Some((saved, path)) if saved == step => Some(path),
            _ if step == 0 => None,
            _ => Some(self.save(log)?),
        };
        log.write(&Record::End { step, is_finished: false, score: None })?;
        log.metrics.sync()?;
        Ok(Outcome::Interrupted { step, checkpoint })
    }

    fn refused(self, refusal: Refusal, log: &mut Log<'_>) -> Result<Outcome, RunError> {
        let reason = refusal.to_string();
        log.write(&Record::Refused { step: self.state.step + 1, reason })?;
        log.metrics.sync()?;
        let checkpoint = self.newest_checkpoint()?.map(|(_, path)| path);
        Ok(Outcome::Refused { refusal, checkpoint })
    }

    fn newest_checkpoint(&self) -> Result<Option<(u64, PathBuf)>, RunError> {
        let steps = self.checkpoints.steps()?;
        Ok(steps.last().map(|&step| (step, self.checkpoints.path(step))))
    }

    fn start_record(&self) -> Record {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Record::Start {
            step: self.state.step,
            pid: std::process::id(),
            unix_seconds: since.map_or(0, |since| since.as_secs()),
            num_steps: self.parts.settings.num_steps,
            plan: self.plan,
        }
    }

    /// The rows of a step, counted from 0.
    pub(super) fn rows(&self, step: u64) -> Result<Vec<PackedRow>, RunError> {
        let failed = |source| RunError::Batch { step: step + 1, source };
        self.parts.batches.rows(step).map_err(failed)
    }

    fn describe(&self, rows: &[PackedRow]) -> String {
        let names: Vec<String> = rows.iter().map(|row| self.parts.batches.describe(row)).collect();
        names.join("; ")
    }

    fn values_changed(&mut self) -> Result<(), RunError> {
        let step = self.state.step + 1;
        self.parts.learner.values_changed().map_err(|source| RunError::Learner { step, source })
    }
}

enum Accumulated {
    All(Sums),
    Interrupted,
    Refused(Refusal),
}

enum Evaluated {
    Done { is_best: bool },
    Refused(Refusal),
}

/// The metrics, and who watches them.
struct Log<'a> {
    metrics: Metrics,
    observe: &'a mut dyn FnMut(&Record),
}

impl Log<'_> {
    fn write(&mut self, record: &Record) -> Result<(), RunError> {
        self.metrics.append(record)?;
        (self.observe)(record);
        Ok(())
    }
}

pub(super) fn num_tokens(rows: &[PackedRow]) -> u64 {
    rows.iter().map(|row| row.tokens.len() as u64).sum()
}

fn check_same_run(found: &Found, expected: &CheckpointState) -> Result<(), RunError> {
    let seed = |state: &CheckpointState| state.seed.to_string();
    let pairs = [
        ("configuration", found.state.config.clone(), expected.config.clone()),
        ("data", found.state.data.clone(), expected.data.clone()),
        ("seed", seed(&found.state), seed(expected)),
    ];
    match pairs.into_iter().find(|(_, found, expected)| found != expected) {
        Some((what, value, expected)) => {
            let path = found.path.clone();
            Err(RunError::OtherRun { path, what, found: value, expected })
        }
        None => Ok(()),
    }
}
