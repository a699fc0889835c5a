//! SIGKILL at any instant changes nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use feilun_train::run::{Outcome, RunDirectory};

use crate::child::Training;
use crate::trial::{NUM_STEPS, Trial, settings, steps, undisturbed};

const NUM_KILLS: u64 = 20;

/// Numbers that are the same in every test run.
fn random(seed: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}

#[test]
fn a_run_killed_twenty_times_ends_as_an_undisturbed_one() {
    let (digest, expected) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let mut targets: Vec<u64> =
        (0..NUM_KILLS).map(|kill| 1 + random(kill) % (NUM_STEPS - 10)).collect();
    targets.sort_unstable();
    for (kill, target) in targets.into_iter().enumerate() {
        let mut child = Training::start(&root);
        child.wait_for(target);
        std::thread::sleep(Duration::from_micros(random(100 + kill as u64) % 6_000));
        child.kill();
    }
    kill_in_a_write(&root);
    assert_eq!(Trial::new(&root).finish().values_digest, digest);
    assert_eq!(steps(&root), expected, "each step is in the metrics once, as it was");
}

/// Goes on with the run until it was killed while a checkpoint was only half there.
fn kill_in_a_write(root: &Path) {
    let is_writing = || {
        let entries = fs::read_dir(root.join("checkpoints")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(name).any(|name| name.to_string_lossy().starts_with(".writing-"))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let mut child = Training::start(root);
        // Once it trains, leftovers of the last kill are gone.
        assert!(child.next().is_some_and(|said| said.starts_with("step ")));
        let mut is_over = false;
        while !is_writing() && !is_over {
            is_over = child.process.try_wait().unwrap().is_some();
        }
        assert!(!is_over, "the run is over before it was caught");
        child.kill();
        if is_writing() {
            return;
        }
    }
    panic!("no kill hit the writing of a checkpoint");
}

#[test]
fn a_second_process_in_the_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let mut child = Training::start(&root);
    child.wait_for(1);
    let pid = child.process.id();
    let error = RunDirectory::begin(&root, &settings()).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {pid}")), "{error}");
    child.kill();
    RunDirectory::begin(&root, &settings()).unwrap();
}

#[test]
fn an_interrupted_run_is_saved_and_goes_on() {
    let (digest, expected) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    for stop_after in [17, 18, 21, 90] {
        let mut trial = Trial { stop_after: Some(stop_after), ..Trial::new(&root) };
        let (outcome, refused) = trial.go(|_| ()).unwrap();
        let checkpoint = Some(crate::trial::checkpoint(&root, stop_after));
        assert_eq!(outcome, Outcome::Interrupted { step: stop_after, checkpoint });
        assert!(refused.is_empty());
    }
    assert_eq!(Trial::new(&root).finish().values_digest, digest);
    assert_eq!(steps(&root), expected);
}
