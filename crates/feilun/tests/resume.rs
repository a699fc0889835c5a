//! Runs of the program that are killed, cut off from the disk, or find damage: each ends with the
//! weights of an undisturbed run, bit for bit.
//!
//! The twenty kills of each kind take a minute: `cargo xtask test -p feilun --test resume -- --ignored`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use feilun_train::run::{Record, StepRecord, read_metrics};
use serde_json::Value;

#[path = "support/tiny.rs"]
mod tiny;

use tiny::{World, said};

/// So that a few checkpoints are written between two kills.
const NUM_STEPS: u64 = 60;
const SAVE_EVERY: u64 = 4;
/// No single wait takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pretraining,
    Sft,
    Dpo,
    Lora,
}

impl Kind {
    fn args(self, world: &World, name: &str) -> Vec<String> {
        let (steps, save_every) = (NUM_STEPS.to_string(), SAVE_EVERY.to_string());
        let tokens = (128 * NUM_STEPS).to_string();
        let often = ["--save-every", &save_every, "--evaluate-every", "10"];
        let tune = |data: &str, more: &[&str]| {
            let steps = ["--held-out", "0.1", "--steps", &steps];
            world.tune(name, data, &[&often[..], &steps, more].concat())
        };
        match self {
            Kind::Pretraining => {
                let more = ["--tokens", &tokens, "--held-out", "0.1"];
                world.pretrain(name, &[&often[..], &more].concat())
            }
            Kind::Sft => tune("chats.jsonl", &["--method", "full"]),
            Kind::Dpo => tune("pairs.jsonl", &["--objective", "dpo", "--method", "full"]),
            Kind::Lora => tune("chats.jsonl", &["--rank", "4"]),
        }
    }
}

/// Numbers that are the same in every test run.
fn random(seed: u64) -> u64 {
    // The finalizer of splitmix64.
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A run by its name, and what it does.
struct Trial<'a> {
    world: &'a World,
    kind: Kind,
    name: &'a str,
}

impl Trial<'_> {
    fn root(&self) -> PathBuf {
        self.world.path("runs").join(self.name)
    }

    fn start(&self) -> Child {
        self.world.command(&self.kind.args(self.world, self.name)).spawn().unwrap()
    }

    #[track_caller]
    fn finish(&self) -> Value {
        self.world.json(&self.kind.args(self.world, self.name))
    }

    /// The steps in its metrics, without what is measured by the clock.
    fn steps(&self) -> Vec<StepRecord> {
        let step = |record| match record {
            Record::Step(step) => Some(StepRecord { seconds: 0.0, ..step }),
            _ => None,
        };
        let records = read_metrics(&self.root().join("metrics.jsonl")).unwrap();
        records.into_iter().filter_map(step).collect()
    }

    fn last_step(&self) -> u64 {
        self.steps().last().map_or(0, |step| step.step)
    }

    fn is_writing(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.root().join("checkpoints")) else { return false };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(name).any(|name| name.to_string_lossy().starts_with(".writing-"))
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.root().join(format!("checkpoints/step-{step:08}"))
    }

    /// Kills a process of the run once it has done some step, and a moment more.
    #[track_caller]
    fn kill_after(&self, step: u64, more: Duration) {
        let mut child = self.start();
        wait(&mut child, || self.last_step() >= step);
        std::thread::sleep(more);
        kill(child);
    }

    /// Goes on with the run until it was killed while a checkpoint was only half there.
    #[track_caller]
    fn kill_in_a_write(&self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let before = self.last_step();
            let mut child = self.start();
            // Once it trains, leftovers of the last kill are gone.
            wait(&mut child, || self.last_step() > before || self.last_step() < before);
            while !self.is_writing() && child.try_wait().unwrap().is_none() {}
            assert!(child.try_wait().unwrap().is_none(), "over before it was caught");
            kill(child);
            if self.is_writing() {
                return;
            }
        }
        panic!("no kill hit the writing of a checkpoint");
    }
}

#[track_caller]
fn wait(child: &mut Child, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until() {
        if let Some(status) = child.try_wait().unwrap() {
            let mut text = String::new();
            std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
            panic!("ended with {status} before it was killed: {text}");
        }
        assert!(Instant::now() < deadline, "it hangs");
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Sends SIGKILL.
#[track_caller]
fn kill(mut child: Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "killed, not ended");
}

/// Kills a run so many times, once in a write, and compares its end with an undisturbed one.
#[track_caller]
fn check(kind: Kind, num_kills: u64) {
    let world = World::with_base();
    let undisturbed = Trial { world: &world, kind, name: "undisturbed" };
    let expected = undisturbed.finish();
    let killed = Trial { world: &world, kind, name: "killed" };
    let seed = 1000 * kind as u64;
    let in_a_write = num_kills / 2;
    // The end is left free: a process that has begun to finish cannot be waited for.
    let latest = NUM_STEPS - 3 * SAVE_EVERY;
    let mut targets: Vec<u64> = (0..num_kills).map(|i| 1 + random(seed + i) % latest).collect();
    targets.sort_unstable();
    for (number, target) in (0..).zip(targets) {
        if number == in_a_write {
            killed.kill_in_a_write();
        } else {
            let more = Duration::from_micros(random(seed + 500 + number) % 5_000);
            killed.kill_after(target, more);
        }
    }
    let found = killed.finish();
    assert_eq!(found["values_digest"], expected["values_digest"], "{kind:?}");
    assert_eq!(found["steps"], NUM_STEPS);
    assert_eq!(killed.steps(), undisturbed.steps(), "each step is there once, as it was");
}

#[test]
fn pretraining_is_killed_twice() {
    check(Kind::Pretraining, 2);
}

#[test]
fn sft_is_killed_twice() {
    check(Kind::Sft, 2);
}

#[test]
fn dpo_is_killed_twice() {
    check(Kind::Dpo, 2);
}

#[test]
fn lora_is_killed_twice() {
    check(Kind::Lora, 2);
}

#[test]
#[ignore = "takes a minute"]
fn each_kind_is_killed_twenty_times() {
    for kind in [Kind::Pretraining, Kind::Sft, Kind::Dpo, Kind::Lora] {
        check(kind, 20);
    }
}

#[test]
fn an_interrupted_run_says_130_and_goes_on() {
    let world = World::with_base();
    let trial = Trial { world: &world, kind: Kind::Pretraining, name: "run" };
    let mut child = trial.start();
    wait(&mut child, || trial.last_step() >= 6);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("saved as"), "{}", said(&output));
    let undisturbed = Trial { name: "undisturbed", ..trial };
    assert_eq!(trial.finish()["values_digest"], undisturbed.finish()["values_digest"]);
    assert_eq!(trial.steps(), undisturbed.steps());
}

/// Damages the newest of two checkpoints: it is named, and the run goes on from the other.
#[track_caller]
fn check_damage(damage: impl Fn(&mut Vec<u8>), what: &str) {
    let world = World::new();
    let trial = Trial { world: &world, kind: Kind::Pretraining, name: "run" };
    trial.kill_after(4 * SAVE_EVERY + 1, Duration::ZERO);
    let steps: Vec<u64> = (1..=NUM_STEPS).filter(|&step| trial.checkpoint(step).exists()).collect();
    let &[.., before, newest] = &steps[..] else { panic!("{steps:?}") };
    let path = trial.checkpoint(newest).join("values.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let output = world.run(&trial.kind.args(&world, "run"));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let name = format!("step-{newest:08}` is refused: values.safetensors");
    assert!(said.contains(&name) && said.contains(what), "{said}");
    assert!(said.contains(&format!("goes on after step {before} of")), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let undisturbed = Trial { name: "undisturbed", ..trial };
    assert_eq!(report["values_digest"], undisturbed.finish()["values_digest"]);
}

#[test]
fn a_checkpoint_with_a_flipped_bit_is_refused_by_name() {
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    };
    check_damage(flip, "is damaged: its digest is");
}

#[test]
fn a_checkpoint_cut_short_is_refused_by_name() {
    check_damage(|bytes| bytes.truncate(bytes.len() - 1), "cut short");
}

/// A limit on the size of files, set while the run goes on, stands for a full disk: the write of
/// a checkpoint fails in the middle. It needs no rights and works on every Linux.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_loses_no_checkpoint() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let world = World::new();
    let trial = Trial { world: &world, kind: Kind::Pretraining, name: "run" };
    // The signal would end the process; without it, writes fail with an error.
    let mut command = Command::new("sh");
    world.set_up(&mut command);
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_feilun")]);
    command.args(trial.kind.args(&world, "run"));
    let mut child = command.spawn().unwrap();
    wait(&mut child, || trial.last_step() > 2 * SAVE_EVERY);
    // Room for metrics, not for the 280 KB of a checkpoint's values.
    let bytes = 128 << 10;
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(Pid::from_child(&child)), Resource::Fsize, limit).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("could not be written; earlier checkpoints are untouched"), "{said}");
    assert!(said.contains("cause: File too large"), "{said}");
    let num = (1..=NUM_STEPS).filter(|&step| trial.checkpoint(step).exists()).count();
    assert_eq!(num, 2, "as many as are kept");
    let undisturbed = Trial { name: "undisturbed", ..trial };
    assert_eq!(trial.finish()["values_digest"], undisturbed.finish()["values_digest"]);
}
