use feilun_model::train::ParameterKind;

use super::*;
use crate::guard::OutlierGuard;

const NAMES: [&str; 2] = ["values.safetensors", "first_moments.safetensors"];

struct Fixture {
    folder: tempfile::TempDir,
    checkpoints: Checkpoints,
    parameters: Vec<ParameterInfo>,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
    checkpoints.prepare().unwrap();
    let parameters = vec![ParameterInfo {
        name: "w".into(),
        shape: vec![10, 7],
        kind: ParameterKind::Matrix,
        range: 0..70,
    }];
    Fixture { folder, checkpoints, parameters }
}

fn state(step: u64) -> CheckpointState {
    CheckpointState {
        step,
        num_updates: step,
        num_tokens: 10 * step,
        elapsed_ms: 1,
        seed: 3,
        config: "c".into(),
        data: "d".into(),
        outliers: OutlierGuard::default(),
        best: None,
    }
}

fn values(step: u64) -> Vec<f32> {
    (0..70).map(|i| (i as f32 + step as f32).sqrt()).collect()
}

impl Fixture {
    fn write(&self, step: u64) {
        let values = values(step);
        let tensors = NAMES.map(|name| (name, &values[..]));
        self.checkpoints.write(&self.parameters, &tensors, &state(step)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.checkpoints.names().unwrap();
        names.sort();
        names
    }
}

#[test]
fn what_is_written_is_found_and_loaded() {
    let fixture = fixture();
    assert!(fixture.checkpoints.newest(&NAMES).unwrap().0.is_none());
    fixture.write(8);
    fixture.write(10);
    let (found, refused) = fixture.checkpoints.newest(&NAMES).unwrap();
    let found = found.unwrap();
    assert_eq!(found.state, state(10));
    assert!(refused.is_empty());
    let mut loaded = vec![0.0; 70];
    fixture.checkpoints.load(&found, &fixture.parameters, NAMES[1], &mut loaded).unwrap();
    assert_eq!(loaded, values(10));
    assert_eq!(fixture.names(), ["step-00000008", "step-00000010"]);
}

#[test]
fn every_flipped_bit_is_refused_by_name() {
    let fixture = fixture();
    fixture.write(8);
    fixture.write(10);
    let newest = fixture.checkpoints.path(10);
    for name in [NAMES[0], NAMES[1], STATE, MANIFEST] {
        let path = newest.join(name);
        let good = fs::read(&path).unwrap();
        for bit in (0..good.len() * 8).step_by(3) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let (found, refused) = fixture.checkpoints.newest(&NAMES).unwrap();
            assert_eq!(found.unwrap().state.step, 8, "bit {bit} of {name}");
            let [refused] = &refused[..] else { panic!("{refused:?}") };
            let message = refused.to_string();
            assert!(message.contains("step-00000010` is refused: "), "{message}");
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(fixture.checkpoints.newest(&NAMES).unwrap().0.unwrap().state.step, 10);
}

#[test]
fn a_checkpoint_cut_short_is_refused_by_name() {
    let fixture = fixture();
    fixture.write(8);
    fixture.write(10);
    let newest = fixture.checkpoints.path(10);
    for name in [NAMES[0], NAMES[1], STATE, MANIFEST] {
        let path = newest.join(name);
        let good = fs::read(&path).unwrap();
        for len in [0, 1, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..len]).unwrap();
            let (found, refused) = fixture.checkpoints.newest(&NAMES).unwrap();
            assert_eq!(found.unwrap().state.step, 8, "{len} bytes of {name}");
            assert!(refused[0].to_string().contains(name), "{}", refused[0]);
        }
        fs::remove_file(&path).unwrap();
        let (found, refused) = fixture.checkpoints.newest(&NAMES).unwrap();
        assert_eq!((found.unwrap().state.step, refused.len()), (8, 1), "without {name}");
        fs::write(&path, good).unwrap();
    }
    fs::write(newest.join(NAMES[0]), b"").unwrap();
    let (_, refused) = fixture.checkpoints.newest(&NAMES).unwrap();
    fixture.checkpoints.set_aside(&refused[0]).unwrap();
    assert_eq!(fixture.names(), ["refused-step-00000010", "step-00000008"]);
}

#[test]
fn a_checkpoint_under_another_name_is_refused() {
    let fixture = fixture();
    fixture.write(8);
    fs::rename(fixture.checkpoints.path(8), fixture.checkpoints.path(9)).unwrap();
    let error = fixture.checkpoints.newest(&NAMES).unwrap_err().to_string();
    assert!(error.starts_with("none of the 1 checkpoints in"), "{error}");
    assert!(error.contains("state.json is of step 8, expected 9"), "{error}");
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let fixture = fixture();
    fixture.write(8);
    let root = fixture.folder.path().join("checkpoints");
    for name in [".writing-step-00000009", ".removing-step-00000007"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("values.safetensors"), b"part").unwrap();
    }
    fs::write(root.join("notes.txt"), b"of the user").unwrap();
    fixture.checkpoints.prepare().unwrap();
    assert_eq!(fixture.names(), ["notes.txt", "step-00000008"]);
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let fixture = fixture();
    (1..=6).for_each(|step| fixture.write(step));
    fixture.checkpoints.retain(2, Some(3)).unwrap();
    assert_eq!(fixture.checkpoints.steps().unwrap(), [3, 5, 6]);
    fixture.checkpoints.retain(1, None).unwrap();
    assert_eq!(fixture.checkpoints.steps().unwrap(), [6]);
    fixture.checkpoints.retain(0, None).unwrap();
    assert_eq!(fixture.checkpoints.steps().unwrap(), [6]);
}

#[test]
fn a_failed_write_leaves_nothing_and_touches_nothing() {
    let fixture = fixture();
    fixture.write(8);
    let values = values(9);
    // A file name that no file system takes stands for any failure in the middle.
    let long = "x".repeat(300);
    let tensors = [(NAMES[0], &values[..]), (&long, &values[..])];
    let error = fixture.checkpoints.write(&fixture.parameters, &tensors, &state(9)).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("could not be written; earlier checkpoints are untouched"));
    assert_eq!(fixture.names(), ["step-00000008"]);
    assert_eq!(fixture.checkpoints.newest(&NAMES).unwrap().0.unwrap().state.step, 8);
}
