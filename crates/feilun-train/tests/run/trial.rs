//! One run of the tests: a directory, settings, and the loop over the bigram model.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use feilun_train::guard::OutlierSettings;
use feilun_train::learner::{Batches, Learner};
use feilun_train::optimizer::{AdamWSettings, OptimizerSettings};
use feilun_train::run::checkpoint::Refused;
use feilun_train::run::{
    CheckpointSettings, Outcome, Parts, Record, Run, RunDirectory, RunError, StepRecord, Summary,
    TrainingSettings, read_metrics,
};
use feilun_train::schedule::Shape;

use crate::bigram::Bigram;
use crate::chain::Chain;

/// Large enough that a checkpoint takes the disk some time.
pub(crate) const NUM_TOKENS: usize = 128;
pub(crate) const NUM_STEPS: u64 = 200;

pub(crate) fn settings() -> TrainingSettings {
    TrainingSettings {
        seed: 5,
        num_steps: NUM_STEPS,
        learning_rate: 0.05,
        warmup_steps: 10,
        schedule: Shape::Cosine { final_fraction: 0.1 },
        optimizer: OptimizerSettings::AdamW(AdamWSettings::default()),
        clip_norm: 1.0,
        outliers: OutlierSettings { sigmas: 6.0, window: 32 },
        checkpoints: CheckpointSettings {
            every: 7,
            keep_last: 3,
            keep_best: false,
            evaluate_every: 40,
        },
    }
}

pub(crate) fn chain() -> Chain {
    Chain::new(NUM_TOKENS, 5)
}

/// What the loop does, and how it is watched and stopped.
pub(crate) struct Trial<'a, L, B> {
    pub(crate) root: &'a Path,
    pub(crate) settings: TrainingSettings,
    pub(crate) learner: L,
    pub(crate) batches: B,
    /// Steps after which the run is asked to stop.
    pub(crate) stop_after: Option<u64>,
}

impl<'a> Trial<'a, Bigram, Chain> {
    pub(crate) fn new(root: &'a Path) -> Self {
        let learner = Bigram::new(NUM_TOKENS);
        Trial { root, settings: settings(), learner, batches: chain(), stop_after: None }
    }
}

impl<L: Learner, B: Batches> Trial<'_, L, B> {
    /// Begins or resumes, and trains to whatever end.
    pub(crate) fn go(
        &mut self,
        mut watch: impl FnMut(&Record),
    ) -> Result<(Outcome, Vec<Refused>), RunError> {
        let directory = RunDirectory::begin(self.root, &self.settings).unwrap();
        let parts = Parts {
            directory: &directory,
            settings: &self.settings,
            learner: &mut self.learner,
            batches: &self.batches,
            peak_memory: &|| None,
        };
        let (run, refused) = Run::open(parts)?;
        let stop = AtomicBool::new(false);
        let stop_after = self.stop_after;
        let outcome = run.train(&stop, &mut |record| {
            watch(record);
            let is_last = |last| matches!(record, Record::Step(step) if step.step >= last);
            if stop_after.is_some_and(is_last) {
                stop.store(true, Ordering::Relaxed);
            }
        })?;
        Ok((outcome, refused))
    }

    /// Trains to the end.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Summary {
        match self.go(|_| ()).unwrap().0 {
            Outcome::Finished(summary) => summary,
            other => panic!("{other:?}"),
        }
    }
}

/// The digest of an undisturbed run.
pub(crate) fn undisturbed() -> (String, Vec<StepRecord>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let summary = Trial::new(&root).finish();
    (summary.values_digest, steps(&root))
}

/// The steps of a run's metrics, with times left out.
pub(crate) fn steps(root: &Path) -> Vec<StepRecord> {
    let records = read_metrics(&root.join("metrics.jsonl")).unwrap();
    let step = |record| match record {
        Record::Step(step) => Some(StepRecord { seconds: 0.0, ..step }),
        _ => None,
    };
    records.into_iter().filter_map(step).collect()
}

pub(crate) fn checkpoint(root: &Path, step: u64) -> PathBuf {
    root.join("checkpoints").join(format!("step-{step:08}"))
}
