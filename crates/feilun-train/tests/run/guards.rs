//! Guards in the loop: NaN stops a run and names the batch, outliers are left out.

use feilun_model::train::ParameterInfo;
use feilun_train::data::PackedRow;
use feilun_train::guard::Outlier;
use feilun_train::learner::{BoxError, Flat, Learner};
use feilun_train::objective::Sums;
use feilun_train::run::{Outcome, Record, Refusal, read_metrics};

use crate::bigram::Bigram;
use crate::trial::{NUM_STEPS, NUM_TOKENS, Trial, chain, checkpoint, steps};

/// What a defect makes of a row that is computed as the `at`-th.
#[derive(Clone, Copy)]
enum Defect {
    Loss(f64),
    Gradient(f32),
}

/// A bigram model with a defect.
struct Defective {
    inner: Bigram,
    at: usize,
    num_rows: usize,
    defect: Defect,
}

impl Learner for Defective {
    fn parameters(&self) -> &[ParameterInfo] {
        self.inner.parameters()
    }

    fn values(&self) -> &[f32] {
        self.inner.values()
    }

    fn flat_mut(&mut self) -> Flat<'_> {
        self.inner.flat_mut()
    }

    fn begin(&mut self, rows: &[PackedRow]) -> Result<(), BoxError> {
        self.inner.begin(rows)
    }

    fn accumulate(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        let mut sums = self.inner.accumulate(row)?;
        if self.num_rows == self.at {
            match self.defect {
                Defect::Loss(loss) => sums.loss = loss,
                Defect::Gradient(value) => {
                    *self.inner.flat_mut().gradients.last_mut().unwrap() = value;
                }
            }
        }
        self.num_rows += 1;
        Ok(sums)
    }

    fn loss(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        self.inner.loss(row)
    }

    fn other_bytes(&self) -> u64 {
        self.inner.other_bytes()
    }
}

/// The refusal of a run whose second row of step 12 has a defect; checkpoints are made at 7.
fn refusal_of(defect: Defect) -> Refusal {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let inner = Bigram::new(NUM_TOKENS);
    let learner = Defective { inner, at: 11 * 3 + 1, num_rows: 0, defect };
    let mut trial = Trial {
        root: &root,
        settings: crate::trial::settings(),
        learner,
        batches: chain(),
        stop_after: None,
    };
    let outcome = trial.go(|_| ()).unwrap().0;
    let Outcome::Refused { refusal, checkpoint: kept } = outcome else { panic!("{outcome:?}") };
    assert_eq!(kept, Some(checkpoint(&root, 7)));
    assert!(trial.learner.values().iter().all(|value| value.is_finite()));
    let records = read_metrics(&root.join("metrics.jsonl")).unwrap();
    let reason = refusal.to_string();
    assert_eq!(records.last(), Some(&Record::Refused { step: 12, reason }));
    // Without the defect, the run goes on from there.
    assert_eq!(Trial::new(&root).finish().values_digest, crate::trial::undisturbed().0);
    refusal
}

#[test]
fn a_loss_that_is_no_number_names_step_and_batch() {
    let message = refusal_of(Defect::Loss(f64::NAN)).to_string();
    assert!(
        message.starts_with(
            "the loss of step 12 is NaN, expected a finite number; row 1 of the batch: \
             walk 2, walk 3. "
        ),
        "{message}"
    );
    assert!(matches!(refusal_of(Defect::Loss(f64::INFINITY)), Refusal::Loss { step: 12, .. }));
}

#[test]
fn a_gradient_that_is_no_number_names_its_parameter() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let message = refusal_of(Defect::Gradient(value)).to_string();
        assert!(message.starts_with("the gradient norm of step 12 is "), "{message}");
        assert!(message.contains("first in `bias`; the batch: walk 0, walk 1; "), "{message}");
    }
}

#[test]
fn a_run_that_diverges_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let mut trial = Trial::new(&root);
    trial.settings.learning_rate = 1e38;
    let outcome = trial.go(|_| ()).unwrap().0;
    assert!(
        matches!(outcome, Outcome::Refused { refusal: Refusal::Loss { .. }, .. }),
        "{outcome:?}"
    );
}

#[test]
fn a_batch_of_noise_is_left_out_also_after_a_resume() {
    let noise_at = 150;
    let noisy = |root, stop_after| {
        let mut trial = Trial { stop_after, ..Trial::new(root) };
        trial.batches.noise = noise_at..noise_at + 1;
        trial
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let summary = noisy(&root, None).finish();
    assert_eq!((summary.step, summary.num_skipped), (NUM_STEPS, 1));
    let expected = steps(&root);
    let skipped: Vec<_> = expected.iter().filter_map(|s| Some((s.step, s.skipped?))).collect();
    assert_eq!(skipped, [(noise_at + 1, Outlier::Loss)]);
    // What the guard remembers is part of a checkpoint.
    let other = folder.path().join("other");
    noisy(&other, Some(140)).go(|_| ()).unwrap();
    noisy(&other, Some(noise_at + 2)).go(|_| ()).unwrap();
    assert_eq!(noisy(&other, None).finish().values_digest, summary.values_digest);
    assert_eq!(steps(&other), expected);
}
