//! The loop learns, measures held-out rows, predicts, and keeps what it is told to keep.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use feilun_train::optimizer::{MuonSettings, OptimizerSettings};
use feilun_train::run::checkpoint::Best;
use feilun_train::run::{Outcome, Parts, Record, Run, RunDirectory, read_metrics};

use crate::trial::{NUM_STEPS, NUM_TOKENS, Trial, steps, undisturbed};

#[test]
fn the_loss_falls_to_that_of_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let mut trial = Trial::new(&root);
    let summary = trial.finish();
    assert_eq!((summary.step, summary.num_skipped), (NUM_STEPS, 0));
    let steps = steps(&root);
    let first = steps[0].loss;
    assert!((first - (NUM_TOKENS as f64).ln()).abs() < 0.1, "uniform at first: {first}");
    // The entropy of the chain is 1.26 nats; it has 16,384 rules to learn from 24,000 tokens.
    let best = summary.best.unwrap();
    assert!((1.2..2.5).contains(&best.loss), "{best:?}");
    assert_eq!(summary.num_tokens, steps.iter().map(|step| step.num_tokens).sum::<u64>());
    let again = Trial::new(&root).finish();
    assert_eq!(again.values_digest, summary.values_digest, "a finished run is finished");
    assert_eq!(undisturbed().0, summary.values_digest);
}

#[test]
fn the_best_checkpoint_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let mut trial = Trial::new(&root);
    trial.settings.checkpoints.keep_best = true;
    trial.settings.checkpoints.keep_last = 1;
    // It forgets what it has learned.
    trial.settings.outliers.sigmas = 0.0;
    trial.batches.noise = 80..NUM_STEPS;
    let best = trial.finish().best.unwrap();
    assert!(best.step < NUM_STEPS, "{best:?}");
    let directory = RunDirectory::begin(&root, &trial.settings).unwrap();
    assert_eq!(directory.files().checkpoints().steps().unwrap(), [best.step, NUM_STEPS]);
    let evaluations: Vec<Best> = read_metrics(&directory.files().metrics())
        .unwrap()
        .into_iter()
        .filter_map(|record| match record {
            Record::Evaluation { step, loss, .. } => Some(Best { step, loss }),
            _ => None,
        })
        .collect();
    assert_eq!(
        evaluations.iter().map(|best| best.step).collect::<Vec<_>>(),
        [40, 80, 120, 160, 200]
    );
    assert!(evaluations.iter().all(|other| other.loss >= best.loss));
}

#[test]
fn a_plan_changes_nothing_and_is_scored() {
    let (digest, _) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    Trial { stop_after: Some(10), ..Trial::new(&root) }.go(|_| ()).unwrap();
    let mut trial = Trial::new(&root);
    let directory = RunDirectory::begin(&root, &trial.settings).unwrap();
    let parts = Parts {
        directory: &directory,
        settings: &trial.settings,
        learner: &mut trial.learner,
        batches: &trial.batches,
        peak_memory: &|| Some(1 << 20),
    };
    let (mut run, _) = Run::open(parts).unwrap();
    assert_eq!(run.state().step, 10);
    let plan = run.plan(Duration::from_millis(20)).unwrap();
    assert!(plan.seconds > 0.0 && plan.tokens_per_second > 0.0, "{plan:?}");
    let outcome = run.train(&AtomicBool::new(false), &mut |_| ()).unwrap();
    let Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.values_digest, digest);
    let score = summary.score.unwrap();
    assert_eq!((score.plan, score.memory_ratio()), (plan, Some(1.0)));
    assert!(score.time_ratio().unwrap() > 0.0);
    let records = read_metrics(&directory.files().metrics()).unwrap();
    let is_end =
        |record: &Record| matches!(record, Record::End { score: Some(s), .. } if *s == score);
    assert!(records.iter().any(is_end), "the score is in the metrics");
}

#[test]
fn muon_learns_too_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let trial = |root, stop_after| {
        let mut trial = Trial { stop_after, ..Trial::new(root) };
        let settings = MuonSettings { matrix_rate: 4.0, ..MuonSettings::default() };
        trial.settings.optimizer = OptimizerSettings::Muon(settings);
        trial.settings.num_steps = 80;
        trial
    };
    let (root, other) = (folder.path().join("run"), folder.path().join("other"));
    let summary = trial(&root, None).finish();
    let best = summary.best.unwrap();
    assert!(best.loss < (NUM_TOKENS as f64).ln() - 1.0, "{best:?}");
    trial(&other, Some(33)).go(|_| ()).unwrap();
    assert_eq!(trial(&other, None).finish().values_digest, summary.values_digest);
}
