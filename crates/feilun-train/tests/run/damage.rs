//! A damaged checkpoint is refused by name, and the run goes on from the one before.

use std::fs;
use std::path::Path;

use feilun_train::run::RunError;
use feilun_train::run::checkpoint::CheckpointError;

use crate::chain::Chain;
use crate::trial::{NUM_STEPS, NUM_TOKENS, Trial, checkpoint, undisturbed};

/// Damages the newest checkpoint of a run that stands at step 60 and has others of 49 and 56.
#[track_caller]
fn check(damage: impl Fn(&Path), file: &str, what: &str) {
    let (digest, _) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    Trial { stop_after: Some(60), ..Trial::new(&root) }.go(|_| ()).unwrap();
    let newest = checkpoint(&root, 60);
    damage(&newest.join(file));
    let mut first_step = None;
    let mut trial = Trial { stop_after: Some(58), ..Trial::new(&root) };
    let watch = |record: &feilun_train::run::Record| {
        first_step.get_or_insert(record.step());
    };
    let (_, refused) = trial.go(watch).unwrap();
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(refused.path, newest);
    let message = refused.to_string();
    assert!(message.contains(file) && message.contains(what), "{message}");
    assert_eq!(first_step, Some(56), "the one before is used");
    assert!(root.join("checkpoints/refused-step-00000060").exists(), "kept for a look at it");
    assert_eq!(Trial::new(&root).finish().values_digest, digest);
}

#[test]
fn a_flipped_bit() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    };
    check(flip, "values.safetensors", "is damaged: its digest is");
    check(flip, "second_moments.safetensors", "is damaged: its digest is");
    check(flip, "manifest.json", "damaged");
}

#[test]
fn a_file_cut_short() {
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    check(cut, "values.safetensors", "cut short");
    check(cut, "state.json", "cut short");
}

#[test]
fn no_checkpoint_left_is_an_error_and_not_a_new_start() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    Trial { stop_after: Some(10), ..Trial::new(&root) }.go(|_| ()).unwrap();
    for step in [7, 10] {
        fs::remove_file(checkpoint(&root, step).join("values.safetensors")).unwrap();
    }
    let error = Trial::new(&root).go(|_| ()).unwrap_err();
    assert!(matches!(error, RunError::Checkpoint(CheckpointError::NoneVerifies { num: 2, .. })));
    let message = error.to_string();
    assert!(message.contains("step-00000010` is refused: cannot read values"), "{message}");
}

#[test]
fn a_checkpoint_of_other_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    Trial { stop_after: Some(10), ..Trial::new(&root) }.go(|_| ()).unwrap();
    let batches = Chain::new(NUM_TOKENS, 6);
    let error = Trial { batches, ..Trial::new(&root) }.go(|_| ()).unwrap_err().to_string();
    assert!(error.contains("was made with other data: chain of 128 tokens, seed 5"), "{error}");
    let mut trial = Trial::new(&root);
    assert_eq!(trial.finish().step, NUM_STEPS);
}
