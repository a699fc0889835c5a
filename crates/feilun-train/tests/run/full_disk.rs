//! A full disk is a clear error, and loses nothing that was there.

use std::path::Path;
use std::process::Command;

use crate::child::{self, ARGUMENTS};
use crate::trial::{Trial, checkpoint, undisturbed};

/// Runs a child by a line of shell, in which `$@` is the child. Returns what it said last.
#[track_caller]
fn run_in_shell(line: &str, root: &Path, wrapper: &[&str]) -> String {
    let mut words = wrapper.to_vec();
    words.extend(["sh", "-c", line, "sh"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(std::env::current_exe().unwrap()).args(ARGUMENTS);
    child::for_run(&mut command, root);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().filter_map(|line| line.split_once("child: ")).next_back();
    last.unwrap_or_else(|| panic!("the child said nothing: {text}")).1.to_owned()
}

/// A limit on the size of files stands for a full disk where nothing can be mounted: writes fail
/// in the middle of a file, with another error number.
#[test]
fn a_write_that_fails_in_the_middle_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    Trial { stop_after: Some(20), ..Trial::new(&root) }.go(|_| ()).unwrap();
    // 64 blocks of 512 or 1,024 bytes: room for the metrics, not for 66 KB of values.
    let last = run_in_shell("trap '' XFSZ; ulimit -f 64; exec \"$@\"", &root, &[]);
    check_refused(&root, &last, "File too large");
}

/// A disk of 1 MiB, where the system lets an ordinary user mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (root, disk) = (folder.path().join("run"), folder.path().join("disk"));
    Trial { stop_after: Some(20), ..Trial::new(&root) }.go(|_| ()).unwrap();
    std::fs::create_dir(&disk).unwrap();
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let probe = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Said aloud; the test above covers the same code.
        println!("this system lets nobody mount a small disk");
        return;
    }
    // The run is copied onto the disk, which is filled up but for 100 KB; it is copied back at
    // the end, since the disk is gone with the process.
    let line = format!(
        "set -e; mount -t tmpfs -o size=1m none '{disk}'; cp -a '{root}' '{disk}/'; \
         free=$(df -k --output=avail '{disk}' | tail -n 1); \
         dd if=/dev/zero of='{disk}/filler' bs=1024 count=$((free - 100)) status=none; \
         FEILUN_TEST_RUN='{disk}/run' \"$@\"; \
         rm -r '{root}'; cp -a '{disk}/run' '{root}'",
        disk = disk.display(),
        root = root.display(),
    );
    let last = run_in_shell(&line, &root, &unshare);
    check_refused(&root, &last, "No space left on device");
}

#[track_caller]
fn check_refused(root: &Path, last: &str, cause: &str) {
    let (start, end) = ("error checkpoint `", "make room or mend the disk, then resume the run: ");
    assert!(last.starts_with(start) && last.contains("step-00000021` ("), "{last}");
    assert!(last.contains(&format!("{end}{cause}")), "{last}");
    let names: Vec<bool> = [14, 20, 21].map(|step| checkpoint(root, step).exists()).into();
    assert_eq!(names, [true, true, false]);
    let (outcome, refused) = Trial::new(root).go(|_| ()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let feilun_train::run::Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.values_digest, undisturbed().0);
}
